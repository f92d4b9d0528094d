"""DenseNet-121 and ResNet-50 with batch, group or no normalisation."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from insitu.models.registry import Normalization
from insitu.recipe import parse
from insitu.training.worker import build_model
from training.digits_rows import recipe_tree

SEED = 1803
KINDS: list[tuple[str, Normalization]] = [("densenet121", "group"), ("densenet121", "none"), ("resnet50", "group")]


@cache
def built(name: str, kind: Normalization) -> keras.Model:
    tree = recipe_tree() | {"task": {"kind": "multilabel"}, "model": {"name": name, "normalization": kind}}
    return build_model(parse(tree), 3)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, (count, 32, 32, 1), dtype=np.uint8)


def trunk(model: keras.Model) -> keras.Model:
    """The features before the head; scores of new weights are all near 1/2."""
    return keras.Model(model.input, model.get_layer("head").input)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def model(request: pytest.FixtureRequest) -> keras.Model:
    return built(*request.param)


def test_no_moving_statistics(model: keras.Model) -> None:
    assert model.non_trainable_weights == []


def test_an_images_result_depends_on_no_other_image(model: keras.Model) -> None:
    features, batch = trunk(model), images(3)
    alone = np.concatenate([features(batch[k : k + 1], training=True) for k in range(3)])
    np.testing.assert_allclose(features(batch, training=True), alone, rtol=1e-3, atol=1e-5)


def test_signal_neither_vanishes_nor_explodes(model: keras.Model) -> None:
    """Of new weights; Glorot kernels without normalisation leave features of 1e-3 and less."""
    features = trunk(model)(images(4)).numpy()
    assert 0.1 < np.sqrt(np.mean(features**2)) < 10


@pytest.mark.parametrize(("name", "kind"), [("densenet121", "none"), ("resnet50", "group")])
def test_it_survives_saving(name: str, kind: Normalization, tmp_path: Path) -> None:
    model = built(name, kind)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded(images(2)), model(images(2)))


def test_group_normalization_is_the_papers_formula() -> None:
    """Mean and variance over the pixels and 16 channels of each image (Wu, He 2018, equations 1 to 3)."""
    layer = built("densenet121", "group").get_layer("conv2_block2_0_bn")
    x = np.random.default_rng(SEED).normal(2, 3, (2, 4, 4, 96)).astype(np.float32)
    groups = x.reshape(2, 4, 4, 6, 16)
    mean, variance = groups.mean((1, 2, 4), keepdims=True), groups.var((1, 2, 4), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(layer(x), expected, atol=1e-4)


def test_without_normalization_every_convolution_has_a_bias() -> None:
    layers = built("densenet121", "none").layers
    assert all(layer.use_bias for layer in layers if isinstance(layer, keras.layers.Conv2D))
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)


def test_averaged_gradients_of_two_halves_are_those_of_the_whole_batch() -> None:
    """What two workers do; with batch normalisation it does not hold."""
    model, batch = built("densenet121", "group"), images(4)
    labels = np.eye(4, 3, dtype=np.float32)
    whole = gradients(model, batch, labels)
    halves = [gradients(model, batch[half], labels[half]) for half in (slice(0, 2), slice(2, 4))]
    for both, first, second in zip(whole, *halves, strict=True):
        np.testing.assert_allclose((first + second) / 2, both, atol=1e-5 + 1e-4 * np.abs(both).max())


def gradients(model: keras.Model, batch: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.binary_crossentropy(labels, model(batch, training=True)))
    return [gradient.numpy() for gradient in tape.gradient(loss, model.trainable_weights)]
