"""Additions: rows that were labelled later train, on both engines, and the validation split stays as it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pyspark.sql import SparkSession

import insitu
from insitu.data.decode import decode
from insitu.data.layout import write_dataset
from insitu.errors import UserError
from insitu.models import build
from insitu.recipe import Recipe, parse
from insitu.training.prepare import Prepared
from scored_models import CLASSES, write_model
from training.digits_rows import TRAIN, VALIDATION, changed, digit_rows, recipe_tree, scanned, write_rows
from training.test_engines import Interrupt

SIZE = (64, 64)
LATER = 16
"""Digits that the dataset does not have."""

Rows = dict[str, list[Any]]


def later_rows(rows: int = LATER) -> Rows:
    """Digits after those of the dataset, without a split."""
    everything = digit_rows(train=TRAIN + VALIDATION + rows, validation=0)
    return {name: everything[name][-rows:] for name in ("id", "image", "label")}


def with_additions(*additions: str, **training: Any) -> Recipe:
    tree = recipe_tree(**training)
    tree["data"]["additions"] = list(additions)
    return parse(tree)


def places(prepared: Prepared, split: str) -> set[tuple[str, int]]:
    """File and row of each row of a split."""
    pieces = prepared.scan.rows[split]
    return {(piece.path, 20 * piece.row_group + int(row)) for piece in pieces for row in piece.offsets}


def few_classes(rows: Rows, classes: int = CLASSES) -> Rows:
    return changed(rows, "label", lambda i, v: v % classes)


def small_network(seed: int) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    return build("mcnn", size=SIZE, channels=1, outputs=CLASSES, activation="softmax", options={"width": 0.5})


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(small_network(seed=5), tmp_path_factory.mktemp("parent"))


def after_one_step(parent: str, *parts: Rows) -> list[np.ndarray]:
    """Keras's own weights after one step from a model's, on all rows of some parts."""
    model = insitu.load(parent).model
    model.compile(tf.keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    images = np.stack([decode(image, size=SIZE, channels=1) for rows in parts for image in rows["image"]])
    model.train_on_batch(images, np.array([label for rows in parts for label in rows["label"]]))
    return model.get_weights()


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("engine", ["orca", "bigdl"])
def test_training_goes_on_from_a_model_with_old_and_new_rows(
    spark: SparkSession, engine: str, parent: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One step of plain SGD at rate 1 on all rows, rows without a label and of the validation split left out.

    The dataset's labels cannot be null, as Spark writes a column that it computed; those of the additions can.
    """
    rows, later = few_classes(digit_rows()), few_classes(later_rows())
    data, output = write_rows(tmp_path / "data", rows), str(tmp_path / "model")
    _forbid_null_labels(Path(data) / "part-0.parquet")
    held_out = {name: [*values[:10], rows[name][-1]] for name, values in later.items()}
    rest = {name: values[8:] for name, values in later.items()}
    unlabelled = changed(rest, "label", lambda i, v: v if i > 1 else None)
    additions = [write_rows(tmp_path / "first", held_out), write_rows(tmp_path / "second", unlabelled)]
    sgd = {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0}
    tree = recipe_tree(engine=engine, epochs=1, global_batch=TRAIN + LATER, optimizer=sgd)
    tree["model"] = {"name": "mcnn", "options": {"width": 0.5}, "init": parent, "keep_head": True}
    tree["data"] = {"size": list(SIZE), "channels": 1, "additions": additions}
    summary = insitu.train(spark, parse(tree), data=data, output=output, listener=lambda event: None)
    assert (summary["added"], summary["steps"]) == (LATER, 1)
    weights, train = insitu.load(output).model.get_weights(), few_classes(digit_rows(validation=0))
    assert difference(weights, after_one_step(parent, train, later)) < 1e-5
    assert difference(weights, after_one_step(parent, train)) > 1e-4
    provenance = json.loads((tmp_path / "model/provenance.json").read_text())
    assert provenance["parent_model"] == f"file://{parent}"
    found = provenance["data"]
    assert found["rows"] == {"train": TRAIN + LATER, "validation": VALIDATION, "quarantined": 0, "unused": 0}
    first, second = found["additions"]
    assert len({first.pop("fingerprint"), second.pop("fingerprint"), found["fingerprint"]}) == 3
    nothing = {"unlabelled": 0, "held_out": 0, "quarantined": 0}
    assert first == {"uri": f"file://{additions[0]}", "rows": 10, **nothing, "held_out": 1}
    assert second == {"uri": f"file://{additions[1]}", "rows": 6, **nothing, "unlabelled": 2}
    predicted = pq.read_table(tmp_path / "model/predictions.parquet").to_pylist()
    assert {line["path"] for line in predicted} == {f"file://{data}/part-0.parquet"}
    said = f"data: 6 rows of file://{additions[1]} join the training split; left out: 2 without a label, 0 that are"
    assert said in capfd.readouterr().err


@pytest.mark.nightly
@pytest.mark.parametrize("engine", ["orca", "bigdl"])
def test_a_run_is_resumed_with_the_same_additions_alone(spark: SparkSession, engine: str, tmp_path: Path) -> None:
    data, added = write_rows(tmp_path / "data", digit_rows()), write_rows(tmp_path / "added", later_rows())
    recipe, output = with_additions(added, engine=engine, workers=1, global_batch=8), str(tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        insitu.train(spark, recipe, data=data, output=output, listener=Interrupt(after_step=1))
    more = pq.read_table(f"{added}/part-0.parquet").slice(0, 3)
    pq.write_table(more, f"{added}/part-1.parquet")
    with pytest.raises(UserError, match=rf"data\.additions: file://{added} does not hold the files that the run began"):
        insitu.train(spark, recipe, data=data, output=output, resume=True)
    Path(f"{added}/part-1.parquet").unlink()
    with pytest.raises(UserError, match=r"data\.additions: \[\], and the run began with \['file://"):
        insitu.train(
            spark, with_additions(engine=engine, workers=1, global_batch=8), data=data, output=output, resume=True
        )
    summary = insitu.train(spark, recipe, data=data, output=output, resume=True, listener=lambda event: None)
    assert summary["resumed_from_step"]
    assert (summary["added"], summary["steps"]) == (LATER, 2 * (TRAIN + LATER) // 8)


def test_what_validates_is_what_validated_before(spark: SparkSession, tmp_path: Path) -> None:
    """Without a split column rows are drawn, and a split column of an addition is not looked at."""
    rows = {name: values for name, values in digit_rows().items() if name != "split"}
    data = write_rows(tmp_path / "data", rows)
    before = scanned(spark, with_additions(), data)
    added = write_rows(tmp_path / "added", later_rows() | {"split": ["validation"] * LATER})
    after = scanned(spark, with_additions(added), data)
    assert places(after, "validation") == places(before, "validation")
    assert len(places(after, "train")) == len(places(before, "train")) + LATER
    assert after.counts.rows == before.counts.rows + LATER
    drawn = {row for _, row in places(before, "validation")}
    again = write_rows(tmp_path / "again", rows)
    leaky = scanned(spark, with_additions(again), data)
    assert (leaky.additions[0].scan.held_out, leaky.additions[0].rows) == (len(drawn), TRAIN + VALIDATION - len(drawn))
    assert {row for path, row in places(leaky, "train") if "/again/" in path}.isdisjoint(drawn)


@pytest.mark.parametrize("reader", ["pyarrow", "petastorm"])
@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
def test_ids_are_compared_as_text(spark: SparkSession, tmp_path: Path, reader: str) -> None:
    """Scoring writes every id as text. A row without an id is nobody's."""
    data = write_rows(tmp_path / "data", changed(digit_rows(), "id", lambda i, v: i if i % 5 else None))
    added = write_rows(tmp_path / "added", changed(later_rows(), "id", lambda i, v: str(TRAIN + i) if i % 4 else None))
    tree = recipe_tree()
    tree["data"] |= {"additions": [added], "reader": reader}
    (addition,) = scanned(spark, parse(tree), data).additions
    leaked = [i for i in range(LATER) if i % 4 and (TRAIN + i) % 5]
    assert (addition.scan.held_out, addition.rows) == (len(leaked), LATER - len(leaked))


def test_without_an_id_in_common_it_is_said_that_nothing_is_compared(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "data", digit_rows())
    rows = later_rows()
    del rows["id"]
    added = write_rows(tmp_path / "added", rows)
    assert scanned(spark, with_additions(added), data).additions[0].rows == LATER
    assert f"data: {added} and --data have no id column in common: whether it holds" in capsys.readouterr().err


def test_bad_rows_of_an_addition_are_quarantined_and_held_to_the_limit_on_their_own(
    spark: SparkSession, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "data", digit_rows())
    damaged = changed(later_rows(), "image", lambda i, v: v[:-30] if i < 2 else v)
    added = write_rows(tmp_path / "added", changed(damaged, "label", lambda i, v: v if i < 10 else None))
    tree = recipe_tree()
    tree["data"] |= {"additions": [added], "max_bad_fraction": 0.2}
    prepared = scanned(spark, parse(tree), data)
    assert (prepared.scan.bad_rows, prepared.additions[0].rows) == (2, 8)
    assert [row.id for row in prepared.scan.bad] == [f"digit-{TRAIN + VALIDATION + i}" for i in range(2)]
    tree["data"]["max_bad_fraction"] = 0.15
    message = (
        rf"data\.max_bad_fraction: 2 of 10 rows of {added} cannot be used, more than 0\.15 of them; the first, digit-"
    )
    with pytest.raises(UserError, match=message):
        scanned(spark, parse(tree), data)


MISTAKES: dict[str, tuple[Rows, str]] = {
    "no label": (
        changed(later_rows(), "label", lambda i, v: None) | {"label": pa.array([None] * LATER, pa.int64())},
        r"no row of .*/added can train: 16 have no label, 0 are of the validation split; label some, or leave it out",
    ),
    "validation rows alone": (
        {name: values[-3:] for name, values in digit_rows().items()},
        r"no row of .*/added can train: 0 have no label, 3 are of the validation split; label some, or leave it out",
    ),
    "labels of another form": (
        changed(later_rows(), "label", lambda i, v: [v]),
        r"label is list<.*: int64> in .*/added, and int64 in --data; write it with label as int64, as the dataset has",
    ),
    "labels of another type": (
        changed(later_rows(), "label", lambda i, v: float(v) if i else None),
        r"label is double in .*/added, and int64 in --data; write it with label as int64, as the dataset has it",
    ),
    "no label column": (
        {name: values for name, values in later_rows().items() if name != "label"},
        r".*/added has no column label; write it with label as int64",
    ),
    "no image column": (
        {name: values for name, values in later_rows().items() if name != "image"},
        r".*/added has no column image; write it with image as binary",
    ),
    "a class that the dataset has not": (
        changed(later_rows(), "label", lambda i, v: v if i else 10),
        r".*/added: label 10 is outside the classes 0\.\.9; name every class, or mend the labels",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named_with_its_mend(spark: SparkSession, tmp_path: Path, mistake: str) -> None:
    rows, message = MISTAKES[mistake]
    data, added = write_rows(tmp_path / "data", digit_rows()), write_rows(tmp_path / "added", rows)
    with pytest.raises(UserError, match=rf"data\.additions: {message}"):
        scanned(spark, with_additions(added), data)


def test_directory_that_is_empty_or_missing(spark: SparkSession, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", digit_rows())
    with pytest.raises(UserError, match=r"data\.additions: file://.*/added does not exist; name a Parquet directory"):
        insitu.train(spark, with_additions(str(tmp_path / "added")), data=data, output=str(tmp_path / "model"))
    (tmp_path / "added").mkdir()
    with pytest.raises(UserError, match=r"data\.additions: .*/added holds no Parquet file; name a directory such as"):
        scanned(spark, with_additions(str(tmp_path / "added")), data)
    write_rows(tmp_path / "added/rows", digit_rows(train=0, validation=0))
    with pytest.raises(UserError, match=r"data\.additions: .*/added holds no row; check the job"):
        scanned(spark, with_additions(str(tmp_path / "added")), data)
    assert not (tmp_path / "model.run").exists()


def test_classes_in_another_order_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    names = [f"digit {i}" for i in range(10)]
    data, added = str(tmp_path / "data"), str(tmp_path / "added")
    for path, rows, classes in ((data, digit_rows(), names), (added, later_rows(), names[::-1])):
        write_dataset(spark.read.parquet(write_rows(Path(f"{path}-plain"), rows)), path, label="label", classes=classes)
    with pytest.raises(UserError, match=r"data\.additions: the classes of .*/added are digit 9, .* and here digit 0, "):
        scanned(spark, with_additions(added), data)


def test_a_head_of_other_classes_is_not_kept(spark: SparkSession, parent: str, tmp_path: Path) -> None:
    tree = recipe_tree()
    tree["model"] = {"name": "mcnn", "options": {"width": 0.5}, "init": parent, "keep_head": True}
    tree["data"]["size"] = list(SIZE)
    data = write_rows(tmp_path / "data", few_classes(digit_rows(), CLASSES + 1))
    message = (
        rf"model\.keep_head: the head of file://{parent} is multiclass of 0, 1, 2, and here multiclass of 0, 1, 2, 3 "
        "is learned; bring labels of its classes, in its order, or leave this out"
    )
    with pytest.raises(UserError, match=message):
        insitu.train(spark, parse(tree), data=data, output=str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def _forbid_null_labels(file: Path) -> None:
    table = pq.read_table(file)
    schema = table.schema.set(table.schema.get_field_index("label"), pa.field("label", pa.int64(), nullable=False))
    pq.write_table(table.cast(schema), file, row_group_size=20)
