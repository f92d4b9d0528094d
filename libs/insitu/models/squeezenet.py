"""SqueezeNet v1.1: Iandola et al. 2016, arXiv:1602.07360, and the authors' release 1.1."""

import tensorflow as tf
from tensorflow import keras

from insitu.models.layers import conv_relu


def trunk(inputs: tf.Tensor) -> tf.Tensor:
    """float [B, H, W, C], H and W at least 31 → averaged features [B, 512]; 722 496 parameters at C = 3.

    Departs from the paper: a dense head on the averaged features stands for conv10, a 1x1 convolution to the
    classes with a ReLU, averaged afterwards. Without that ReLU the two would be equal.
    """
    x = conv_relu(inputs, 64, 3, strides=2, padding="valid", name="conv1")
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    x = _fire(x, 16, 64, name="fire2")
    x = _fire(x, 16, 64, name="fire3")
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool3")(x)
    x = _fire(x, 32, 128, name="fire4")
    x = _fire(x, 32, 128, name="fire5")
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool5")(x)
    x = _fire(x, 48, 192, name="fire6")
    x = _fire(x, 48, 192, name="fire7")
    x = _fire(x, 64, 256, name="fire8")
    x = _fire(x, 64, 256, name="fire9")
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    return keras.layers.GlobalAveragePooling2D(name="average")(x)


def _fire(inputs: tf.Tensor, squeeze: int, expand: int, *, name: str) -> tf.Tensor:
    squeezed = conv_relu(inputs, squeeze, 1, name=f"{name}_squeeze")
    expanded = [conv_relu(squeezed, expand, kernel, name=f"{name}_expand{kernel}") for kernel in (1, 3)]
    return keras.layers.Concatenate(name=name)(expanded)
