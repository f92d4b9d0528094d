"""Model directories with random weights, and DataFrames of real images for them to score."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from PIL import Image
from pyspark.sql import DataFrame, SparkSession
from sklearn.datasets import load_digits

from image_data import as_npy
from insitu import artifact
from insitu.data.decode import decode
from insitu.models import build
from insitu.scoring import ir

CLASSES = 3
SIZE = (32, 32)
UNEVEN = (5, 0, 1, 9)
"""Rows in partitions: many, none, one."""


def png(digit: np.ndarray) -> bytes:
    """A digit of scikit-learn's, enlarged to a size that has to be reduced again."""
    pixels = Image.fromarray((digit.reshape(8, 8) / 16 * 255).astype(np.uint8)).resize((45, 38))
    out = io.BytesIO()
    pixels.save(out, "PNG")
    return out.getvalue()


IMAGES = [png(digit) for digit in load_digits().data[: sum(UNEVEN)]]
WINDOWS = np.random.default_rng(4).normal(scale=3, size=(sum(UNEVEN), 40, 32)).astype(np.float32)
TENSOR_COLUMNS: dict[str, Callable[[np.ndarray], Any]] = {
    "array<float>": lambda window: window.ravel().tolist(),
    "array<double>": lambda window: window.ravel().astype(float).tolist(),
    "array<bigint>": lambda window: np.rint(window).astype(int).ravel().tolist(),
    "array<array<float>>": lambda window: window.tolist(),
    "binary": lambda window: bytearray(as_npy(window)),
}
"""A window as Spark holds it, by the type of its column."""


def decoded(images: Sequence[bytes], size: tuple[int, int] = SIZE, channels: int = 1) -> np.ndarray:
    return np.stack([decode(image, size=size, channels=channels) for image in images])


def random_model(
    name: str, *, activation: Any = "softmax", seed: int = 1, rows: np.ndarray | None = None
) -> tf.keras.Model:
    """Random weights and batch statistics; the head is scaled so that scores differ among the rows, else images."""
    tf.keras.utils.set_random_seed(seed)
    rows = decoded(IMAGES) if rows is None else rows
    size, input = rows.shape[1:3], "image" if rows.dtype == np.uint8 else "tensor"
    model = build(name, size=size, channels=1, outputs=CLASSES, activation=activation, input=input)  # type: ignore[arg-type]
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            scale, offset, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    random.uniform(0.8, 1.2, scale.shape),
                    random.normal(0, 0.1, offset.shape),
                    random.normal(0, 0.1, mean.shape),
                    random.uniform(0.8, 1.2, variance.shape),
                ]
            )
    head = model.get_layer("head")
    logits = tf.keras.Model(model.input, head.output).predict(rows, verbose=0)
    gain = 1 / logits.std(axis=0)
    kernel, bias = head.get_weights()
    head.set_weights([kernel * gain, (bias - logits.mean(axis=0)) * gain])
    return model


def reference_of(model: tf.keras.Model, images: Sequence[bytes]) -> pa.Table:
    """What a training job keeps of these images, if they are its validation rows."""
    pixels = decoded(images, model.input.shape[1:3])
    widths, heights = zip(*(Image.open(io.BytesIO(image)).size for image in images), strict=True)
    return pa.table(
        {
            "input_mean": pa.array(pixels[:, ::4, ::4].mean(axis=(1, 2, 3)) / 255, pa.float32()),
            "input_height": pa.array(heights, pa.int32()),
            "input_width": pa.array(widths, pa.int32()),
            "scores": pa.array(model.predict(pixels, verbose=0).tolist(), pa.list_(pa.float32())),
        }
    )


def write_model(
    model: tf.keras.Model,
    directory: Path,
    *,
    with_ir: bool = False,
    reference: pa.Table | None = None,
    texts: Mapping[str, str] | None = None,
) -> str:
    """A model directory, as a training job publishes it; perhaps with OpenVINO's form of it in fp32, and text files."""
    source = directory / "source"
    source.mkdir(parents=True)
    model.save(source / artifact.MODEL)
    if reference is not None:
        pq.write_table(reference, source / artifact.REFERENCE)
    if with_ir:
        ir.save(ir.convert(model), source / "fp32", precision="fp32")
    height, width, channels = model.input.shape[1:]
    reads_images, entry = model.input.dtype == "uint8", model.input_names[0]
    signature = artifact.Signature(
        task="multiclass",
        inputs=(artifact.Tensor(entry, model.input.dtype.name, tuple(model.input.shape), "NHWC"),),
        outputs=(artifact.Tensor("scores", "float32", tuple(model.output.shape), "NK"),),
        class_names=tuple(map(str, range(CLASSES))),
        preprocessing=artifact.ImagePreprocessing((height, width), channels)
        if reads_images
        else artifact.TensorPreprocessing((height, width)),
    )
    artifact.write_json(source / artifact.SIGNATURE, signature.to_json())
    for name, text in (texts or {}).items():
        (source / name).write_text(text)
    artifact.publish(source, f"file://{directory}/model")
    return f"{directory}/model"


def partitioned(spark: SparkSession, rows: Sequence[Any], sizes: Sequence[int], schema: str) -> DataFrame:
    """Rows in partitions of these sizes."""
    ends = np.cumsum(sizes)
    parts = [list(rows[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    frame = spark.createDataFrame(spark.sparkContext.parallelize(parts, len(parts)).flatMap(list), schema)
    assert frame.rdd.glom().map(len).collect() == list(sizes)
    return frame


def image_rows(spark: SparkSession, images: Sequence[bytes | None], sizes: Sequence[int]) -> DataFrame:
    return partitioned(spark, list(enumerate(images)), sizes, "id long, image binary")


def scores_of(frame: DataFrame) -> np.ndarray:
    return np.array([row["scores"] for row in frame.collect()], np.float32)
