"""VGG-16 without its dense layers: Simonyan, Zisserman 2015, arXiv:1409.1556."""

import tensorflow as tf
from tensorflow import keras


def trunk(inputs: tf.Tensor) -> tf.Tensor:
    """float [B, H, W, C], H and W at least 32 → averaged features [B, 512]; 14.71 M parameters at C = 3."""
    return keras.applications.VGG16(weights=None, include_top=False, input_tensor=inputs, pooling="avg").output
