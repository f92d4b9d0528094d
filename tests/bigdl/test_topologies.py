"""Every topology, converted, computes what Keras computes on both of dllib's engines."""

import math

import numpy as np
import pytest
from pyspark.sql import SparkSession
from tensorflow import keras

from converted_models import (
    CLASSES,
    ENGINES,
    activate,
    gradient_errors,
    logits_errors,
    network_of,
    pixels,
    random_images,
    topology,
)
from insitu.bigdl.convert import convert
from insitu.models import build, names

pytestmark = pytest.mark.slow

SIZES = {"alexnet": ((63, 63), (67, 75)), "mcnn": ((64, 64), (71, 93)), "squeezenet": ((32, 32), (45, 61))}
"""Each topology's small sizes, the second odd; 32x32 and 45x61 for others."""


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("odd", [0, 1], ids=["small", "odd"])
def test_scores_as_keras(spark: SparkSession, name: str, odd: int) -> None:
    model = topology(name, SIZES.get(name, ((32, 32), (45, 61)))[odd], "sigmoid" if odd else "softmax")
    converted, images = convert(model), random_images(model, 3)
    expected = model.predict(images, verbose=0)
    for engine in ENGINES:
        network = network_of(spark, model, converted, engine, batch=3)
        network.java.evaluate()
        scores = activate(network.forward(pixels(images)), converted.activation)
        for ours, theirs in zip(network.weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0)
        network.java.release()
        np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0, err_msg=engine)
    assert expected.std(axis=0).max() > 0.1, "every image scores alike"


@pytest.mark.parametrize("name", ["densenet121", "resnet50"])
def test_scores_as_keras_with_trained_statistics(spark: SparkSession, name: str) -> None:
    model = build(name, size=(32, 32), channels=3, outputs=CLASSES, activation="softmax", options={})
    images = random_images(model, 8)
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    model.fit(images, np.arange(8) % CLASSES, batch_size=4, epochs=4, verbose=0)
    for engine, error in logits_errors(spark, model, ENGINES).items():
        assert error < 1e-4, engine


@pytest.mark.parametrize("name", names())
def test_weights_come_back_bit_for_bit(name: str) -> None:
    model = topology(name, SIZES.get(name, ((45, 61),))[-1])
    converted, weights = convert(model), model.get_weights()
    parameters, statistics = converted.to_flat(weights)
    assert parameters.dtype == statistics.dtype == np.float32
    for ours, theirs in zip(converted.from_flat(parameters, statistics), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    assert (parameters.size, statistics.size) == (trainable, model.count_params() - trainable)


@pytest.mark.parametrize(
    ("name", "size", "tolerance"),
    [
        ("alexnet", (67, 75), 1e-3),
        ("inception_v1", (45, 61), 1e-3),
        ("mcnn", (71, 93), 1e-3),
        ("squeezenet", (45, 61), 1e-3),
        ("vgg16", (32, 32), 1e-3),
        # TensorFlow's own float32 gradients are 0.006 and 0.014 away: fifty normalisations and ReLUs and more.
        ("densenet121", (64, 64), 0.04),
        ("resnet50", (64, 64), 0.04),
    ],
)
def test_gradients_as_tensorflow(spark: SparkSession, name: str, size: tuple[int, int], tolerance: float) -> None:
    for engine, error in gradient_errors(spark, topology(name, size), ENGINES, batch=8).items():
        assert error < tolerance, engine
