"""AlexNet in one tower, without response normalisation: Krizhevsky 2014, arXiv:1404.5997.

Layer for layer torchvision's `alexnet` at 224x224: 61 100 840 parameters with a head of 1000.
"""

import tensorflow as tf
from tensorflow import keras

from insitu.models.layers import conv_relu


def trunk(inputs: tf.Tensor) -> tf.Tensor:
    """float [B, H, W, C], H and W at least 63 → features [B, 4096] of the second dense layer.

    The first dense layer grows with the area: 37.8 M parameters at 224x224, 944 M at 1024x1024.
    """
    x = keras.layers.ZeroPadding2D(2, name="pad1")(inputs)
    x = conv_relu(x, 64, 11, strides=4, padding="valid", name="conv1")
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    x = conv_relu(x, 192, 5, name="conv2")
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool2")(x)
    x = conv_relu(x, 384, 3, name="conv3")
    x = conv_relu(x, 256, 3, name="conv4")
    x = conv_relu(x, 256, 3, name="conv5")
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool5")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for name in ("6", "7"):
        x = keras.layers.Dropout(0.5, name=f"dropout{name}")(x)
        x = keras.layers.Dense(4096, activation="relu", kernel_initializer="he_normal", name=f"dense{name}")(x)
    return x
