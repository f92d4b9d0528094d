"""The JVM's networks in use: statistics, gradients, parameters, replicas and dropout are those of Keras."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors.exceptions.captured import CapturedException
from pyspark.sql import SparkSession
from tensorflow import keras

from converted_models import (
    CLASSES,
    SEED,
    activate,
    image_model,
    logits_model,
    network_of,
    normalizing_model,
    pixels,
    random_images,
)
from insitu.bigdl.convert import convert
from jvm_network import JvmNetwork

layers = keras.layers


class TestStatistics:
    def test_move_as_keras_moves_them(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        converted = convert(model)
        network = network_of(spark, model, converted, engine, batch=4)
        random = np.random.default_rng(SEED)
        for step in range(1, 6):
            images = random.integers(0, 256, (4, *model.input_shape[1:]), dtype=np.uint8)
            network.forward(pixels(images))
            model(images, training=True)
            if step in (1, 5):
                for variable, ours, theirs in zip(model.weights, network.weights(), model.get_weights(), strict=True):
                    np.testing.assert_allclose(
                        ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(), err_msg=variable.name
                    )
        network.java.evaluate()
        images = random_images(model, 4)
        scores = activate(network.forward(pixels(images)), converted.activation)
        np.testing.assert_allclose(scores, model.predict(images, verbose=0), atol=1e-5)

    def test_stay_in_evaluation(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        network = network_of(spark, model, convert(model), engine, batch=2)
        before = network.weights()
        network.java.evaluate()
        network.forward(pixels(random_images(model, 2)))
        for ours, theirs in zip(network.weights(), before, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_come_back(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        network = network_of(spark, model, convert(model), engine, batch=2)
        for ours, theirs in zip(network.weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-7)


class TestNetwork:
    def test_sums_gradients_until_they_are_zeroed(self, spark: SparkSession, engine: str) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        network = network_of(spark, model, convert(model), engine, batch=2)

        def learn() -> list[np.ndarray]:
            network.forward(pixels(random_images(model, 2)))
            network.backward(np.ones((2, CLASSES), np.float32))
            return network.gradients()

        once, twice = learn(), learn()
        for one, two in zip(once, twice, strict=True):
            np.testing.assert_allclose(two, 2 * one, rtol=1e-5, atol=1e-6)
        network.java.zeroGradients()
        assert not any(gradient.any() for gradient in network.gradients())
        for one, again in zip(once, learn(), strict=True):
            np.testing.assert_allclose(again, one, rtol=1e-5, atol=1e-6)  # MKL sums in an order by alignment

    def test_computes_with_the_parameters_as_they_are(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        network = network_of(spark, model, convert(model), engine, batch=2)
        images = pixels(random_images(model, 2))
        network.java.evaluate()
        network.forward(images)
        model.set_weights([2 * weight for weight in model.get_weights()])
        network.set_weights(model.get_weights())
        expected = logits_model(model)(random_images(model, 2)).numpy()
        np.testing.assert_allclose(network.forward(images), expected, rtol=1e-4, atol=1e-4)

    def test_goes_between_training_and_evaluation(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        network = network_of(spark, model, convert(model), engine, batch=4)
        images = random_images(model, 4)
        for _ in range(2):
            network.java.training()
            in_training = network.forward(pixels(images))
            np.testing.assert_allclose(in_training, logits_model(model)(images, training=True), atol=2e-5)
            network.java.evaluate()
            evaluated = network.forward(pixels(images))
            np.testing.assert_allclose(evaluated, logits_model(model)(images), atol=2e-5)
        assert np.abs(in_training - evaluated).max() > 0.1

    def test_a_replica_shares_the_parameters_alone(self, spark: SparkSession) -> None:
        model = normalizing_model()
        first = network_of(spark, model, convert(model), "mklblas", batch=2)
        second = first.replica()
        first.parameters = first.parameters + 1
        np.testing.assert_array_equal(second.parameters, first.parameters)
        second.forward(pixels(random_images(model, 2)))
        second.backward(np.ones((2, CLASSES), np.float32))
        assert any(gradient.any() for gradient in second.gradients())
        assert not any(gradient.any() for gradient in first.gradients())
        assert not np.array_equal(first.statistics, second.statistics)

    def test_mkldnn_has_no_replicas(self, spark: SparkSession) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        with pytest.raises(CapturedException, match="mkldnn has one network on an executor"):
            network_of(spark, model, convert(model), "mkldnn", batch=2).replica()

    @pytest.mark.parametrize(
        ("engine", "batch", "message"),
        [("mkl", 2, "engine: mkl, expected mklblas or mkldnn"), ("mklblas", 0, "batch: 0, expected at least 1")],
    )
    def test_refuses_what_it_cannot_build(self, spark: SparkSession, engine: str, batch: int, message: str) -> None:
        converted = convert(image_model((6, 6), layers.Conv2D(4, 3)))
        with pytest.raises(CapturedException, match=message):
            JvmNetwork(spark, converted, engine, batch)

    def test_mkldnn_refuses_another_number_of_rows(self, spark: SparkSession) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        network = network_of(spark, model, convert(model), "mkldnn", batch=2)
        with pytest.raises(Py4JJavaError, match="expected 2 rows, got 3"):
            network.forward(pixels(random_images(model, 3)))

    def test_refuses_another_network_s_statistics(self, spark: SparkSession, engine: str) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        network = network_of(spark, model, convert(model), engine, batch=2)
        with pytest.raises(CapturedException, match="expected 0 statistics, got 3"):
            network.set_statistics(np.zeros(3, np.float32))


class TestDropout:
    def test_keeps_and_scales(self, spark: SparkSession, engine: str) -> None:
        kept = dropping(spark, engine)(1) != 0
        assert abs(kept.mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / kept.size)

    def test_scales_what_it_keeps(self, spark: SparkSession, engine: str) -> None:
        np.testing.assert_allclose(np.unique(dropping(spark, engine)(1)), [0, 1 / 0.75], rtol=1e-6)

    def test_follows_its_seed(self, spark: SparkSession, engine: str) -> None:
        drop = dropping(spark, engine)
        first, second, again, unseeded = drop(1), drop(2), drop(1), drop(None)
        np.testing.assert_array_equal(again, first)
        assert 0.3 < np.mean(first != second) < 0.45
        assert 0.3 < np.mean(first != unseeded) < 0.45

    def test_hands_back_what_it_kept_alone(self, spark: SparkSession, engine: str) -> None:
        """On maps: a convolution before it gets gradients where its output was kept, and as much more."""
        width = 4 * 6 * 6
        model = image_model((6, 6), lambda x: layers.Dropout(0.25)(layers.Conv2D(4, 1)(x)), outputs=width)
        kernel = np.random.default_rng(SEED).normal(size=(1, 1, 3, 4)).astype(np.float32)
        model.set_weights([kernel, np.full(4, 9, np.float32), np.eye(width), np.zeros(width)])
        network = network_of(spark, model, convert(model), engine, batch=8)
        images = pixels(random_images(model, 8))
        found = network.forward(images).reshape(8, 6, 6, 4)
        network.backward(np.ones((8, width), np.float32))
        given = np.where(found == 0, 0, 1 / 0.75).astype(np.float32)
        np.testing.assert_allclose(found, given * (images @ kernel[0, 0] + 9), rtol=1e-5)
        of_kernel, of_bias = network.gradients()[:2]
        np.testing.assert_allclose(of_kernel[0, 0], np.einsum("bhwc,bhwo->co", images, given), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(of_bias, given.sum(axis=(0, 1, 2)), rtol=1e-5)

    def test_does_nothing_in_evaluation(self, spark: SparkSession, engine: str) -> None:
        np.testing.assert_array_equal(dropping(spark, engine, evaluate=True)(1), 1)


def dropping(spark: SparkSession, engine: str, *, evaluate: bool = False) -> Callable[[int | None], np.ndarray]:
    """What a dropout of a quarter makes of ones, 64 x 108 of them, given the seed or None."""
    model = image_model((6, 6), lambda x: layers.Dropout(0.25)(layers.Flatten()(x)), outputs=108)
    model.set_weights([np.eye(108), np.zeros(108)])
    network = network_of(spark, model, convert(model), engine, batch=64)
    if evaluate:
        network.java.evaluate()
    ones = np.ones((64, 6, 6, 3), np.float32)

    def drop(seed: int | None) -> np.ndarray:
        if seed is not None:
            network.java.seedDropout(seed)
        return network.forward(ones)

    return drop
