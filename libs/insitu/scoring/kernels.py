"""The weights of a Keras model's convolutions and dense layers, and where they are in OpenVINO's form of it.

Legend: I inputs, O outputs of a layer, h, w height and width.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


def kernels(model: "keras.Model") -> "dict[str, keras.Variable]":
    """By the name of the layer: [h, w, I, O] of a convolution, [I, O] of a dense layer; no biases."""
    from tensorflow import keras

    layers = (keras.layers.Conv2D, keras.layers.Dense)
    return {layer.name: layer.kernel for layer in model.layers if isinstance(layer, layers)}


def layer_of(stored: np.ndarray, model: "keras.Model") -> str:
    """The name of the layer whose kernel OpenVINO has stored as this array.

    OpenVINO names most layers anew. It multiplies what follows a layer, such as batch normalisation, into its kernel,
    which leaves the place of each output's largest weight.

    Args:
        stored: [O, I, h, w] or [O, I], not of INT8.
        model: that it is of.
    """

    def likeness(name: str) -> float:
        kernel = candidates[name].T if candidates[name].ndim == 2 else candidates[name].transpose(3, 2, 0, 1)
        return float((_largest(kernel) == _largest(stored.reshape(kernel.shape))).mean())

    candidates = {
        name: kernel.numpy() for name, kernel in kernels(model).items() if kernel.shape.num_elements() == stored.size
    }
    return max(candidates, key=likeness)


def _largest(kernel: np.ndarray) -> np.ndarray:
    """The place of each output's largest weight among its weights, int [O]."""
    return np.abs(kernel).reshape(len(kernel), -1).argmax(axis=1)
