"""M-CNN for whole microscopy images: Godinez et al. 2017, doi:10.1093/bioinformatics/btx069.

Seven paths see the image at seven scales, and meet at 1/64 of its size.
"""

import tensorflow as tf
from tensorflow import keras

from insitu.models.layers import conv_relu

_PATH_FILTERS = (16, 16, 16, 32, 32, 32, 64)


def trunk(inputs: tf.Tensor, *, width: float = 1.0) -> tf.Tensor:
    """Features [B, 512 * width] of the dense layer.

    With a head of 13 it has 42 577 261 parameters at 1024x1280x3. H and W need not divide by 64: pooling
    rounds up, so that no pixel is lost, and the paths' grids still agree.

    Args:
        inputs: float [B, H, W, C], H and W at least 64.
        width: factor on every layer's channels; 0.25 is the small form.
    """
    paths = [_path(inputs, scale, max(1, round(width * filters))) for scale, filters in enumerate(_PATH_FILTERS)]
    x = keras.layers.Concatenate(name="paths")(paths)
    x = conv_relu(x, max(1, round(width * 1024)), 1, name="mix")
    x = _pool(x, 2, name="pool")
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.layers.Dense(
        max(1, round(width * 512)), activation="relu", kernel_initializer="he_normal", name="dense"
    )(x)


def _path(inputs: tf.Tensor, scale: int, filters: int) -> tf.Tensor:
    x = _pool(inputs, 2**scale, name=f"path{scale}_shrink")
    for depth in range(1, 4):
        x = conv_relu(x, filters, 5, name=f"path{scale}_conv{depth}")
    return _pool(x, 2 ** (len(_PATH_FILTERS) - 1 - scale), name=f"path{scale}_meet")


def _pool(inputs: tf.Tensor, factor: int, *, name: str) -> tf.Tensor:
    return keras.layers.MaxPooling2D(factor, padding="same", name=name)(inputs)
