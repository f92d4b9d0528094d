"""Tensors in every column type that holds them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from image_data import as_npy, as_npz

SHAPE = (2, 3, 2)
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float32(), pa.float64()]
LISTED: dict[str, Callable[[pa.DataType], pa.DataType]] = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "fixed_size_list": lambda kind: pa.list_(kind, 12),
    "nested": lambda kind: pa.list_(pa.list_(pa.list_(kind))),
    "nested of fixed sizes": lambda kind: pa.list_(pa.list_(pa.list_(kind, 2), 3), 2),
}


def extremes(dtype: Any, rows: int = 5) -> np.ndarray:
    """Values of a NumPy type at and near its limits, and where rounding to float32 is decided: [rows, *SHAPE]."""
    stored = np.dtype(dtype)
    native = stored.newbyteorder("=")
    rng = np.random.default_rng(3)
    size = (rows, *SHAPE)
    if stored.kind == "f":
        digits = 4 if stored.itemsize == 2 else 38
        values = rng.normal(size=size) * 10.0 ** rng.integers(-digits - 2, digits, size)
        values.flat[:5] = [0.0, -0.0, 1 + 2**-24, 1 + 3 * 2**-24, 1e-45]
        return values.astype(stored)
    limits = np.iinfo(native)
    values = rng.integers(limits.min, limits.max, size, native, endpoint=True)
    values.flat[:2] = [limits.min, limits.max]
    if limits.bits == 64:  # rounded to 53 bits first, these would be rounded to 24 the other way
        values.flat[2:6] = [2**60 + 2**36 + 1, 2**60 + 3 * 2**36 - 1, 2**62 + 2**38 + 1, limits.max - 2**38 - 1]
    return values.astype(stored)


def column(values: np.ndarray, kind: pa.DataType, listed: str) -> pa.Array:
    """[rows, *SHAPE] as lists."""
    made = LISTED[listed](kind)
    nested = listed.startswith("nested")
    return pa.array([row.tolist() if nested else row.ravel().tolist() for row in values], made)


ARRAYS: dict[str, Callable[[np.ndarray], bytes]] = {
    "npy": as_npy,
    "npy in Fortran's order": lambda array: as_npy(np.asfortranarray(array)),
    "npy of flat values": lambda array: as_npy(array.ravel()),
    "npz": lambda array: as_npz(array=array),
}
DTYPES = ["i1", "<i2", ">i2", "<i4", ">i8", "u1", ">u2", "<u4", "<u8", "<f2", "<f4", ">f4", "<f8", ">f8"]


def window_rows(train: int, validation: int, *, shape: tuple[int, int] = (31, 32)) -> dict[str, list[Any]]:
    """Columns id, tensor, label and split: windows of two classes, whose mean is -1 or 1."""
    count = train + validation
    labels = [number % 2 for number in range(count)]
    rng = np.random.default_rng(9)
    return {
        "id": [f"window-{number}" for number in range(count)],
        "tensor": [(2 * label - 1 + rng.normal(size=shape)).astype(np.float32).ravel().tolist() for label in labels],
        "label": labels,
        "split": ["train"] * train + ["validation"] * validation,
    }
