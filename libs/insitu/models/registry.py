"""The topologies by name, and the input and head that they share.

Legend: B batch, H height, W width, C channels, F features, K outputs.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from insitu.errors import UserError

if TYPE_CHECKING:
    from tensorflow import keras

HEAD = "head"
Normalization = Literal["batch", "group", "none"]
Input = Literal["image", "tensor"]


@dataclass(frozen=True)
class Topology:
    """What can be checked about a topology before TensorFlow is loaded.

    Attributes:
        minimum: the smallest H and W.
        options: the names of its options, each a positive number.
        normalizations: what may normalise between its layers; the first is its own.
    """

    minimum: int
    options: frozenset[str] = field(default=frozenset())
    normalizations: tuple[Normalization, ...] = ("none",)


_TOPOLOGIES = {
    "alexnet": Topology(minimum=63),
    "densenet121": Topology(minimum=32, normalizations=("batch", "group", "none")),
    "inception_v1": Topology(minimum=32),
    "mcnn": Topology(minimum=64, options=frozenset({"width"})),
    "resnet50": Topology(minimum=32, normalizations=("batch", "group")),
    "squeezenet": Topology(minimum=31),
    "vgg16": Topology(minimum=32),
}
_NO_OPTIONS: Mapping[str, float] = MappingProxyType({})


def names() -> tuple[str, ...]:
    """The topologies that `build` knows, sorted."""
    return tuple(_TOPOLOGIES)


def check(
    name: str,
    *,
    size: tuple[int, int],
    options: Mapping[str, float] = _NO_OPTIONS,
    normalization: Normalization | None = None,
    input: Input = "image",
) -> None:
    """Refuse what `build` cannot build, without loading TensorFlow.

    Args:
        name: a topology, one of `names()`.
        size: (H, W).
        options: the topology's own options.
        normalization: None is the topology's own.
        input: what the size is of.

    Raises:
        UserError: `model.name` is unknown, `model.options` has an unknown key or a value that is not
            positive, the topology cannot have `model.normalization`, or the size is below its minimum.
    """
    if name not in _TOPOLOGIES:
        nearest = difflib.get_close_matches(name, _TOPOLOGIES, n=1, cutoff=0.0)[0]
        raise UserError(
            "model.name", f"no topology {name!r}", f"did you mean {nearest}? There are {', '.join(names())}"
        )
    topology = _TOPOLOGIES[name]
    for option, value in options.items():
        if option not in topology.options:
            known = ", ".join(sorted(topology.options)) or "none"
            raise UserError("model.options", f"{name} has no option {option!r}", f"its options: {known}")
        if value <= 0:
            raise UserError(f"model.options.{option}", f"{value}, expected a positive number", "raise it")
    if normalization not in (None, *topology.normalizations):
        choices = ", ".join(topology.normalizations)
        raise UserError("model.normalization", f"{name} cannot have {normalization!r}", f"its choices: {choices}")
    if min(size) < topology.minimum:
        smallest = f"{topology.minimum}x{topology.minimum}"
        setting = "data.size" if input == "image" else "data.tensor_shape"
        raise UserError(setting, f"{size[0]}x{size[1]} is too small for {name}", f"give at least {smallest}")


def build(
    name: str,
    *,
    size: tuple[int, int],
    channels: int,
    outputs: int,
    activation: Literal["sigmoid", "softmax"],
    options: Mapping[str, float] = _NO_OPTIONS,
    normalization: Normalization | None = None,
    input: Input = "image",
) -> keras.Model:
    """A topology between the shared input and head, with new random weights.

    The global Keras dtype policy is followed: under `mixed_bfloat16` the trunk computes in bfloat16,
    the variables, the head and the scores stay float32. Weights and dropout follow
    `keras.utils.set_random_seed`.

    Args:
        name: a topology, one of `names()`.
        size: (H, W).
        channels: C.
        outputs: K.
        activation: of the head; "sigmoid" for K independent labels, "softmax" for one class of K.
        options: the topology's own options.
        normalization: see `insitu.models.normalization`; None is the topology's own.
        input: what the network reads.

    Returns:
        Input `image`, uint8 [B, H, W, C], values 0..255, or `tensor`, float32 [B, H, W, C], values as they are;
        output `scores`, float32 [B, K], values 0..1.
        The layer `head` holds the only weights that depend on K.

    Raises:
        UserError: as `check`.
    """
    check(name, size=size, options=options, normalization=normalization, input=input)
    from tensorflow import keras

    from insitu.models.normalization import replace_batch_normalization

    topology = importlib.import_module(f"insitu.models.{name}")
    entry = keras.Input((*size, channels), dtype="uint8" if input == "image" else "float32", name=input)
    maps = entry
    if input == "image":
        maps = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="rescale")(entry)
    features = topology.trunk(maps, **options)
    logits = keras.layers.Dense(outputs, dtype="float32", name=HEAD)(features)
    scores = keras.layers.Activation(activation, dtype="float32", name="scores")(logits)
    model = keras.Model(entry, scores, name=name)
    if normalization in (None, _TOPOLOGIES[name].normalizations[0]):
        return model
    assert normalization != "batch", "only ever a topology's own"
    return replace_batch_normalization(model, normalization)
