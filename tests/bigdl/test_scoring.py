"""BigDL scores a DataFrame's rows on the executors as Keras does."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType

import insitu
from conftest import Submitted
from image_data import as_npy
from insitu.errors import UserError
from insitu.scoring.bigdl import score
from scored_models import (
    CLASSES,
    IMAGES,
    SIZE,
    TENSOR_COLUMNS,
    UNEVEN,
    WINDOWS,
    decoded,
    image_rows,
    partitioned,
    random_model,
    scores_of,
    write_model,
)

ENGINES = ("mklblas", "mkldnn")


def held_models(spark: SparkSession) -> list[Any]:
    """The networks that the executor, here the driver, keeps."""
    jvm: Any = spark.sparkContext._jvm
    held = jvm.com.intel.analytics.bigdl.insitu.LoadedModels.held()
    return [held.apply(i) for i in range(held.size())]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two more models."""
    scratch = tmp_path_factory.mktemp("others")
    return [write_model(random_model("squeezenet", seed=seed), scratch / str(seed)) for seed in (2, 3)]


@pytest.mark.parametrize(
    ("name", "activation", "engine_type"),
    [
        pytest.param("densenet121", "sigmoid", "mkldnn", marks=pytest.mark.slow),
        ("inception_v1", "softmax", "mklblas"),
    ],
)
def test_scores_are_kerass(spark: SparkSession, tmp_path: Path, name: str, activation: str, engine_type: Any) -> None:
    """DenseNet normalises batches, Inception pools to "same" sizes.

    Partitions of many batches, of part of one, and of none; each row once and in its place.
    """
    model = random_model(name, activation=activation)
    frame = image_rows(spark, IMAGES, UNEVEN)
    rows = score(frame, write_model(model, tmp_path), engine_type=engine_type, batch=4).collect()
    assert [row["id"] for row in rows] == list(range(len(IMAGES)))
    expected = model.predict(decoded(IMAGES), verbose=0)
    assert expected.std(axis=0).min() > 0.1, "the scores of all images are alike"
    np.testing.assert_allclose([row["scores"] for row in rows], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine_type", ENGINES)
def test_many_tasks_score_at_a_time(spark: SparkSession, small: str, engine_type: Any) -> None:
    frame = image_rows(spark, IMAGES * 8, [20] * 6)
    expected = insitu.load(small).model.predict(decoded(IMAGES), verbose=0)
    for _ in range(2):
        found = scores_of(score(frame, small, engine_type=engine_type, batch=8))
        np.testing.assert_allclose(found, np.tile(expected, (8, 1)), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_executors_of_a_cluster_score(
    submit: Callable[..., Submitted], standalone: str, small: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    for part in range(4):
        rows = {"id": [f"{row:02d}" for row in range(part, len(IMAGES), 4)], "image": IMAGES[part::4]}
        pq.write_table(pa.table(rows), tmp_path / f"data/{part}.parquet")
    places = ("--model", small, "--data", tmp_path / "data", "--output", tmp_path / "scored")
    done = submit("jobs/score_batch.py", *places, "--runtime", "bigdl", master=standalone)
    assert done.summary["rows"] == len(IMAGES)
    scored = pq.read_table(tmp_path / "scored/scores").sort_by("id")["scores"].to_pylist()
    expected = insitu.load(small).model.predict(decoded(IMAGES), verbose=0)
    np.testing.assert_allclose([[score for _, score in row] for row in scored], expected, rtol=0, atol=1e-4)


def test_columns_are_kept(spark: SparkSession, small: str) -> None:
    rows = [
        ("a", image, None, Decimal("1.25"), datetime(2024, 2, 29, 12, 30, 1, 5), [1.5, None], {"k": 1}, (7, b"not one"))
        for image in IMAGES
    ]
    schema = (
        "id string, image binary, empty int, price decimal(10,2), seen timestamp, list array<float>, "
        "map map<string,int>, nested struct<number:long,bytes:binary>"
    )
    frame = partitioned(spark, rows, UNEVEN, schema)
    scored = score(frame, small)
    assert scored.columns == [*frame.columns, "scores", "fault"]
    assert scored.schema.fields[:-2] == frame.schema.fields
    assert scored.schema["scores"].dataType == ArrayType(FloatType(), containsNull=False)
    assert scored.drop("scores", "fault").collect() == frame.collect()
    assert scores_of(scored).shape == (len(IMAGES), CLASSES)


@pytest.mark.parametrize(
    ("image", "schema", "reason"),
    [
        (
            ("file:/nothing", -1, -1, -1, -1, bytearray()),
            "origin:string,height:int,width:int,nChannels:int,mode:int,data:binary",
            "0 bytes of pixels, expected -1 x -1 x -1",
        ),
        (
            ("file:/nothing", 1, 1, 1, 0, None),
            "origin:string,height:int,width:int,nChannels:int,mode:int,data:binary",
            "data is null",
        ),
        ((None, "a.png"), "bytes:binary,path:string", "no bytes"),
    ],
    ids=["unread", "no pixels", "no bytes"],
)
def test_struct_without_an_image_is_told(
    spark: SparkSession, small: str, image: tuple[Any, ...], schema: str, reason: str
) -> None:
    (row,) = score(partitioned(spark, [(image,)], [1], f"image struct<{schema}>"), small).collect()
    assert (row["scores"], row["fault"]) == (None, reason)


def test_network_is_built_once_and_two_models_are_kept(spark: SparkSession, small: str, others: list[str]) -> None:
    frame = image_rows(spark, IMAGES, UNEVEN)
    scores_of(score(frame, small))
    (*_, first) = held_models(spark)
    scores_of(score(frame, small))
    (*_, again) = held_models(spark)
    assert again.equals(first)
    scores_of(score(frame, small, batch=3))
    assert not held_models(spark)[-1].equals(first), "another batch takes another network"
    for directory in others:
        scores_of(score(frame, directory))
        assert len(held_models(spark)) <= 2
    assert not any(model.equals(first) for model in held_models(spark))
    expected = insitu.load(small).model.predict(decoded(IMAGES), verbose=0)
    np.testing.assert_allclose(scores_of(score(frame, small)), expected, rtol=0, atol=1e-4)


def test_three_models_in_one_job(spark: SparkSession, small: str, others: list[str]) -> None:
    """More than are kept: none is freed while it is in use."""
    scored = image_rows(spark, IMAGES, UNEVEN)
    for number, directory in enumerate([small, *others]):
        scored = score(scored, directory).withColumnRenamed("scores", f"scores{number}").drop("fault")
    rows = scored.collect()
    for number, directory in enumerate([small, *others]):
        expected = insitu.load(directory).model.predict(decoded(IMAGES), verbose=0)
        np.testing.assert_allclose([row[f"scores{number}"] for row in rows], expected, rtol=0, atol=1e-4)
    assert len(held_models(spark)) == 2


@pytest.mark.parametrize(("engine_type", "other"), [ENGINES, ENGINES[::-1]])
def test_engine_of_training_in_the_same_jvm_is_left_alone(
    spark: SparkSession, small: str, engine_type: Any, other: str
) -> None:
    jvm: Any = spark.sparkContext._jvm
    bigdl = jvm.com.intel.analytics.bigdl
    bigdl.insitu.Compute.begin(other, 2)
    engine = getattr(bigdl.dllib.utils, "Engine$")
    before = getattr(engine, "MODULE$").getEngineType().toString()
    found = scores_of(score(image_rows(spark, IMAGES, UNEVEN), small, engine_type=engine_type, batch=7))
    expected = insitu.load(small).model.predict(decoded(IMAGES), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert getattr(engine, "MODULE$").getEngineType().toString() == before


def test_columns_of_any_type_stand_beside_the_image(spark: SparkSession, small: str) -> None:
    frame = image_rows(spark, IMAGES, UNEVEN).withColumn("since", F.expr("interval 1 month"))
    assert len(score(frame, small).select("id", "scores").collect()) == len(IMAGES)


def tensor_rows(spark: SparkSession, tensors: Sequence[Any], kind: str) -> DataFrame:
    return partitioned(spark, list(enumerate(tensors)), UNEVEN, f"id long, tensor {kind}")


def test_scores_of_tensors_by_mklblas_are_kerass(spark: SparkSession, windows: str) -> None:
    tensors = [TENSOR_COLUMNS["array<float>"](window) for window in WINDOWS]
    trained = insitu.load(windows)
    expected = trained.model.predict(np.stack([trained.preprocess(tensor) for tensor in tensors]), verbose=0)
    rows = score(tensor_rows(spark, tensors, "array<float>"), windows, engine_type="mklblas", batch=4).collect()
    assert expected.std(axis=0).min() > 0.1, "the scores of all windows are alike"
    np.testing.assert_allclose([row["scores"] for row in rows], expected, rtol=0, atol=1e-4)
    assert [row["id"] for row in rows] == list(range(len(WINDOWS)))


NO_TENSORS: dict[str, dict[str, Any]] = {
    "array<float>": {
        "tensor is null": None,
        "list of 2, expected 1280": [1.0, 2.0],
        "a value in it is null": [1.0, None] * 640,
    },
    "array<double>": {"number 0 is Infinity": [1e39] * 1280},
    "array<array<float>>": {
        "list of 31, expected 32": [*[[1.0] * 32] * 39, [1.0] * 31],
        "a value in it is null": [*[[1.0] * 32] * 39, None],
    },
    "binary": {
        "not a NumPy array": b"text",
        "array of shape (32, 40), expected 40 x 32 x 1": as_npy(np.zeros((32, 40))),
    },
}


@pytest.mark.parametrize("kind", NO_TENSORS)
def test_rows_that_are_no_tensors_are_told(spark: SparkSession, windows: str, kind: str) -> None:
    bad = NO_TENSORS[kind]
    good = [TENSOR_COLUMNS[kind](window) for window in WINDOWS[len(bad) :]]
    rows = score(tensor_rows(spark, [*bad.values(), *good], kind), windows, batch=2).collect()
    assert all(row["fault"].startswith(reason) for row, reason in zip(rows, bad, strict=False))
    assert [row["scores"] is None for row in rows] == [True] * len(bad) + [False] * len(good)
    assert [row["fault"] for row in rows[len(bad) :]] == [None] * len(good)


def test_mistakes_with_tensors_are_named(spark: SparkSession, small: str, windows: str) -> None:
    frame = tensor_rows(spark, [[0.0]] * len(WINDOWS), "array<float>")
    with pytest.raises(UserError, match=r"image_column: tensor, and the model reads tensors; leave it out"):
        score(frame, windows, image_column="tensor")
    with pytest.raises(UserError, match=r"tensor_column: tensor, and the model reads images; leave it out"):
        score(frame, small, tensor_column="tensor")
    with pytest.raises(UserError, match=r"tensor_column: the dataset has no column tensors; did you mean tensor\?"):
        score(frame, windows, tensor_column="tensors")
    with pytest.raises(UserError, match=r"tensor_column: no tensor in columns id; tensors are lists"):
        score(frame.select("id"), windows)
    with pytest.raises(UserError, match=r"tensor_column: tensor is .*: lists 3 deep, expected 1 or 2; flatten"):
        score(frame.selectExpr("array(array(tensor)) AS tensor"), windows)


def test_model_that_bigdl_cannot_compute_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    layers = tf.keras.layers
    image = tf.keras.Input((*SIZE, 1), dtype="uint8", name="image")
    maps = layers.DepthwiseConv2D(3, name="depthwise")(layers.Rescaling(1 / 255)(image))
    logits = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(maps))
    directory = write_model(tf.keras.Model(image, layers.Activation("softmax")(logits)), tmp_path)
    with pytest.raises(
        UserError, match=r"model_dir: bigdl has no DepthwiseConv2D \(layer depthwise\); score it with Keras"
    ):
        score(image_rows(spark, IMAGES, UNEVEN), directory)


def test_mistaken_engine_type_is_named(spark: SparkSession, small: str) -> None:
    with pytest.raises(UserError, match=r"engine_type: 'openvino', expected mklblas or mkldnn"):
        score(image_rows(spark, IMAGES, UNEVEN), small, engine_type="openvino")  # type: ignore[arg-type]
