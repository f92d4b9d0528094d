"""Stored tensors → float32: the only reader, shared by the scan, training and scoring.

Legend: B rows, h, w, c height, width and channels of a map, N numbers in a tensor.
"""

import math
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from insitu.data.decode import BadImage, is_array, load_array

TensorForm = Literal["list", "ndarray"]


class BadTensor(ValueError):
    """A value that is no tensor of the shape that is wanted; the message is the quarantine's reason."""


def tensor_form(kind: pa.DataType) -> TensorForm | None:
    """How a column of this type can hold tensors: as lists of numbers at any depth, or as arrays in bytes."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "ndarray"
    number = _levels(kind)[-1]
    return "list" if number != kind and (pa.types.is_integer(number) or pa.types.is_floating(number)) else None


def check_depth(kind: pa.DataType, shape: tuple[int, ...]) -> None:
    """Raise `BadTensor` where lists of this type are neither flat nor nested as `shape` is."""
    depth = len(_levels(kind)) - 1
    if depth not in (0, 1, len(shape)):
        raise BadTensor(f"lists {depth} deep, expected 1 or {len(shape)}")


def read_tensors(column: pa.Array, *, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[int, str]]:
    """Read a column's tensors, their values as they are.

    Args:
        column: B rows of a type that `tensor_form` and `check_depth` accept: lists of floats or integers, flat in
            row-major order or nested as `shape` is, or NumPy arrays in `.npy` or one-entry `.npz` form
            (petastorm's NdarrayCodec and CompressedNdarrayCodec), of `shape` or flat.
        shape: (h, w, c), or (h, w) of a map of one channel.

    Returns:
        float32 [B, h, w, c], all finite, 0 where a row cannot be read; and by number of the row why it cannot.
    """
    read = _read_lists if tensor_form(column.type) == "list" else _read_arrays
    tensors, faults = read(column, shape)
    return tensors.reshape(-1, *(*shape, 1)[:3]), faults


def read_tensor(value: object, *, shape: tuple[int, ...]) -> np.ndarray:
    """Read one tensor as `read_tensors` does.

    Args:
        value: a list, an array, or an array's bytes.
        shape: as for `read_tensors`.

    Returns:
        float32 [h, w, c].

    Raises:
        BadTensor: another shape or type, or a null, NaN or infinite number in it.
    """
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _numbers(value, shape).reshape((*shape, 1)[:3])
    try:
        column = pa.array([value])
    except pa.ArrowException as error:
        raise BadTensor(f"no list of numbers: {error}") from None
    if tensor_form(column.type) is None:
        raise BadTensor(f"{column.type}, expected a list of numbers, an array or its bytes")
    check_depth(column.type, shape)
    (tensor,), faults = read_tensors(column, shape=shape)
    if faults:
        raise BadTensor(faults[0])
    return tensor


def _levels(kind: pa.DataType) -> list[pa.DataType]:
    """The type and, where it is a list, those of its values at every depth."""
    levels = [kind]
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
        levels.append(kind)
    return levels


def _read_lists(column: pa.Array, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[int, str]]:
    """float32 [B, N], level by level, without a Python object for a value."""
    faults: dict[int, str] = {}
    rows, values, each = np.arange(len(column)), column, 1  # the good rows, and their lists, `each` of a row
    flat = len(_levels(column.type)) == 2
    for length in (math.prod(shape),) if flat else shape:
        lengths = pc.fill_null(pc.list_value_length(values), -1).to_numpy().reshape(-1, each)
        good = (lengths == length).all(axis=1)
        for row, found in zip(rows[~good], lengths[~good], strict=True):
            wrong = found[found != length][0]
            faults[int(row)] = "tensor is null" if wrong < 0 else f"list of {wrong}, expected {length}"
        if not good.all():
            rows, values = rows[good], values.filter(pa.array(np.repeat(good, each)))
        values, each = pc.list_flatten(values), each * length
    is_null = pc.is_null(values).to_numpy(zero_copy_only=False).reshape(-1, each)
    numbers = _as_float32(pc.fill_null(values, 0).to_numpy()).reshape(-1, each)
    bad = is_null | ~np.isfinite(numbers)
    good = ~bad.any(axis=1)
    for at in np.flatnonzero(~good):
        place = bad[at].argmax()
        faults[int(rows[at])] = f"number {place} is {'null' if is_null[at, place] else numbers[at, place]}"
    if not faults:
        return numbers, faults
    tensors = np.zeros((len(column), each), np.float32)
    tensors[rows[good]] = numbers[good]
    return tensors, faults


def _read_arrays(column: pa.Array, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[int, str]]:
    """float32 [B, N]."""
    tensors = np.zeros((len(column), math.prod(shape)), np.float32)
    faults = {}
    for row, payload in enumerate(column.to_pylist()):
        try:
            tensors[row] = _numbers(_array(payload), shape)
        except BadTensor as error:
            faults[row] = str(error)
    return tensors, faults


def _array(payload: bytes | None) -> np.ndarray:
    if payload is None:
        raise BadTensor("tensor is null")
    if not is_array(payload):
        raise BadTensor(f"not a NumPy array: {len(payload)} bytes starting with {payload[:8]!r}")
    try:
        return load_array(payload)
    except BadImage as error:
        raise BadTensor(str(error)) from None


def _numbers(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array's values, float32 [N], in row-major order."""
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise BadTensor(f"array of {array.dtype}, expected floats or integers")
    if array.shape not in (shape, (math.prod(shape),)):
        raise BadTensor(f"array of shape {array.shape}, expected {shape}")
    numbers = _as_float32(array.ravel())
    finite = np.isfinite(numbers)
    if not finite.all():
        place = finite.argmin()
        raise BadTensor(f"number {place} is {numbers[place]}")
    return numbers


def _as_float32(values: np.ndarray) -> np.ndarray:
    """Rounded once, to the nearest; infinite where that is too large."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
