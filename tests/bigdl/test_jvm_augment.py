"""The JVM changes training images as Python does, by draws of its own."""

from typing import Any

import numpy as np
import pytest

from image_data import picture
from jvm_data import EVERY_CHANGE, Jvm

SHAPE = (31, 44, 3)
PIXELS = picture(4, shape=SHAPE)


def changed(jvm: Jvm, seed: int, pixels: np.ndarray = PIXELS, **changes: Any) -> np.ndarray:
    result = jvm.augment(**changes).apply(pixels.tobytes(), *pixels.shape, seed)
    return np.frombuffer(result, np.uint8).reshape(pixels.shape)


def test_nothing_changes_nothing(jvm: Jvm) -> None:
    for seed in range(20):
        np.testing.assert_array_equal(changed(jvm, seed), PIXELS)


@pytest.mark.parametrize("option", EVERY_CHANGE)
def test_every_option_changes_by_the_seed_alone(jvm: Jvm, option: str) -> None:
    change: dict[str, Any] = {option: EVERY_CHANGE[option]}
    results = [changed(jvm, seed, **change) for seed in range(8)]
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(changed(jvm, seed, **change), result)
    assert any((result != PIXELS).any() for result in results)
    assert any((result != results[0]).any() for result in results)


def test_a_flip_mirrors_exactly_about_half_of_the_images(jvm: Jvm) -> None:
    flipped = [changed(jvm, seed, flip=True) for seed in range(200)]
    mirrored = [np.array_equal(pixels, PIXELS[:, ::-1]) for pixels in flipped]
    assert all(mirror or np.array_equal(pixels, PIXELS) for mirror, pixels in zip(mirrored, flipped, strict=True))
    assert 70 < sum(mirrored) < 130


def test_a_transform_is_tensorflows(jvm: Jvm) -> None:
    import tensorflow as tf

    draws = np.random.default_rng(6).uniform(-1, 1, (12, 4))
    height, width = SHAPE[:2]
    for number, (angle, zoom, across, down) in enumerate(draws):
        arguments = float(angle), float(1 - 0.4 * (zoom + 1) / 2), float(across), float(down), number % 2 == 1
        transform = jvm.classes.Augment.transform(height, width, *arguments)
        moved = jvm.classes.Augment.move(PIXELS.tobytes(), *SHAPE, transform)
        expected = tf.raw_ops.ImageProjectiveTransformV3(
            images=PIXELS[None].astype(np.float32),
            transforms=[[*transform, 0, 0]],
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
        off = np.abs(np.frombuffer(moved, np.uint8).reshape(SHAPE) - tf.round(expected)[0].numpy())
        assert off.max() <= 1 and off.mean() < 0.01


def test_the_transforms_parts_are_those_of_python(jvm: Jvm) -> None:
    transform = jvm.classes.Augment.transform(31, 44, 0.3, 0.8, 0.5, -0.25, True)
    cos, sin = np.cos(0.3) * 0.8, np.sin(0.3) * 0.8
    shift_x = 21.5 + 0.5 * 0.2 * 44 / 2 + cos * 21.5 + sin * 15
    shift_y = 15 - 0.25 * 0.2 * 31 / 2 + sin * 21.5 - cos * 15
    np.testing.assert_allclose(list(transform), [-cos, -sin, shift_x, -sin, cos, shift_y])


def test_of_place_leaves_a_constant_image_alone(jvm: Jvm) -> None:
    for value in (0, 1, 127, 254, 255):
        pixels = np.full(SHAPE, value, np.uint8)
        moved = changed(jvm, value, pixels, flip=True, rotateDegrees=45, crop=0.5)
        np.testing.assert_array_equal(moved, pixels)


def test_shades_are_those_of_python(jvm: Jvm) -> None:
    pixels = PIXELS.astype(np.float32)
    shaded = jvm.classes.Augment.shade(PIXELS.tobytes(), 20.0, 1.4, jvm.doubles([0.9, 1, 1.1]))
    expected: np.ndarray = ((pixels - pixels.mean()) * 1.4 + pixels.mean() + 20) * np.array([0.9, 1, 1.1], np.float32)
    off = np.abs(np.frombuffer(shaded, np.uint8).reshape(SHAPE) - np.clip(np.round(expected), 0, 255))
    assert off.max() <= 1 and off.mean() < 0.01


def test_draws_reach_their_bounds_and_stay_within(jvm: Jvm) -> None:
    gray = np.full((2, 2, 1), 100, np.uint8)
    levels = [changed(jvm, seed, gray, brightness=0.2).item(0) for seed in range(200)]
    assert 49 <= min(levels) <= 53 and 147 <= max(levels) <= 151
    scaled = [changed(jvm, seed, gray, color=0.5).item(0) for seed in range(200)]
    assert 50 <= min(scaled) <= 54 and 146 <= max(scaled) <= 150


def test_comes_from_the_recipes_keys(jvm: Jvm) -> None:
    json = '{"flip": true, "rotate_degrees": 20, "crop": 0.3, "brightness": 0.2, "contrast": 0.3, "color": 0.1}'
    assert jvm.classes.Augment.parse(json).equals(jvm.augment(**EVERY_CHANGE))
