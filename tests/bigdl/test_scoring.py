"""BigDL scores a DataFrame's rows on the executors as Keras does."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType

import insitu
from image_data import as_npy
from insitu.errors import UserError
from insitu.scoring.bigdl import score
from scored_models import (
    CLASSES,
    IMAGES,
    SIZE,
    UNEVEN,
    decoded,
    image_rows,
    partitioned,
    random_model,
    scores_of,
    write_model,
)

ENGINES = ("mklblas", "mkldnn")
# Each with the activation that it is tested with; DenseNet normalises batches, Inception pools to "same" sizes.
TOPOLOGIES = {"densenet121": "sigmoid", "inception_v1": "softmax"}


def held_models(spark: SparkSession) -> list[Any]:
    """The networks that the executor, here the driver, keeps."""
    jvm: Any = spark.sparkContext._jvm
    held = jvm.com.intel.analytics.bigdl.insitu.LoadedModels.held()
    return [held.apply(i) for i in range(held.size())]


@pytest.fixture(scope="module")
def models() -> dict[str, tf.keras.Model]:
    return {name: random_model(name, activation=activation) for name, activation in TOPOLOGIES.items()}


@pytest.fixture(scope="module")
def directories(models: dict[str, tf.keras.Model], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {name: write_model(model, tmp_path_factory.mktemp("models") / name) for name, model in models.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(random_model("squeezenet"), tmp_path_factory.mktemp("models") / "squeezenet")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two more models."""
    scratch = tmp_path_factory.mktemp("others")
    return [write_model(random_model("squeezenet", seed=seed), scratch / str(seed)) for seed in (2, 3)]


@pytest.mark.parametrize("engine_type", ENGINES)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_scores_are_kerass(
    spark: SparkSession, models: dict[str, tf.keras.Model], directories: dict[str, str], name: str, engine_type: Any
) -> None:
    """Partitions of many batches, of part of one, and of none; each row once and in its place."""
    frame = image_rows(spark, IMAGES, UNEVEN)
    rows = score(frame, directories[name], engine_type=engine_type, batch=4).collect()
    assert [row["id"] for row in rows] == list(range(len(IMAGES)))
    expected = models[name].predict(decoded(IMAGES), verbose=0)
    assert expected.std(axis=0).min() > 0.1, "the scores of all images are alike"
    np.testing.assert_allclose([row["scores"] for row in rows], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine_type", ENGINES)
def test_many_tasks_score_at_a_time(spark: SparkSession, small: str, engine_type: Any) -> None:
    frame = image_rows(spark, IMAGES * 20, [50] * 6)
    expected = insitu.load(small).model.predict(decoded(IMAGES), verbose=0)
    for _ in range(3):
        found = scores_of(score(frame, small, engine_type=engine_type, batch=8))
        np.testing.assert_allclose(found, np.tile(expected, (20, 1)), rtol=0, atol=1e-4)


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
    ("image", "reason"),
    [
        (None, "image is null"),
        (b"", "no bytes"),
        (IMAGES[0][:60], "damaged image"),
        (b"hello", "not an image: 5 bytes"),
    ],
    ids=["null", "empty", "cut off", "text"],
)
def test_row_that_is_no_image_is_told(spark: SparkSession, small: str, image: bytes | None, reason: str) -> None:
    frame = image_rows(spark, [*IMAGES[:9], image, *IMAGES[10:]], UNEVEN)
    rows = score(frame, small, batch=2).collect()
    expected = insitu.load(small).model.predict(decoded(IMAGES), verbose=0)
    assert rows[9]["scores"] is None
    assert rows[9]["fault"].startswith(reason)
    assert [row["fault"] for row in rows if row["id"] != 9] == [None] * (len(IMAGES) - 1)
    found = [row["scores"] for row in rows if row["id"] != 9]
    np.testing.assert_allclose(found, np.delete(expected, 9, axis=0), rtol=0, atol=1e-4)


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


@pytest.mark.parametrize("other", ENGINES)
@pytest.mark.parametrize("engine_type", ENGINES)
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


WINDOWS = np.random.default_rng(4).normal(scale=3, size=(sum(UNEVEN), 40, 32)).astype(np.float32)
TENSOR_COLUMNS: dict[str, Callable[[np.ndarray], Any]] = {
    "array<float>": lambda window: window.ravel().tolist(),
    "array<double>": lambda window: window.ravel().astype(float).tolist(),
    "array<bigint>": lambda window: np.rint(window).astype(int).ravel().tolist(),
    "array<array<float>>": lambda window: window.tolist(),
    "binary": lambda window: bytearray(as_npy(window)),
}


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = random_model("squeezenet", rows=WINDOWS[..., None])
    return write_model(model, tmp_path_factory.mktemp("models") / "windows")


def tensor_rows(spark: SparkSession, tensors: Sequence[Any], kind: str) -> DataFrame:
    return partitioned(spark, list(enumerate(tensors)), UNEVEN, f"id long, tensor {kind}")


@pytest.mark.parametrize(
    ("kind", "engine_type"), [*((kind, "mkldnn") for kind in TENSOR_COLUMNS), ("array<float>", "mklblas")]
)
def test_scores_of_tensors_are_kerass(spark: SparkSession, windows: str, kind: str, engine_type: Any) -> None:
    tensors = [TENSOR_COLUMNS[kind](window) for window in WINDOWS]
    trained = insitu.load(windows)
    expected = trained.model.predict(np.stack([trained.preprocess(tensor) for tensor in tensors]), verbose=0)
    rows = score(tensor_rows(spark, tensors, kind), windows, engine_type=engine_type, batch=4).collect()
    assert expected.std(axis=0).min() > 0.1, "the scores of all windows are alike"
    np.testing.assert_allclose([row["scores"] for row in rows], expected, rtol=0, atol=1e-4)
    assert [row["id"] for row in rows] == list(range(len(WINDOWS)))


@pytest.mark.parametrize(
    ("kind", "tensor", "reason"),
    [
        ("array<float>", None, "tensor is null"),
        ("array<float>", [1.0, 2.0], "list of 2, expected 1280"),
        ("array<float>", [1.0, None] * 640, "a value in it is null"),
        ("array<double>", [1e39] * 1280, "number 0 is Infinity"),
        ("array<array<float>>", [*[[1.0] * 32] * 39, [1.0] * 31], "list of 31, expected 32"),
        ("array<array<float>>", [*[[1.0] * 32] * 39, None], "a value in it is null"),
        ("binary", b"text", "not a NumPy array"),
        ("binary", as_npy(np.zeros((32, 40))), r"array of shape \(32, 40\), expected 40 x 32 x 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_row_that_is_no_tensor_is_told(spark: SparkSession, windows: str, kind: str, tensor: Any, reason: str) -> None:
    tensors = [TENSOR_COLUMNS[kind](window) for window in WINDOWS]
    frame = tensor_rows(spark, [*tensors[:9], tensor, *tensors[10:]], kind)
    rows = score(frame, windows, batch=2).collect()
    assert {row["id"]: row["scores"] is None for row in rows} == {row: row == 9 for row in range(len(WINDOWS))}
    assert re.match(reason, rows[9]["fault"])


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
