"""A converted model: the topology as JSON, and where each Keras variable lies in the flat vectors.

Legend: P trainable parameters, S batch-norm statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Node:
    """What a layer of the network takes, for one image.

    Attributes:
        kind: as in the topology.
        outputs: elements of its output.
        columns: elements of the patches that a convolution under `mklblas` writes out, once for the forward pass and
            once more for the backward pass; 0 for other layers and for 1x1 convolutions of stride 1.
    """

    name: str
    kind: str
    outputs: int
    columns: int


@dataclass(frozen=True)
class Variable:
    """A Keras variable and its segment of a flat vector.

    Attributes:
        name: Keras's.
        index: its place in `get_weights()`.
        shape: Keras's.
        offset: of the segment's first element.
        kernel: [H, W, in, out] of a convolution's or dense layer's kernel, which dllib has as [out, in, H, W]; None
            for vectors, which both have alike.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    offset: int
    kernel: tuple[int, int, int, int] | None

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        """Dimensions of the Keras variable."""
        return len(self.shape)

    @property
    def segment(self) -> slice:
        """Of the flat vector."""
        return slice(self.offset, self.offset + self.size)

    def to_segment(self, array: np.ndarray) -> np.ndarray:
        """Keras's array → float32 [size]."""
        return array.ravel() if self.kernel is None else array.reshape(self.kernel).transpose(3, 2, 0, 1).ravel()

    def from_segment(self, segment: np.ndarray) -> np.ndarray:
        """Float32 [size] → a copy shaped as Keras has it."""
        if self.kernel is None:
            return segment.reshape(self.shape).copy()
        height, width, inputs, outputs = self.kernel
        return segment.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0).reshape(self.shape).copy()


@dataclass(frozen=True)
class Converted:
    """A Keras model in dllib's terms; plain and picklable.

    Attributes:
        topology: JSON for `Network.build`; the network ends in logits [batch, K].
        scale, offset: of the model's input rescaling, x * scale + offset, which the network leaves to its caller; 1 and
            0 where there is none.
        activation: softmax or sigmoid, which the network leaves to its caller.
        nodes: in the order of computation.
        parameters: the variables of the flat vector [P], without gaps and in its order.
        statistics: the moving means and variances of the flat vector [S], likewise.
    """

    topology: str
    scale: float
    offset: float
    activation: str
    nodes: tuple[Node, ...]
    parameters: tuple[Variable, ...]
    statistics: tuple[Variable, ...]

    def to_flat(self, weights: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Keras's `get_weights()`, float32 → the network's parameters [P] and statistics [S], float32.

        Raises:
            ValueError: the weights are another model's.
        """
        shapes = [variable.shape for variable in sorted(self.parameters + self.statistics, key=lambda v: v.index)]
        if [array.shape for array in weights] != shapes:
            raise ValueError(f"expected weights of the shapes {shapes}, got {[array.shape for array in weights]}")
        return _flat(self.parameters, weights), _flat(self.statistics, weights)

    def from_flat(self, parameters: np.ndarray, statistics: np.ndarray) -> list[np.ndarray]:
        """The inverse of `to_flat`, bit for bit.

        Raises:
            ValueError: the vectors have another length than P and S.
        """
        weights: list[np.ndarray] = [np.empty(0)] * (len(self.parameters) + len(self.statistics))
        for variables, flat in ((self.parameters, parameters), (self.statistics, statistics)):
            if flat.shape != (total_size(variables),):
                raise ValueError(f"expected {total_size(variables)} values, got an array of {flat.shape}")
            for variable in variables:
                weights[variable.index] = variable.from_segment(flat[variable.segment])
        return weights


def total_size(variables: Sequence[Variable]) -> int:
    """Elements of all variables."""
    return sum(variable.size for variable in variables)


def _flat(variables: Sequence[Variable], weights: Sequence[np.ndarray]) -> np.ndarray:
    flat = np.empty(total_size(variables), np.float32)
    for variable in variables:
        flat[variable.segment] = variable.to_segment(weights[variable.index])
    return flat
