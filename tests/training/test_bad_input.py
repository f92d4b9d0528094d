"""Every mistake in the data or the recipe is found before training, and said with its mend."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import insitu
from insitu.errors import UserError
from insitu.recipe import parse
from training.digits_rows import changed, digit_rows, recipe_tree, write_rows

Rows = dict[str, list[Any]]


def _train(spark: SparkSession, tmp_path: Path, rows: Rows, tree: dict[str, Any] | None = None) -> None:
    data = write_rows(tmp_path / "data", rows)
    insitu.train(spark, parse(tree or recipe_tree()), data=data, output=str(tmp_path / "model"))


def test_run_that_a_job_left_beside_its_model_is_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model.run").mkdir()
    with pytest.raises(
        UserError, match=r"--output: .*/model exists, and .*/model\.run too: .*; .*remove .*/model\.run"
    ):
        insitu.train(spark, parse(recipe_tree()), data=str(tmp_path), output=str(tmp_path / "model"), resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.run"]


def _with(section: str, **keys: Any) -> dict[str, Any]:
    tree = recipe_tree()
    tree[section] |= keys
    return tree


TRUNCATED = changed(digit_rows(), "image", lambda i, v: v[:-30] if i < 5 else v)
CASES: dict[str, tuple[Rows, dict[str, Any], str]] = {
    "label column missing": (
        digit_rows(),
        _with("data", label_column="lable"),
        r"data\.label_column: .* no column lable; did you mean label\?",
    ),
    "image column missing": (
        digit_rows(),
        _with("data", image_column="images"),
        r"data\.image_column: .* no column images; did you mean image\?",
    ),
    "labels that are ids": (
        changed(digit_rows(), "label", lambda i, v: 3_000_000_000 + i),
        recipe_tree(),
        r"data\.label_column: label would make 3000000064 classes, more than 10000: is it an id\?; ",
    ),
    "id column missing": (digit_rows(), _with("data", id_column="idd"), r"data\.id_column: .* did you mean id\?"),
    "split column missing": (
        digit_rows(),
        _with("data", split_column="fold"),
        r"data\.split_column: the dataset has no column fold; the columns are id, image, label, split",
    ),
    "reader that cannot read a column": (
        changed(digit_rows(), "image", lambda i, v: {"bytes": v, "path": None}),
        _with("data", reader="petastorm"),
        r"data\.reader: petastorm cannot read column image of type struct.*; set data\.reader: pyarrow",
    ),
    "no image column": (
        {key: value for key, value in digit_rows().items() if key != "image"},
        recipe_tree(),
        r"data\.image_column: no image in columns id, label, split; ",
    ),
    "no label": (
        changed(digit_rows(), "label", lambda i, v: None if i else 1),
        recipe_tree(),
        r"data\.max_bad_fraction: 96 of 97 rows .* digit-1: label is null; ",
    ),
    "one class only": (
        changed(digit_rows(), "label", lambda i, v: 3),
        recipe_tree(),
        r"data\.label_column: all training rows are of class 3; ",
    ),
    "label outside the classes": (
        changed(digit_rows(), "label", lambda i, v: 12 if i == 80 else v),
        _with("task", classes=[str(i) for i in range(10)]),
        r"task\.classes: label 12 is outside the classes 0\.\.9; ",
    ),
    "task of other labels": (
        digit_rows(),
        _with("task", kind="multilabel"),
        r"task\.kind: multilabel learns from multi_hot labels, column label is integer; ",
    ),
    "too many bad images": (
        TRUNCATED,
        recipe_tree(),
        r"data\.max_bad_fraction: 5 of 97 rows .* 0\.01 .* digit-0: damaged image: .*; ",
    ),
    "no validation rows": (
        changed(digit_rows(), "split", lambda i, v: "train"),
        recipe_tree(),
        r"data\.split_column: no row is in the validation split; ",
    ),
    "fewer validation rows than workers": (
        digit_rows(validation=1),
        _with("training", workers=2),
        r"training\.workers: 2 workers for 1 validation rows",
    ),
    "fewer rows than workers": (
        changed(digit_rows(train=2), "label", lambda i, v: i % 2),
        _with("training", workers=2, global_batch=4),
        r"training\.global_batch: 4 is more than the 2 training rows; ",
    ),
    "batch smaller than the workers": (
        digit_rows(),
        _with("training", workers=2, global_batch=1),
        r"training\.global_batch: 1 images cannot be shared evenly by 2 workers; set a multiple of 2",
    ),
    "more workers than cores": (
        digit_rows(),
        _with("training", workers=3, global_batch=33),
        r"training\.workers: 3 workers do not fit 1 executors of 2 cores; ",
    ),
    "input too small": (digit_rows(), _with("data", size=[8, 8]), r"data\.size: 8x8 is too small for squeezenet; "),
    "unknown topology": (digit_rows(), _with("model", name="squezenet"), r"model\.name: .*did you mean squeezenet\?"),
    "model.init is no model": (
        digit_rows(),
        _with("model", init="nowhere"),
        r"model\.init: file:.*/nowhere is no model directory",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_mistake_is_named_with_its_mend(spark: SparkSession, tmp_path: Path, case: str) -> None:
    rows, tree, message = CASES[case]
    with pytest.raises(UserError, match=message):
        _train(spark, tmp_path, rows, tree)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_output_that_cannot_be_written(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = write_rows(tmp_path / "data", digit_rows())
    with pytest.raises(UserError, match=r"--output: .*/file/model\.run cannot be made .*; name a place that can"):
        insitu.train(spark, parse(recipe_tree()), data=data, output=str(tmp_path / "file/model"))


def test_output_that_exists_is_left_alone(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"--output: .*/model exists; "):
        _train(spark, tmp_path, digit_rows())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"--data: .* does not exist; "),
        (lambda path: path.mkdir(), r"--data: .* holds no Parquet file; "),
        (lambda path: write_rows(path, digit_rows(train=0, validation=0)), r"--data: .* holds no row; "),
        (lambda path: _cut_short(path), r"--data: .* is no whole Parquet file "),
    ],
    ids=["missing", "no file", "no row", "cut short"],
)
def test_dataset_that_cannot_be_read(spark: SparkSession, tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        insitu.train(spark, parse(recipe_tree()), data=str(tmp_path / "data"), output=str(tmp_path / "model"))


def test_bad_rows_below_the_limit_are_quarantined(spark: SparkSession, tmp_path: Path) -> None:
    tree = recipe_tree(engine="bigdl", epochs=1)
    tree["data"]["max_bad_fraction"] = 0.1
    data = write_rows(tmp_path / "data", TRUNCATED)
    summary = insitu.train(spark, parse(tree), data=data, output=str(tmp_path / "model"))
    assert summary["quarantined"] == 5
    quarantine = pq.read_table(tmp_path / "model/quarantine.parquet").to_pylist()
    assert sorted(row["id"] for row in quarantine) == [f"digit-{i}" for i in range(5)]
    assert all("damaged image" in row["reason"] and row["path"].endswith("part-0.parquet") for row in quarantine)


def _cut_short(path: Path) -> None:
    file = Path(write_rows(path, digit_rows())) / "part-0.parquet"
    file.write_bytes(file.read_bytes()[:-200])
