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


@dataclass(frozen=True)
class Topology:
    """What can be checked about a topology before TensorFlow is loaded.

    Attributes:
        minimum: the smallest H and W, in pixels.
        options: the names of its options, each a positive number.
    """

    minimum: int
    options: frozenset[str] = field(default=frozenset())


_TOPOLOGIES = {
    "alexnet": Topology(minimum=63),
    "densenet121": Topology(minimum=32),
    "inception_v1": Topology(minimum=32),
    "mcnn": Topology(minimum=64, options=frozenset({"width"})),
    "resnet50": Topology(minimum=32),
    "squeezenet": Topology(minimum=31),
    "vgg16": Topology(minimum=32),
}
_NO_OPTIONS: Mapping[str, float] = MappingProxyType({})


def names() -> tuple[str, ...]:
    """The topologies that `build` knows, sorted."""
    return tuple(_TOPOLOGIES)


def check(name: str, *, size: tuple[int, int], options: Mapping[str, float] = _NO_OPTIONS) -> None:
    """Refuse what `build` cannot build, without loading TensorFlow.

    Args:
        name: a topology, one of `names()`.
        size: (H, W) in pixels.
        options: the topology's own options.

    Raises:
        UserError: `model.name` is unknown, `model.options` has an unknown key or a value that is not
            positive, or `data.size` is below the topology's minimum.
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
    if min(size) < topology.minimum:
        smallest = f"{topology.minimum}x{topology.minimum}"
        raise UserError("data.size", f"{size[0]}x{size[1]} is too small for {name}", f"give at least {smallest}")


def build(
    name: str,
    *,
    size: tuple[int, int],
    channels: int,
    outputs: int,
    activation: Literal["sigmoid", "softmax"],
    options: Mapping[str, float] = _NO_OPTIONS,
) -> keras.Model:
    """A topology between the shared input and head, with new random weights.

    The global Keras dtype policy is followed: under `mixed_bfloat16` the trunk computes in bfloat16,
    the variables, the head and the scores stay float32. Weights and dropout follow
    `keras.utils.set_random_seed`.

    Args:
        name: a topology, one of `names()`.
        size: (H, W) in pixels.
        channels: C, 1 or 3.
        outputs: K.
        activation: of the head; "sigmoid" for K independent labels, "softmax" for one class of K.
        options: the topology's own options.

    Returns:
        Input `image`, uint8 [B, H, W, C], values 0..255; output `scores`, float32 [B, K], values 0..1.
        The layer `head` holds the only weights that depend on K.

    Raises:
        UserError: as `check`.
    """
    check(name, size=size, options=options)
    from tensorflow import keras

    topology = importlib.import_module(f"insitu.models.{name}")
    image = keras.Input((*size, channels), dtype="uint8", name="image")
    pixels = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="rescale")(image)
    features = topology.trunk(pixels, **options)
    logits = keras.layers.Dense(outputs, dtype="float32", name=HEAD)(features)
    scores = keras.layers.Activation(activation, dtype="float32", name="scores")(logits)
    return keras.Model(image, scores, name=name)
