"""The convolution that the topologies without batch normalisation are made of."""

import tensorflow as tf
from tensorflow import keras


def conv_relu(
    inputs: tf.Tensor, filters: int, kernel: int, *, name: str, strides: int = 1, padding: str = "same"
) -> tf.Tensor:
    """Convolution with bias, then ReLU; He-normal kernels (He et al. 2015, arXiv:1502.01852).

    With nothing that normalises between the layers, Keras's default Glorot kernels halve the signal's
    variance at every ReLU, and a trunk of twenty layers starts with next to no gradient.
    """
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding=padding,
        activation="relu",
        kernel_initializer="he_normal",
        name=name,
    )(inputs)
