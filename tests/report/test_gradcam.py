"""Grad-CAM finds the place that an answer depends on, in every topology and both precisions."""

from collections.abc import Iterator

import numpy as np
import pytest
from tensorflow import keras

from insitu import models
from insitu.models.transfer import set_trunk_trainable
from insitu.report.gradcam import heat_maps

SEED = 5
SIDE = 64
PATCH = 16


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


def patches(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise with a bright square in the odd images: uint8 [N, 64, 64, 1], 0/1 [N], top left corners [N, 2]."""
    random = np.random.default_rng(SEED)
    images = random.integers(0, 60, (count, SIDE, SIDE, 1)).astype(np.uint8)
    corners = random.integers(0, SIDE - PATCH, (count, 2))
    for image, (top, left) in zip(images[1::2], corners[1::2], strict=True):
        image[top : top + PATCH, left : left + PATCH] += 180
    return images, np.arange(count) % 2, corners


def hottest(heat: np.ndarray) -> np.ndarray:
    """The middle of the hottest cell, in pixels."""
    return (np.array(np.unravel_index(heat.argmax(), heat.shape)) + 0.5) * SIDE / np.array(heat.shape)


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "float32") for name in models.names()), *((name, "mixed_bfloat16") for name in ("densenet121", "mcnn"))],
    indirect=["precision"],
)
def test_every_topology_gives_maps_with_places(name: str, precision: str) -> None:
    options = {"width": 0.25} if name == "mcnn" else {}
    size = (128, 128) if name == "mcnn" else (SIDE, SIDE)
    model = models.build(name, size=size, channels=3, outputs=3, activation="softmax", options=options)
    images = np.random.default_rng(SEED).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    heats = heat_maps(model, images, np.array([0, 2]))
    assert heats.dtype == np.float32
    assert heats.shape[0] == 2
    assert np.isfinite(heats).all()
    assert heats.min() >= 0
    assert all(heat.max() in (0, 1) for heat in heats)
    if name != "alexnet":  # at 64x64 its last map is one cell
        assert min(heats.shape[1:]) >= (2 if name == "mcnn" else 4)


def test_map_is_the_weighed_features_where_these_are_known() -> None:
    """Features: the brightness b of 8x8 blocks, and 1 - b; logit: twice the first's mean and once the second's."""
    image = keras.Input((SIDE, SIDE, 1), dtype="uint8")
    blocks = keras.layers.Conv2D(2, 8, strides=8, name="blocks")(keras.layers.Rescaling(1 / 255)(image))
    logits = keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(blocks))
    model = keras.Model(image, logits)
    model.get_layer("blocks").set_weights([np.full((8, 8, 1, 2), [1 / 64, -1 / 64]), np.array([0.0, 1.0])])
    model.get_layer("head").set_weights([np.array([[2.0, -2.0], [1.0, -1.0]]), np.zeros(2)])
    images, _, _ = patches(2)
    brightness = images[1].reshape(8, 8, 8, 8).mean(axis=(1, 3)) / 255
    for_it, against_it = heat_maps(model, images[[1, 1]], np.array([0, 1]))
    np.testing.assert_allclose(for_it, (1 + brightness) / (1 + brightness).max(), rtol=1e-5)
    np.testing.assert_array_equal(against_it, 0)


def test_trained_network_looks_at_the_patch_also_with_a_frozen_trunk() -> None:
    keras.utils.set_random_seed(SEED)
    model = models.build("squeezenet", size=(SIDE, SIDE), channels=1, outputs=2, activation="softmax")
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    images, labels, corners = patches(256)
    model.fit(images, labels, batch_size=32, epochs=5, verbose=0)
    shown = slice(1, 41, 2)
    heats = heat_maps(model, images[shown], labels[shown])
    middles = corners[shown] + PATCH / 2
    distances = [np.abs(hottest(heat) - middle).max() for heat, middle in zip(heats, middles, strict=True)]
    assert np.mean(np.array(distances) <= PATCH) >= 0.8
    set_trunk_trainable(model, False)
    np.testing.assert_allclose(heat_maps(model, images[shown], labels[shown]), heats, atol=1e-5)
