"""Each kind of layer, converted, computes what Keras computes on both of dllib's engines."""

from collections.abc import Callable

import pytest
import tensorflow as tf
from pyspark.sql import SparkSession
from tensorflow import keras

from converted_models import (
    ENGINES,
    gradient_error,
    gradient_errors,
    image_model,
    logits_error,
    logits_errors,
    normalizing_model,
)
from insitu.bigdl.convert import convert
from insitu.errors import UserError

layers = keras.layers


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kind", ["convolution", "max_pooling", "average_pooling"])
def test_edges(spark: SparkSession, kind: str, stride: int, padding: str) -> None:
    makes: dict[str, Callable[[int | tuple[int, int]], keras.layers.Layer]] = {
        "convolution": lambda kernel: layers.Conv2D(5, kernel, stride, padding),
        "max_pooling": lambda kernel: layers.MaxPooling2D(kernel, stride, padding),
        "average_pooling": lambda kernel: layers.AveragePooling2D(kernel, stride, padding),
    }
    for size in ((8, 8), (9, 7)):
        for kernel in (1, 2, 3, 4, 5, 7, (3, 6)):
            model = image_model(size, makes[kind](kernel))
            if kind == "average_pooling" and refuses(model, "AveragePooling2D"):
                assert padding == "same"
                continue
            for errors in (logits_errors(spark, model, ENGINES), gradient_errors(spark, model, ENGINES, batch=2)):
                assert max(errors.values()) < 1e-5, f"{size}, {kernel}: {errors}"


def test_average_pooling_that_needs_no_padding_may_be_same(spark: SparkSession, engine: str) -> None:
    model = image_model((8, 6), layers.AveragePooling2D(2, 2, "same"))
    assert logits_error(spark, model, engine) < 1e-5


def test_pooling_wider_than_the_map(spark: SparkSession, engine: str) -> None:
    model = image_model((5, 3), layers.MaxPooling2D(8, padding="same"))
    assert logits_error(spark, model, engine) < 1e-5


def test_zeros_around_a_convolution_and_a_pooling(spark: SparkSession, engine: str) -> None:
    def padded(x: tf.Tensor) -> tf.Tensor:
        x = layers.Conv2D(6, 5, 2, use_bias=False)(layers.ZeroPadding2D((2, 1))(x))
        return layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(x)))

    model = image_model((15, 12), padded)
    assert logits_error(spark, model, engine) < 1e-5
    assert gradient_error(spark, model, engine, batch=2) < 1e-5


@pytest.mark.parametrize("channels", [(3, 5, 7), (16, 16, 32), (16, 4, 16)])
def test_concatenation_of_any_channels(spark: SparkSession, channels: tuple[int, ...], engine: str) -> None:
    def join(x: tf.Tensor) -> tf.Tensor:
        return layers.Conv2D(8, 3)(layers.Concatenate()([layers.Conv2D(n, 3, activation="relu")(x) for n in channels]))

    model = image_model((9, 9), join)
    assert logits_error(spark, model, engine) < 1e-5
    assert gradient_error(spark, model, engine, batch=2) < 1e-4


def test_convolutions_with_several_consumers(spark: SparkSession, engine: str) -> None:
    # DnnGraph's own backward pass adds their gradients up twice, and shares an addition's between its inputs.
    def tangled(x: tf.Tensor) -> tf.Tensor:
        first = layers.Conv2D(16, 3, padding="same")(x)
        second = layers.Conv2D(16, 3, padding="same")(first)
        total = layers.Add()([first, second])
        third = layers.Conv2D(16, 3, padding="same")(total)
        return layers.Add()([layers.Concatenate()([first, third]), layers.Conv2D(32, 1)(second)])

    model = image_model((8, 8), tangled)
    assert logits_error(spark, model, engine) < 1e-5
    assert gradient_error(spark, model, engine, batch=2) < 1e-5


def test_additions_of_three_with_shared_inputs(spark: SparkSession, engine: str) -> None:
    def sums(x: tf.Tensor) -> tf.Tensor:
        a, b, c = (layers.Conv2D(8, 3, padding="same")(x) for _ in range(3))
        first = layers.Add()([a, b, c])
        second = layers.Add()([c, first, a])
        return layers.Add()([second, b, layers.Conv2D(8, 1)(first)])

    assert gradient_error(spark, image_model((6, 6), sums), engine, batch=2) < 1e-5


def test_normalization_anywhere(spark: SparkSession, engine: str) -> None:
    model = normalizing_model()
    assert logits_error(spark, model, engine) < 1e-5
    assert gradient_error(spark, model, engine, batch=4) < 1e-4


def test_a_dense_layer_after_flattening(spark: SparkSession, engine: str) -> None:
    def dense(x: tf.Tensor) -> tf.Tensor:
        x = layers.Flatten()(layers.Conv2D(5, 3, activation="relu")(x))
        return layers.ReLU()(layers.Dense(7)(layers.Dropout(0.0)(x)))

    model = image_model((6, 7), dense)
    assert logits_error(spark, model, engine) < 1e-5
    assert gradient_error(spark, model, engine, batch=2) < 1e-5


def refuses(model: keras.Model, kind: str) -> bool:
    try:
        convert(model)
    except UserError as error:
        assert kind in str(error)
        return True
    return False
