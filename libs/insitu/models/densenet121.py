"""DenseNet-121: Huang, Liu, van der Maaten, Weinberger 2017, arXiv:1608.06993; CheXNet's trunk."""

import tensorflow as tf
from tensorflow import keras


def trunk(inputs: tf.Tensor) -> tf.Tensor:
    """float [B, H, W, C], H and W at least 32 → averaged features [B, 1024]; 7.04 M parameters at C = 3."""
    return keras.applications.DenseNet121(weights=None, include_top=False, input_tensor=inputs, pooling="avg").output
