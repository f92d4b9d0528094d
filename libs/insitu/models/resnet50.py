"""ResNet-50: He, Zhang, Ren, Sun 2016, arXiv:1512.03385."""

import tensorflow as tf
from tensorflow import keras


def trunk(inputs: tf.Tensor) -> tf.Tensor:
    """float [B, H, W, C], H and W at least 32 → averaged features [B, 2048]; 23.59 M parameters at C = 3."""
    return keras.applications.ResNet50(weights=None, include_top=False, input_tensor=inputs, pooling="avg").output
