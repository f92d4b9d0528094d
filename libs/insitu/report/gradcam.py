"""Where in an image a score comes from: Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391.

Legend: B batch, H and W of the image, h and w of the feature map, C channels, K classes.
"""

from typing import TYPE_CHECKING

import numpy as np

from insitu.models.registry import HEAD

if TYPE_CHECKING:
    import keras

_MIN_CELLS = 4
_BATCH = 8


def heat_maps(model: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How much each place of an image speaks for a class.

    The feature map is the last one, which the paper recommends; where small images shrink it below
    4 x 4 cells, the last one of at least that size, since a single cell has no places.

    Args:
        model: of `insitu.models`, in any precision.
        images: uint8 [B, H, W, C], as the model gets them.
        classes: int [B], the class to explain of each image.

    Returns:
        float32 [B, h, w] in 0..1, each map divided by its largest value; all 0 where no place
        speaks for the class.
    """
    import tensorflow as tf

    layer = _feature_layer(model)
    trunk = tf.keras.Model(model.input, layer.output)
    rest = tf.keras.Model(layer.output, model.get_layer(HEAD).output)
    batches = [slice(first, first + _BATCH) for first in range(0, len(images), _BATCH)]
    maps = np.concatenate([_batch_maps(trunk, rest, images[rows], classes[rows]) for rows in batches])
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)


def _batch_maps(trunk: "keras.Model", rest: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """float32 [B, h, w]: the features, each channel weighed by its mean gradient, summed and rectified."""
    import tensorflow as tf

    features = trunk(images, training=False)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = tf.gather(rest(features, training=False), classes, axis=1, batch_dims=1)
    gradients = tf.cast(tape.gradient(logits, features), tf.float32)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1)).numpy()


def _feature_layer(model: "keras.Model") -> "keras.layers.Layer":
    """The last layer with a map of at least 4 x 4 cells, else the last with a map, among those that all paths pass.

    A gradient at any other layer would miss the paths beside it: a residual, a branch, a scale.
    """
    place = {layer.name: index for index, layer in enumerate(model.layers)}
    reach = 0
    passed = []
    for index, layer in enumerate(model.layers):
        if reach <= index and len(layer.output.shape) == 4:
            passed.append(layer)
        readers = [
            place[node.outbound_layer.name] for node in layer.outbound_nodes if node.outbound_layer.name in place
        ]
        reach = max([reach, *readers])
    large = [layer for layer in passed if min(layer.output.shape[1:3]) >= _MIN_CELLS]
    return (large or passed)[-1]
