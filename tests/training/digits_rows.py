"""Small real datasets for training tests: scikit-learn's digits, written as plain Parquet."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyspark.sql import SparkSession
from sklearn.datasets import load_digits

from insitu.data.opened import open_data
from insitu.recipe import Recipe
from insitu.training.prepare import Prepared, prepare

TRAIN, VALIDATION = 64, 33


def digit_rows(train: int = TRAIN, validation: int = VALIDATION) -> dict[str, list[Any]]:
    """Columns id, image, label and split of the first digits."""
    images, labels = load_digits(return_X_y=True)
    count = train + validation
    return {
        "id": [f"digit-{i}" for i in range(count)],
        "image": [_png(image) for image in images[:count]],
        "label": labels[:count].tolist(),
        "split": ["train"] * train + ["validation"] * validation,
    }


def write_rows(path: Path, rows: dict[str, list[Any]], *, row_group: int = 20) -> str:
    path.mkdir(parents=True)
    pq.write_table(pa.table(rows), path / "part-0.parquet", row_group_size=row_group)
    return str(path)


def scanned(spark: SparkSession, recipe: Recipe, data: str) -> Prepared:
    """A dataset as training will use it."""
    return prepare(spark, recipe, open_data(recipe, data))


def _png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray((image.reshape(8, 8) / 16 * 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def recipe_tree(**training: Any) -> dict[str, Any]:
    """A recipe that trains on digits in seconds; `training` overrides its training section."""
    return {
        "task": {"kind": "multiclass"},
        "data": {"size": [32, 32], "channels": 1},
        "model": {"name": "squeezenet"},
        "training": {
            "epochs": 2,
            "global_batch": 32,
            "precision": "fp32",
            "optimizer": {"name": "adam", "learning_rate": 0.001},
            **training,
        },
    }


def changed(rows: dict[str, list[Any]], column: str, change: Callable[[int, Any], Any]) -> dict[str, list[Any]]:
    """The rows with `change(index, value)` in one column."""
    return rows | {column: [change(i, value) for i, value in enumerate(rows[column])]}
