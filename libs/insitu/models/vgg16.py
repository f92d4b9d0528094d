"""VGG-16 without its dense layers: Simonyan, Zisserman 2015, arXiv:1409.1556."""

import tensorflow as tf
from tensorflow import keras

from insitu.models.layers import conv_relu

_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions of a block, and their filters."""


def trunk(inputs: tf.Tensor) -> tf.Tensor:
    """float [B, H, W, C], H and W at least 32 → averaged features [B, 512]; 14.71 M parameters at C = 3.

    Layers are named as in `keras.applications.VGG16`, whose Glorot kernels leave features of 0.002.
    """
    x = inputs
    for block, (depth, filters) in enumerate(_BLOCKS, start=1):
        for conv in range(1, depth + 1):
            x = conv_relu(x, filters, 3, name=f"block{block}_conv{conv}")
        x = keras.layers.MaxPooling2D(2, strides=2, name=f"block{block}_pool")(x)
    return keras.layers.GlobalAveragePooling2D(name="average")(x)
