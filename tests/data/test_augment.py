"""Images are changed at random within bounds, and the same way for the same seed."""

import numpy as np
import pytest
import tensorflow as tf

from image_data import picture
from insitu.data.augment import Augmentation

SEED = (3, 14)
EVERYTHING = Augmentation(flip=True, rotate_degrees=20, crop=0.3, brightness=0.2, contrast=0.3, color=0.1)
OPTIONS = [
    Augmentation(flip=True),
    Augmentation(rotate_degrees=20),
    Augmentation(crop=0.3),
    Augmentation(brightness=0.2),
    Augmentation(contrast=0.3),
    Augmentation(color=0.1),
]


def changed(augment: Augmentation, images: np.ndarray, seed: tuple[int, int] = SEED) -> np.ndarray:
    return augment(tf.constant(images), tf.constant(seed, tf.int64)).numpy()


def batch(channels: int) -> np.ndarray:
    return picture(1, shape=(32, 16, 21, channels))


@pytest.mark.parametrize("channels", [1, 3])
class TestEveryOption:
    @pytest.mark.parametrize("augment", [*OPTIONS, EVERYTHING], ids=repr)
    def test_changes_images_by_the_seed_and_keeps_shape_and_dtype(self, augment: Augmentation, channels: int) -> None:
        images = batch(channels)
        once = changed(augment, images)
        assert once.dtype == np.uint8 and once.shape == images.shape
        assert (once != images).any()
        np.testing.assert_array_equal(changed(augment, images), once)
        assert (changed(augment, images, (3, 15)) != once).any()

    def test_left_out_changes_nothing(self, channels: int) -> None:
        np.testing.assert_array_equal(changed(Augmentation(), batch(channels)), batch(channels))

    def test_of_place_leaves_a_constant_image_alone(self, channels: int) -> None:
        for value in (0, 1, 127, 254, 255):
            images = np.full((16, 12, 12, channels), value, np.uint8)
            moved = changed(Augmentation(flip=True, rotate_degrees=45, crop=0.5), images)
            np.testing.assert_array_equal(moved, images)


def test_a_flip_mirrors_exactly_about_half_of_the_images() -> None:
    images = picture(2, shape=(400, 4, 7, 3))
    flipped = changed(Augmentation(flip=True), images)
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (flipped == images).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250


def disc(size: int, radius: float, center: float) -> np.ndarray:
    y, x = np.indices((size, size))
    return ((np.hypot(y - (size - 1) / 2, x - center) < radius) * 200).astype(np.uint8)


def test_a_rotation_by_any_angle_keeps_a_centred_disc() -> None:
    centred = np.broadcast_to(disc(33, 10, 16)[:, :, None], (64, 33, 33, 1))
    turned = changed(Augmentation(rotate_degrees=180), centred)
    off = np.abs(turned.astype(int) - centred) > 100
    assert off.mean(axis=(1, 2, 3)).max() < 0.03  # a shift by one pixel: 0.037


def test_a_rotation_turns_up_to_its_angle_either_way() -> None:
    beside = np.broadcast_to(disc(65, 4, 56)[:, :, None], (200, 65, 65, 1))
    turned = changed(Augmentation(rotate_degrees=30), beside)[:, :, :, 0].astype(float)
    y, x = np.indices((65, 65)) - 32
    mass = turned.sum(axis=(1, 2))
    angles = np.degrees(np.arctan2((turned * y).sum(axis=(1, 2)) / mass, (turned * x).sum(axis=(1, 2)) / mass))
    assert -31 < angles.min() < -25 and 25 < angles.max() < 31


def test_a_crop_zooms_in_and_shows_only_what_the_image_holds() -> None:
    ramp = np.broadcast_to(np.arange(0, 64, dtype=np.uint8)[None, None, :, None] * 4, (64, 8, 64, 1))
    cropped = changed(Augmentation(crop=0.5), ramp)[:, 4, :, 0].astype(int)
    spans = cropped[:, -1] - cropped[:, 0]
    assert spans.min() >= 0.5 * 252 - 8 and spans.min() < 0.6 * 252
    assert spans.max() <= 252 and spans.max() > 0.9 * 252
    assert cropped[:, 0].min() < 20 and cropped[:, -1].max() > 232


@pytest.mark.parametrize("extreme", [0, 255])
def test_shades_stop_at_the_ends_of_the_range(extreme: int) -> None:
    images = np.full((32, 4, 4, 3), extreme, np.uint8)
    shaded = changed(Augmentation(brightness=0.5, contrast=0.5, color=0.5), images)
    assert (shaded == extreme).all(axis=(1, 2, 3)).any()
    assert np.abs(shaded.astype(int) - extreme).max() <= 255 * 0.75


def test_brightness_adds_contrast_spreads_and_color_scales() -> None:
    images = np.tile(np.array([80, 120], np.uint8)[None, None, :, None], (200, 1, 1, 3))
    dark, light = np.moveaxis(changed(Augmentation(brightness=0.2), images)[:, 0].astype(int), 1, 0)
    assert (light - dark == 40).all() and 40 < np.abs(dark - 80).max() <= 51
    dark, light = np.moveaxis(changed(Augmentation(contrast=0.5), images)[:, 0].astype(int), 1, 0)
    assert (np.abs(dark + light - 200) <= 1).all() and (light - dark).min() < 24 and (light - dark).max() > 56
    scaled = changed(Augmentation(color=0.5), images)[:, 0] / [[80.0], [120.0]]
    np.testing.assert_allclose(scaled[:, 0], scaled[:, 1], atol=0.02)
    assert np.ptp(scaled[:, 0], axis=1).max() > 0.5
