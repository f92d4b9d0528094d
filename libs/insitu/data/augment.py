"""Random changes to training images, as TensorFlow ops on whole batches.

Flip, rotation and crop are one projective transform, so that an image is resampled once.
Every draw is a pure function of the seed pair, so that a run can be repeated.

Legend: B rows of a batch, H, W height and width, C channels.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Augmentation:
    """How far images are changed; 0 leaves that property alone.

    Attributes:
        flip: mirror half of the images left to right.
        rotate_degrees: rotate by up to this many degrees either way.
        crop: cut up to this share of each side away and resize the rest.
        brightness: add up to this share of the full range either way.
        contrast: scale the distance from the image's mean by up to this share either way.
        color: scale each channel by up to this share either way.
    """

    flip: bool = False
    rotate_degrees: float = 0
    crop: float = 0
    brightness: float = 0
    contrast: float = 0
    color: float = 0

    def __call__(self, images: "tf.Tensor", seed: "tf.Tensor") -> "tf.Tensor":
        """Change a batch.

        Args:
            images: uint8 [B, H, W, C].
            seed: int64 [2]; the same pair gives the same changes.

        Returns:
            uint8 [B, H, W, C].
        """
        if self.flip or self.rotate_degrees or self.crop:
            images = self._move(images, seed)
        if self.brightness or self.contrast or self.color:
            images = self._shade(images, seed)
        return images

    def _move(self, images: "tf.Tensor", seed: "tf.Tensor") -> "tf.Tensor":
        import tensorflow as tf

        _, height, width, _ = images.shape
        angle, zoom, across, down, mirror = tf.unstack(_uniform([5, tf.shape(images)[0]], seed, "move"))
        angle = angle * math.radians(self.rotate_degrees)
        scale = 1 - self.crop * (zoom + 1) / 2
        sign = tf.where(mirror > 0, -1.0, 1.0) if self.flip else tf.ones_like(mirror)
        cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
        # Output pixel (x, y) reads input pixel M (x, y) + t; M turns about the centre, t also shifts the crop.
        center_x, center_y = (width - 1) / 2, (height - 1) / 2
        shift_x = center_x + across * (1 - scale) * width / 2 - sign * cos * center_x + sin * center_y
        shift_y = center_y + down * (1 - scale) * height / 2 - sign * sin * center_x - cos * center_y
        zeros = tf.zeros_like(angle)
        transforms = tf.stack([sign * cos, -sin, shift_x, sign * sin, cos, shift_y, zeros, zeros], axis=1)
        moved = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),  # on uint8 it rounds down
            transforms=transforms,
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
        return tf.cast(tf.round(moved), tf.uint8)

    def _shade(self, images: "tf.Tensor", seed: "tf.Tensor") -> "tf.Tensor":
        import tensorflow as tf

        count, channels = tf.shape(images)[0], images.shape[3]
        pixels = tf.cast(images, tf.float32)
        mean = tf.reduce_mean(pixels, axis=[1, 2, 3], keepdims=True)
        contrast = 1 + self.contrast * _uniform([count, 1, 1, 1], seed, "contrast")
        brightness = 255 * self.brightness * _uniform([count, 1, 1, 1], seed, "brightness")
        color = 1 + self.color * _uniform([count, 1, 1, channels], seed, "color")
        pixels = ((pixels - mean) * contrast + mean + brightness) * color
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


_STREAMS = {"move": 0, "contrast": 1, "brightness": 2, "color": 3}


def _uniform(shape: list, seed: "tf.Tensor", stream: str) -> "tf.Tensor":
    """Draws from [-1, 1), a stream of their own for each use."""
    import tensorflow as tf

    folded = tf.random.experimental.stateless_fold_in(seed, _STREAMS[stream])
    return tf.random.stateless_uniform(shape, folded, minval=-1.0, maxval=1.0)
