"""A Keras model as BigDL's dllib can build it: the topology as JSON, the weights as flat vectors.

Legend: H height, W width, C channels, K outputs, P trainable parameters, S batch-norm statistics. Keras keeps
activations as [H, W, C], kernels as [H, W, in, out] and dense kernels as [in, out]; dllib as [C, H, W],
[out, in, H, W] and [out, in].
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from insitu.bigdl.converted import Converted, Node, Variable, total_size
from insitu.errors import UserError

if TYPE_CHECKING:
    from tensorflow import keras

_MEND = "use training.engine=orca"
_SAME = (-1, -1)
"""dllib's word for TensorFlow's "same" padding, where more may lie below and right than above and left."""

_RAW = "raw input"
_NO_REGULARIZERS = MappingProxyType(
    {f"{of}_{kind}": None for of in ("kernel", "bias") for kind in ("regularizer", "constraint")}
)
_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "Activation": {},
        "Add": {},
        "AveragePooling2D": {"data_format": "channels_last"},
        "BatchNormalization": {
            "center": True,
            "scale": True,
            "beta_regularizer": None,
            "gamma_regularizer": None,
            "beta_constraint": None,
            "gamma_constraint": None,
        },
        "Concatenate": {},
        "Conv2D": {"data_format": "channels_last", "dilation_rate": (1, 1), "groups": 1, **_NO_REGULARIZERS},
        "Dense": {"use_bias": True, **_NO_REGULARIZERS},
        "Dropout": {"noise_shape": None},
        "Flatten": {"data_format": "channels_last"},
        "GlobalAveragePooling2D": {"data_format": "channels_last", "keepdims": False},
        "InputLayer": {},
        "MaxPooling2D": {"data_format": "channels_last"},
        "ReLU": {"max_value": None, "negative_slope": 0, "threshold": 0},
        "Rescaling": {},
        "ZeroPadding2D": {"data_format": "channels_last"},
    }
)
"""The layers that are covered, each with the options that must have the given value."""


def convert(model: keras.Model) -> Converted:
    """Read a functional model's topology.

    Args:
        model: one input, uint8 with a `Rescaling` or float32 without, a trunk of the layers that dllib has, a `Dense`
            head and a softmax or sigmoid `Activation`, as `insitu.models.build` makes it, in float32.

    Raises:
        UserError: `training.engine`, `training.precision` or `model.normalization`, naming the first layer that dllib
            cannot reproduce.
    """
    config = model.get_config()
    for end in ("input_layers", "output_layers"):
        if len(config[end]) != 1:
            ends = end.removesuffix("_layers") + "s"
            raise UserError("training.engine", f"bigdl takes models of one input and output, not {ends}", _MEND)
    reader = _Reader(model, output=config["output_layers"][0][0])
    for layer, entry in zip(model.layers, config["layers"], strict=True):
        reader.read(layer, entry["inbound_nodes"])
    return reader.converted()


@dataclass(frozen=True)
class _Value:
    """A Keras tensor: what node makes it, its shape without the batch, and what has not yet been applied to it.

    Attributes:
        flat: Keras has it as [H * W * C].
        padding: zeros above and below, left and right.
    """

    node: str
    height: int
    width: int
    channels: int
    flat: bool = False
    padding: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """[H, W, C]."""
        return self.height, self.width, self.channels


class _Reader:
    """Reads layers in the order of computation."""

    def __init__(self, model: keras.Model, *, output: str) -> None:
        self._output = output
        self._index = {id(variable): index for index, variable in enumerate(model.weights)}
        self._values: dict[str, _Value] = {}
        self._nodes: dict[str, dict[str, Any]] = {}
        self._parameters: list[Variable] = []
        self._statistics: list[Variable] = []
        self._input: dict[str, Any] = {}
        self._scale = self._offset = 0.0
        self._activation = ""
        self._read: dict[str, Callable[[Any, list[_Value]], _Value]] = {
            "Activation": self._activation_layer,
            "Add": self._add,
            "AveragePooling2D": self._average_pooling,
            "BatchNormalization": self._batch_normalization,
            "Concatenate": self._concatenate,
            "Conv2D": self._convolution,
            "Dense": self._dense,
            "Dropout": self._dropout,
            "Flatten": lambda layer, values: replace(values[0], flat=True),
            "GlobalAveragePooling2D": self._global_average_pooling,
            "InputLayer": self._input_layer,
            "MaxPooling2D": self._max_pooling,
            "ReLU": lambda layer, values: self._relu(layer, values[0]),
            "Rescaling": self._rescaling,
            "ZeroPadding2D": self._zero_padding,
        }

    def read(self, layer: keras.layers.Layer, inbound: list[Any]) -> None:
        """Add a layer; `inbound` as in the model's config: for every call of the layer, the tensors it got."""
        self._check(layer, inbound)
        values = [self._values[name] for name, *_ in inbound[0]] if inbound else []
        kind = type(layer).__name__
        if kind != "Rescaling" and any(value.node == _RAW for value in values):
            raise _unsupported(layer, f"{kind} of the input before a Rescaling")
        if kind not in ("Conv2D", "MaxPooling2D") and any(value.padding != (0, 0) for value in values):
            raise _unsupported(layer, f"ZeroPadding2D before {kind}")
        if kind not in ("Activation", "Dense", "Dropout", "ReLU") and any(value.flat for value in values):
            raise _unsupported(layer, f"{kind} of flat features")
        self._values[layer.name] = self._read[kind](layer, values)

    def converted(self) -> Converted:
        """All that was read."""
        if not self._activation:
            raise UserError("training.engine", f"bigdl takes scores by softmax or sigmoid, not {self._output}", _MEND)
        topology = {
            "input": self._input,
            "output": self._values[self._output].node,
            "nodes": list(self._nodes.values()),
        }
        return Converted(
            topology=json.dumps(topology),
            scale=self._scale,
            offset=self._offset,
            activation=self._activation,
            nodes=tuple(
                Node(node["name"], node["kind"], math.prod(node["shape"]), node.get("columns", 0))
                for node in self._nodes.values()
            ),
            parameters=tuple(self._parameters),
            statistics=tuple(self._statistics),
        )

    def _check(self, layer: keras.layers.Layer, inbound: list[Any]) -> None:
        kind = type(layer).__name__
        if kind == "GroupNormalization":
            problem = f"bigdl has no {kind} (layer {layer.name})"
            raise UserError("model.normalization", problem, f"use batch or none, or {_MEND.removeprefix('use ')}")
        if kind not in _OPTIONS:
            raise _unsupported(layer, kind)
        if len(inbound) > 1:
            raise _unsupported(layer, f"{kind} that is called {len(inbound)} times")
        config = layer.get_config()
        for option, value in _OPTIONS[kind].items():
            if config.get(option, value) != value:
                raise _unsupported(layer, f"{kind} with {option}={config[option]}")
        if layer.weights and not layer.trainable:
            raise _unsupported(layer, f"frozen {kind}")
        if kind != "InputLayer" and layer.compute_dtype != "float32":
            problem = f"bigdl computes in float32, not {layer.compute_dtype} (layer {layer.name})"
            raise UserError("training.precision", problem, f"use fp32, or {_MEND.removeprefix('use ')}")

    def _input_layer(self, layer: keras.layers.InputLayer, values: list[_Value]) -> _Value:
        shape = layer.output.shape[1:]
        if len(shape) != 3 or None in shape:
            raise _unsupported(layer, f"input of the shape {tuple(shape)}")
        height, width, channels = shape
        self._input = {"channels": channels, "height": height, "width": width}
        if layer.dtype != "float32":
            return _Value(_RAW, height, width, channels)
        self._scale, self._input["name"] = 1.0, layer.name
        return _Value(layer.name, height, width, channels)

    def _rescaling(self, layer: keras.layers.Rescaling, values: list[_Value]) -> _Value:
        if values[0].node != _RAW or "name" in self._input:
            raise _unsupported(layer, "Rescaling but one of a uint8 input")
        if np.ndim(layer.scale) or np.ndim(layer.offset):
            raise _unsupported(layer, "Rescaling by several numbers")
        self._scale, self._offset, self._input["name"] = float(layer.scale), float(layer.offset), layer.name
        return replace(values[0], node=layer.name)

    def _convolution(self, layer: keras.layers.Conv2D, values: list[_Value]) -> _Value:
        [value] = values
        kernel, stride = layer.kernel_size, self._stride(layer)
        same = layer.padding == "same"
        if same and value.padding != (0, 0):
            raise _unsupported(layer, 'ZeroPadding2D before Conv2D with padding="same"')
        padding = _same_padding(value, kernel, stride) if same else value.padding
        height, width = _output_size(value, kernel, stride, padding)
        plain = kernel == (1, 1) and stride == 1 and padding == (0, 0)
        self._add_variable(layer.kernel, kernel=tuple(layer.kernel.shape))
        if layer.use_bias:
            self._add_variable(layer.bias)
        linear = self._add_node(
            layer.name,
            "convolution",
            values,
            (height, width, layer.filters),
            kernel=kernel,
            stride=stride,
            padding=padding,
            bias=layer.use_bias,
            columns=0 if plain else math.prod(kernel) * value.channels * height * width,
        )
        return self._activate(layer, linear)

    def _dense(self, layer: keras.layers.Dense, values: list[_Value]) -> _Value:
        [value] = values
        if not value.flat:
            raise _unsupported(layer, "Dense of a map")
        self._add_variable(layer.kernel, kernel=(*value.shape, layer.units))
        self._add_variable(layer.bias)
        return self._activate(layer, self._add_node(layer.name, "linear", values, (1, 1, layer.units), flat=True))

    def _batch_normalization(self, layer: keras.layers.BatchNormalization, values: list[_Value]) -> _Value:
        if list(layer.axis) not in ([3], [-1]):
            raise _unsupported(layer, f"BatchNormalization with axis={list(layer.axis)}")
        if not 0 <= layer.momentum < 1:
            raise _unsupported(layer, f"BatchNormalization with momentum={layer.momentum}")
        self._add_variable(layer.gamma)
        self._add_variable(layer.beta)
        self._add_variable(layer.moving_mean, to=self._statistics)
        self._add_variable(layer.moving_variance, to=self._statistics)
        options = {"epsilon": layer.epsilon, "momentum": layer.momentum}
        return self._add_node(layer.name, "batch_normalization", values, values[0].shape, **options)

    def _max_pooling(self, layer: keras.layers.MaxPooling2D, values: list[_Value]) -> _Value:
        [value] = values
        kernel, stride = layer.pool_size, self._stride(layer)
        same, padded = layer.padding == "same", value.padding != (0, 0)
        if padded and (same or self._nodes.get(value.node, {}).get("kind") != "relu"):
            # Keras takes the zeros for pixels; dllib leaves them out, which is the same only where no pixel is less.
            raise _unsupported(layer, "ZeroPadding2D before MaxPooling2D but between a ReLU and a valid pooling")
        sizes = zip((value.height, value.width), kernel, value.padding, strict=True)
        if padded and any(zeros > length // 2 or size + zeros < length for size, length, zeros in sizes):
            raise _unsupported(layer, f"ZeroPadding2D of {value.padding} before MaxPooling2D of {kernel}")
        if kernel == (1, 1) and stride == 1:
            return value
        padding = _SAME if same else value.padding
        size = _output_size(value, kernel, stride, padding)
        options = {"kernel": kernel, "stride": stride, "padding": padding}
        return self._add_node(layer.name, "max_pooling", values, (*size, value.channels), **options)

    def _average_pooling(self, layer: keras.layers.AveragePooling2D, values: list[_Value]) -> _Value:
        [value] = values
        kernel, stride = layer.pool_size, self._stride(layer)
        if layer.padding == "same" and _same_padding(value, kernel, stride) != (0, 0):
            raise _unsupported(layer, 'AveragePooling2D with padding="same" that does not divide its input')
        size = _output_size(value, kernel, stride, (0, 0))
        options = {"kernel": kernel, "stride": stride}
        return self._add_node(layer.name, "average_pooling", values, (*size, value.channels), **options)

    def _global_average_pooling(self, layer: keras.layers.GlobalAveragePooling2D, values: list[_Value]) -> _Value:
        [value] = values
        options = {"kernel": (value.height, value.width), "stride": 1}
        return self._add_node(layer.name, "average_pooling", values, (1, 1, value.channels), flat=True, **options)

    def _zero_padding(self, layer: keras.layers.ZeroPadding2D, values: list[_Value]) -> _Value:
        (top, bottom), (left, right) = layer.padding
        if (top, left) != (bottom, right):
            raise _unsupported(layer, f"ZeroPadding2D with padding={layer.padding}")
        return replace(values[0], padding=(top, left))

    def _concatenate(self, layer: keras.layers.Concatenate, values: list[_Value]) -> _Value:
        self._check_distinct(layer, values)
        if layer.axis not in (-1, 3):
            raise _unsupported(layer, f"Concatenate with axis={layer.axis}")
        channels = sum(value.channels for value in values)
        return self._add_node(layer.name, "concatenation", values, (values[0].height, values[0].width, channels))

    def _add(self, layer: keras.layers.Add, values: list[_Value]) -> _Value:
        self._check_distinct(layer, values)
        if len({value.shape for value in values}) > 1:
            raise _unsupported(layer, "Add of different shapes")
        return self._add_node(layer.name, "addition", values, values[0].shape)

    def _check_distinct(self, layer: keras.layers.Layer, values: list[_Value]) -> None:
        if len({value.node for value in values}) < len(values):
            raise _unsupported(layer, f"{type(layer).__name__} of a tensor and itself")

    def _dropout(self, layer: keras.layers.Dropout, values: list[_Value]) -> _Value:
        [value] = values
        if not layer.rate:
            return value
        return self._add_node(layer.name, "dropout", values, value.shape, flat=value.flat, rate=layer.rate)

    def _activation_layer(self, layer: keras.layers.Activation, values: list[_Value]) -> _Value:
        [value] = values
        function = layer.get_config()["activation"]
        if layer.name == self._output and function in ("softmax", "sigmoid"):
            if self._nodes[value.node]["kind"] != "linear":
                raise _unsupported(layer, f"{function} of anything but a Dense layer without an activation")
            self._activation = function
            return value
        return self._activate(layer, value)

    def _activate(self, layer: keras.layers.Layer, value: _Value) -> _Value:
        function = layer.get_config()["activation"]
        if function == "linear":
            return value
        if function != "relu":
            raise _unsupported(layer, f"{type(layer).__name__} with activation={function}")
        return self._relu(layer, value)

    def _relu(self, layer: keras.layers.Layer, value: _Value) -> _Value:
        return self._add_node(f"{layer.name}/relu", "relu", [value], value.shape, flat=value.flat)

    def _stride(self, layer: keras.layers.Layer) -> int:
        vertical, horizontal = layer.strides
        if vertical != horizontal:
            raise _unsupported(layer, f"{type(layer).__name__} with strides={layer.strides}")
        return vertical

    def _add_node(
        self,
        name: str,
        kind: str,
        inputs: list[_Value],
        shape: tuple[int, int, int],
        *,
        flat: bool = False,
        **options: Any,
    ) -> _Value:
        height, width, channels = shape
        node = {"name": name, "kind": kind, "inputs": [value.node for value in inputs]}
        self._nodes[name] = {**node, "shape": (channels, height, width), **options}
        return _Value(name, height, width, channels, flat=flat)

    def _add_variable(
        self, variable: Any, *, kernel: tuple[int, ...] | None = None, to: list[Variable] | None = None
    ) -> None:
        variables = self._parameters if to is None else to
        shape, index = tuple(variable.shape), self._index[id(variable)]
        variables.append(Variable(variable.name, index, shape, total_size(variables), kernel))  # type: ignore[arg-type]


def _same_padding(value: _Value, kernel: tuple[int, int], stride: int) -> tuple[int, int]:
    """TensorFlow's, as zeros on either side where both sides get as many, else `_SAME`."""
    zeros = [
        max(0, (math.ceil(size / stride) - 1) * stride + length - size)
        for size, length in zip((value.height, value.width), kernel, strict=True)
    ]
    return _SAME if any(total % 2 for total in zeros) else (zeros[0] // 2, zeros[1] // 2)


def _output_size(value: _Value, kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> tuple[int, int]:
    if padding == _SAME:
        return math.ceil(value.height / stride), math.ceil(value.width / stride)
    return (
        (value.height + 2 * padding[0] - kernel[0]) // stride + 1,
        (value.width + 2 * padding[1] - kernel[1]) // stride + 1,
    )


def _unsupported(layer: keras.layers.Layer, what: str) -> UserError:
    return UserError("training.engine", f"bigdl has no {what} (layer {layer.name})", _MEND)
