"""A DataFrame's rows scored on the executors, by every runtime, as Keras scores them."""

import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import insitu
from image_conventions import CONVENTIONS, PICTURES
from image_data import as_npy, encode
from insitu import artifact
from insitu.errors import UserError
from insitu.scoring import ir
from insitu.scoring.dataframes import register_udf, score
from scored_models import IMAGES, TENSOR_COLUMNS, UNEVEN, WINDOWS, decoded, image_rows, partitioned, scores_of

RUNTIMES = ("openvino", "tensorflow", "bigdl")
READERS = ("openvino", "bigdl")
"""Those that read rows each in their own way; tensorflow's are read as openvino's."""


@pytest.fixture(scope="module")
def expected(small: str) -> np.ndarray:
    """Keras's scores of `IMAGES`."""
    scores = insitu.load(small).model.predict(decoded(IMAGES), verbose=0)
    assert scores.std(axis=0).min() > 0.1, "the scores of all images are alike"
    return scores


@pytest.mark.parametrize("runtime", RUNTIMES)
class TestRuntime:
    """What every runtime owes."""

    def test_scores_are_kerass(self, spark: SparkSession, small: str, expected: np.ndarray, runtime: Any) -> None:
        """Partitions of many batches, of part of one, and of none; each row once and in its place."""
        rows = score(image_rows(spark, IMAGES, UNEVEN), small, runtime=runtime, batch=4).collect()
        assert [row["id"] for row in rows] == list(range(len(IMAGES)))
        assert [row["fault"] for row in rows] == [None] * len(IMAGES)
        np.testing.assert_allclose([row["scores"] for row in rows], expected, rtol=0, atol=1e-4)

    def test_rows_that_cannot_be_read_are_told(
        self, spark: SparkSession, small: str, expected: np.ndarray, runtime: Any
    ) -> None:
        bad = {1: None, 4: b"", 6: IMAGES[0][:60], 9: b"hello", 14: as_npy(np.zeros((4, 4, 5), np.uint8))}
        images = [bad.get(row, image) for row, image in enumerate(IMAGES)]
        rows = score(image_rows(spark, images, UNEVEN), small, runtime=runtime, batch=4).collect()
        faults = {row["id"]: row["fault"] for row in rows if row["fault"]}
        begin = ["no bytes|image is null", "no bytes", "damaged image", "not an image", r"array of shape [\(\[]?4.*5"]
        assert all(re.match(start, reason) for start, reason in zip(begin, faults.values(), strict=True)), faults
        assert list(faults) == list(bad)
        assert all(row["scores"] is None for row in rows if row["id"] in bad)
        good = [row for row in range(len(IMAGES)) if row not in bad]
        found = [rows[row]["scores"] for row in good]
        np.testing.assert_allclose(found, expected[good], rtol=0, atol=1e-4)

    def test_nothing_runs_before_it_is_asked_for(self, spark: SparkSession, small: str, runtime: Any) -> None:
        context = spark.sparkContext
        frame = image_rows(spark, IMAGES, UNEVEN).repartition(3)
        group = f"scoring by {runtime}"
        context.setJobGroup(group, "what the call itself runs")
        try:
            scored = score(frame, small, runtime=runtime)
            assert context.statusTracker().getJobIdsForGroup(group) == []
            scored.collect()
            assert len(context.statusTracker().getJobIdsForGroup(group)) > 0
        finally:
            context._jsc.clearJobGroup()

    def test_columns_with_any_name_are_kept(self, spark: SparkSession, small: str, runtime: Any) -> None:
        names = ["a b", "dot.ted", "tick`s", "'; DROP TABLE scans; --", "image"]
        frame = spark.createDataFrame([(1, 2, 3, 4, IMAGES[0])], "a int, b int, c int, d int, image binary").toDF(
            *names
        )
        (row,) = score(frame, small, runtime=runtime).collect()
        assert row.asDict().keys() == {*names, "scores", "fault"}
        assert row[:4] == (1, 2, 3, 4)

    def test_frame_without_rows(self, spark: SparkSession, small: str, runtime: Any) -> None:
        scored = score(spark.createDataFrame([], "id long, image binary"), small, runtime=runtime)
        assert scored.collect() == []
        assert scored.columns == ["id", "image", "scores", "fault"]


@pytest.mark.parametrize(("write", "form"), CONVENTIONS)
def test_every_form_of_image_is_read(
    spark: SparkSession, tmp_path: Path, small: str, write: Callable[[SparkSession, Path], None], form: str
) -> None:
    """Petastorm's codecs are encoded images or arrays to Spark."""
    folder = tmp_path / "data"
    folder.mkdir()
    write(spark, folder)
    frame = spark.read.parquet(str(folder)).coalesce(1).cache()
    stored = [tuple(row) for row in frame.collect()]
    theirs = insitu.load(small).model.predict(decoded([encode(each) for each in PICTURES]), verbose=0)
    for runtime in READERS:
        scored = score(frame, small, runtime=runtime).collect()  # type: ignore[arg-type]
        order = [row["id"] for row in scored] if "id" in frame.columns else range(len(PICTURES))
        np.testing.assert_allclose([row["scores"] for row in scored], theirs[order], rtol=0, atol=1e-4, err_msg=runtime)
        assert [row[:-2] for row in scored] == stored, f"{runtime} changed the images"
    frame.unpersist()


@pytest.mark.parametrize(("runtime", "kind"), [*product(READERS, TENSOR_COLUMNS), ("tensorflow", "array<float>")])
def test_scores_of_tensors_are_kerass(spark: SparkSession, windows: str, runtime: Any, kind: str) -> None:
    tensors = [TENSOR_COLUMNS[kind](window) for window in WINDOWS]
    trained = insitu.load(windows)
    theirs = trained.model.predict(np.stack([trained.preprocess(tensor) for tensor in tensors]), verbose=0)
    frame = partitioned(spark, list(enumerate(tensors)), UNEVEN, f"id long, tensor {kind}")
    found = scores_of(score(frame, windows, runtime=runtime, batch=4))
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-4)


def test_a_filter_on_the_result_scores_no_row_twice(spark: SparkSession, small: str) -> None:
    frame = image_rows(spark, [*IMAGES[:2], b"hello"], [3])
    good = score(frame, small).filter("fault IS NULL AND scores[0] >= 0")
    assert good._jdf.queryExecution().executedPlan().toString().count("ArrowEvalPython") == 1
    assert [row["id"] for row in good.collect()] == [0, 1]


def test_sql_function(spark: SparkSession, small: str, expected: np.ndarray) -> None:
    register_udf(spark, "squeezenet", small)
    image_rows(spark, [*IMAGES[:3], b"hello"], [4]).createOrReplaceTempView("scans")
    rows = spark.sql("SELECT id, squeezenet(image) AS scores, squeezenet(image)['2'] AS last FROM scans").collect()
    np.testing.assert_allclose([row["scores"]["0"] for row in rows[:3]], expected[:3, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose([row["last"] for row in rows[:3]], expected[:3, 2], rtol=0, atol=1e-4)
    assert rows[3]["scores"] is None


def test_sql_function_of_tensors(spark: SparkSession, windows: str) -> None:
    register_udf(spark, "windows", windows)
    frame = partitioned(spark, [(window.ravel().tolist(),) for window in WINDOWS], UNEVEN, "tensor array<float>")
    theirs = insitu.load(windows).model.predict(WINDOWS[..., None], verbose=0)
    found = [row[0]["1"] for row in frame.selectExpr("windows(tensor)").collect()]
    np.testing.assert_allclose(found, theirs[:, 1], rtol=0, atol=1e-4)


def test_bf16_is_near(spark: SparkSession, small: str, expected: np.ndarray) -> None:
    if not ir.has_bf16():
        pytest.skip("this processor has no bf16")
    found = scores_of(score(image_rows(spark, IMAGES, UNEVEN), small, precision="bf16"))
    assert np.abs(found - expected).max() < 0.1
    assert (found != expected).any()


def test_changed_model_directory_is_refused(spark: SparkSession, small: str, tmp_path: Path) -> None:
    directory = shutil.copytree(small, tmp_path / "model")
    archive = directory / artifact.MODEL
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"model_dir: .*model\.keras is not what was written"):
        score(image_rows(spark, IMAGES, UNEVEN), str(directory))


def test_mistakes_are_named(spark: SparkSession, small: str) -> None:
    frame = image_rows(spark, IMAGES, UNEVEN)
    with pytest.raises(UserError, match=r"image_column: the dataset has no column picture; "):
        score(frame, small, image_column="picture")
    with pytest.raises(UserError, match=r"image_column: several columns may be images: scan, photo; "):
        score(frame.select(F.col("image").alias("scan"), F.col("image").alias("photo")), small)
    for taken in ("Scores", "fault"):
        with pytest.raises(UserError, match=rf"df: it has a column {taken.lower()} already; rename or drop"):
            score(frame.withColumn(taken, F.lit(1)), small)
    with pytest.raises(UserError, match=r"batch: 0, expected at least 1"):
        score(frame, small, batch=0)
    with pytest.raises(UserError, match=r"runtime: 'onnx', expected one of openvino, tensorflow, bigdl"):
        score(frame, small, runtime="onnx")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"precision: 'int4', expected one of int8, bf16, fp32"):
        score(frame, small, precision="int4")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"precision: int8, and .* holds no int8/; make one by jobs/quantize\.py"):
        score(frame, small, precision="int8")
    with pytest.raises(UserError, match=r"precision: bf16, and runtime tensorflow computes in fp32"):
        score(frame, small, runtime="tensorflow", precision="bf16")
    with pytest.raises(UserError, match=r"no model directory"):
        score(frame, "/nowhere")
