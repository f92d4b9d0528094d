"""Starting from a trained model: its trunk, which can be held still, or all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insitu.errors import UserError
from insitu.models.registry import HEAD

if TYPE_CHECKING:
    from tensorflow import keras


def start_from(model: keras.Model, source: keras.Model, *, keep_head: bool = False) -> None:
    """Copy the weights of a trained model of the same topology.

    Args:
        model: a built model; its weights are replaced.
        source: the trained model, with any number of outputs where its head is not kept.
        keep_head: whether the head's weights are copied too; else the head of `model` stays as it is.

    Raises:
        UserError: `model.init`, naming the first weight that differs in name or shape; nothing is copied.
    """
    ours, theirs = _weights(model, with_head=keep_head), _weights(source, with_head=keep_head)
    for name in ours | theirs:
        if _shape(ours, name) != _shape(theirs, name):
            raise UserError(
                "model.init",
                f"{name} is {_shape(theirs, name)} in {source.name}, {_shape(ours, name)} in {model.name}",
                "give a model directory with the same model.name, options, normalization, and data.size and "
                "data.channels or data.tensor_shape",
            )
    for name, variable in ours.items():
        variable.assign(theirs[name])


def set_trunk_trainable(model: keras.Model, trainable: bool) -> None:
    """Freeze or free every layer but the head; compile the model again afterwards.

    A frozen batch normalisation also stops updating its moving statistics and uses them.
    """
    for layer in model.layers:
        if layer.name != HEAD:
            layer.trainable = trainable


def _weights(model: keras.Model, *, with_head: bool) -> dict[str, keras.Variable]:
    return {
        f"{layer.name}/{index}": variable
        for layer in model.layers
        if with_head or layer.name != HEAD
        for index, variable in enumerate(layer.weights)
    }


def _shape(weights: dict[str, keras.Variable], name: str) -> str:
    return "x".join(map(str, weights[name].shape)) if name in weights else "absent"
