"""GoogLeNet: Szegedy et al. 2015, arXiv:1409.4842, without the auxiliary heads.

The two response normalisations are left out: they gain nothing (Simonyan, Zisserman 2015, section 4.1),
and every layer is then one that Keras, BigDL and OpenVINO have.
"""

from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from insitu.models.layers import conv_relu


class _Filters(NamedTuple):
    """A line of the paper's Table 1."""

    conv1: int
    reduce3: int
    conv3: int
    reduce5: int
    conv5: int
    pool: int


_STAGES = {
    3: {"a": _Filters(64, 96, 128, 16, 32, 32), "b": _Filters(128, 128, 192, 32, 96, 64)},
    4: {
        "a": _Filters(192, 96, 208, 16, 48, 64),
        "b": _Filters(160, 112, 224, 24, 64, 64),
        "c": _Filters(128, 128, 256, 24, 64, 64),
        "d": _Filters(112, 144, 288, 32, 64, 64),
        "e": _Filters(256, 160, 320, 32, 128, 128),
    },
    5: {"a": _Filters(256, 160, 320, 32, 128, 128), "b": _Filters(384, 192, 384, 48, 128, 128)},
}


def trunk(inputs: tf.Tensor) -> tf.Tensor:
    """float [B, H, W, C], H and W at least 32 → averaged features [B, 1024]; 5.97 M parameters at C = 3."""
    x = conv_relu(inputs, 64, 7, strides=2, name="conv1")
    x = _halve(x, name="pool1")
    x = conv_relu(x, 64, 1, name="conv2_reduce")
    x = conv_relu(x, 192, 3, name="conv2")
    for stage, modules in _STAGES.items():
        x = _halve(x, name=f"pool{stage - 1}")
        for letter, filters in modules.items():
            x = _inception(x, filters, name=f"inception{stage}{letter}")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.layers.Dropout(0.4, name="dropout")(x)


def _halve(inputs: tf.Tensor, *, name: str) -> tf.Tensor:
    return keras.layers.MaxPooling2D(3, strides=2, padding="same", name=name)(inputs)


def _inception(inputs: tf.Tensor, filters: _Filters, *, name: str) -> tf.Tensor:
    reduced3 = conv_relu(inputs, filters.reduce3, 1, name=f"{name}_reduce3")
    reduced5 = conv_relu(inputs, filters.reduce5, 1, name=f"{name}_reduce5")
    pooled = keras.layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(inputs)
    branches = [
        conv_relu(inputs, filters.conv1, 1, name=f"{name}_conv1"),
        conv_relu(reduced3, filters.conv3, 3, name=f"{name}_conv3"),
        conv_relu(reduced5, filters.conv5, 5, name=f"{name}_conv5"),
        conv_relu(pooled, filters.pool, 1, name=f"{name}_pool_conv"),
    ]
    return keras.layers.Concatenate(name=name)(branches)
