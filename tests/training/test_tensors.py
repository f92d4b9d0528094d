"""Training on windows, float tensors in lists, by either engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import insitu
from insitu.artifact import Tensor, TensorPreprocessing
from insitu.errors import UserError
from insitu.recipe import parse
from insitu.scoring.bigdl import score
from insitu.training.engines.base import Layout
from insitu.training.prepare import shard
from tensor_data import window_rows
from training.digits_rows import changed, digit_rows, recipe_tree, scanned, write_rows
from training.test_engines import Interrupt

SHAPE = (31, 32)
TRAIN, VALIDATION = 64, 33


def windows_tree(**training: Any) -> dict[str, Any]:
    return recipe_tree(**training) | {"data": {"tensor_shape": list(SHAPE)}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two windows of 97 cannot be read."""
    rows = window_rows(TRAIN, VALIDATION, shape=SHAPE)
    rows = changed(rows, "tensor", lambda number, values: {3: values[:-1], 70: None}.get(number, values))
    return write_rows(tmp_path_factory.mktemp("windows") / "data", rows)


@pytest.mark.parametrize("engine", ["orca", "bigdl"])
def test_windows_are_learnt_and_scored(spark: SparkSession, engine: str, data: str, tmp_path: Path) -> None:
    tree = windows_tree(engine=engine, epochs=3)
    tree["data"]["max_bad_fraction"] = 0.1
    output = str(tmp_path / "model")
    summary = insitu.train(spark, parse(tree), data=data, output=output, listener=lambda event: None)
    assert summary["metrics"]["auc_macro"] > 0.9
    assert summary["quarantined"] == 2
    quarantine = pq.read_table(f"{output}/quarantine.parquet").to_pylist()
    assert {row["id"]: row["reason"] for row in quarantine} == {
        "window-3": "list of 991, expected 992",
        "window-70": "tensor is null",
    }
    trained = insitu.load(output)
    assert trained.signature.inputs == (Tensor("tensor", "float32", (None, *SHAPE, 1), "NHWC"),)
    assert trained.signature.preprocessing == TensorPreprocessing(SHAPE)
    predictions = pq.read_table(f"{output}/predictions.parquet").to_pylist()
    assert len(predictions) == VALIDATION - 1
    stored = pq.read_table(f"{data}/part-0.parquet").to_pylist()
    rows = [stored[20 * line["row_group"] + line["row"]] for line in predictions]
    assert [row["label"] for row in rows] == [line["label"] for line in predictions]
    scores = trained.model.predict(np.stack([trained.preprocess(row["tensor"]) for row in rows]), verbose=0)
    np.testing.assert_allclose([line["scores"] for line in predictions], scores, rtol=0, atol=1e-4)
    assert "there are no pictures to show" in Path(f"{output}/report/index.html").read_text()
    frame = spark.read.parquet(data).filter("split = 'validation' AND tensor IS NOT NULL")
    found = {row["id"]: row["scores"] for row in score(frame, output).collect()}
    np.testing.assert_allclose([found[row["id"]] for row in rows], scores, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_resumed_run_is_the_uninterrupted_one(spark: SparkSession, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", window_rows(TRAIN, VALIDATION, shape=SHAPE))
    recipe = parse(windows_tree(engine="bigdl", workers=1, global_batch=8))
    whole, resumed = str(tmp_path / "whole"), str(tmp_path / "resumed")
    insitu.train(spark, recipe, data=data, output=whole, listener=lambda event: None)
    with pytest.raises(KeyboardInterrupt):
        insitu.train(spark, recipe, data=data, output=resumed, listener=Interrupt(after_step=1))
    summary = insitu.train(spark, recipe, data=data, output=resumed, resume=True, listener=lambda event: None)
    assert summary["resumed_from_step"] % (TRAIN // 8), "it was not stopped in mid-epoch"
    for ours, theirs in zip(*(insitu.load(output).model.get_weights() for output in (resumed, whole)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tensor_column", "tensors", r"data\.tensor_column: .* no column tensors; did you mean tensor\?"),
        ("tensor_shape", [31, 31], r"data\.max_bad_fraction: .* window-0: list of 992, expected 961; "),
        ("tensor_shape", [124, 8], r"data\.tensor_shape: 124x8 is too small for squeezenet; give at least 31x31"),
    ],
)
def test_mistake_is_named_with_its_mend(
    spark: SparkSession, data: str, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    tree = windows_tree()
    tree["data"][key] = value
    with pytest.raises(UserError, match=message):
        insitu.train(spark, parse(tree), data=data, output=str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_windows_of_a_dataset_of_images_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", digit_rows())
    with pytest.raises(UserError, match=r"data\.max_bad_fraction: 97 of 97 rows .* digit-0: not a NumPy array: "):
        scanned(spark, parse(windows_tree()), data)


def test_a_shuffle_window_is_bounded_in_memory_however_well_the_file_is_compressed(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = changed(window_rows(TRAIN, VALIDATION, shape=SHAPE), "tensor", lambda number, values: [0.0] * len(values))
    tree = windows_tree()
    tree["data"]["shuffle_mib"] = 1
    prepared = scanned(spark, parse(tree), write_rows(tmp_path / "data", rows))
    train, _ = shard(parse(tree), prepared, Layout(workers=1, workers_per_executor=1, threads=1))
    assert prepared.dataset.row_bytes < 100
    assert train.window_rows == 2**20 // (4 * 31 * 32)
