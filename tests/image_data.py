"""Small images in Parquet files, for the tests of the data room."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(number: int, *, shape: tuple[int, ...] = (6, 5, 3), dtype: type[np.generic] = np.uint8) -> np.ndarray:
    """Random pixels, others for every number."""
    high = np.iinfo(dtype).max + 1  # type: ignore[type-var]
    return np.random.default_rng(number).integers(0, high, shape).astype(dtype)


def encode(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Pixels as an image file."""
    return save(Image.fromarray(pixels), kind, **options)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A Pillow image, of any mode, as an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def write_table(path: Path, columns: dict[str, Any] | pa.Table, *, row_group_rows: int = 1000) -> str:
    """Write one Parquet file and return its URI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, path, row_group_size=row_group_rows)
    return as_uri(path)


def as_uri(path: Path) -> str:
    """A file's URI as Spark writes it: nothing percent-encoded."""
    return f"file://{path}"


def numbered(first: int, rows: int, *, shape: tuple[int, ...] = (8, 8)) -> dict[str, list]:
    """Columns `image` and `label`: row n is an image all of whose pixels are n, labelled n."""
    numbers = range(first, first + rows)
    return {"image": [encode(np.full(shape, n, np.uint8)) for n in numbers], "label": list(numbers)}
