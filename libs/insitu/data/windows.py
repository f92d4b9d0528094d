"""Synthetic sensor windows as a Parquet data set, drawn in parallel by Spark.

Legend: T time steps, V variables of a window.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from insitu.data.layout import check_holdout, file_count, split_column, split_counts, write_dataset
from insitu.data.publish import publishing
from insitu.errors import UserError

SHAPE = (64, 32)
"""(T, V)."""
CLASSES = ("sine", "trend", "burst")
_SCHEMA = "id string, tensor array<float>, label int"
_NOISE = 0.5


def write_windows(spark: SparkSession, output: str, *, rows: int, seed: int, holdout: float = 0.2) -> dict[str, Any]:
    """Write `rows` windows of three kinds as Parquet.

    Columns: `id` string, `tensor` array<float> (64 x 32 numbers: time step by time step, its 32 variables), `label` int
    (class names in the column's metadata), `split` string (`train` or `validation`).

    Args:
        output: a directory that does not exist, on any file system that Spark knows.
        rows: number of windows.
        seed: same seed, same windows, same split.
        holdout: expected share of the rows in `validation`.

    Returns:
        `output`, `rows`, `classes`, and the rows of `train` and `validation`.

    Raises:
        UserError: `output` exists, or a number is out of range.
    """
    for option, value, least in (("--rows", rows, 1), ("--seed", seed, 0)):
        if value < least:
            raise UserError(option, f"{value} is too small", f"give {least} or more")
    check_holdout(holdout)

    def draw(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            yield _draw(batch["id"], seed=seed)

    indices = spark.range(0, rows, 1, file_count(rows * 4 * SHAPE[0] * SHAPE[1]))
    split = split_column(F.col("id"), holdout=holdout, seed=seed)
    drawn = indices.mapInPandas(draw, _SCHEMA).withColumn("split", split)
    with publishing(spark, "OUT", output) as partial:
        write_dataset(drawn, partial, label="label", classes=CLASSES)
        counts = split_counts(spark.read.parquet(partial))
    return {"output": output, "rows": rows, "classes": list(CLASSES), **counts}


def window(index: int, *, seed: int) -> tuple[np.ndarray, int]:
    """Window `index` of the data set that `seed` names.

    A sine has one period and each variable its own phase; a trend is a line, in each variable of its own slope; a burst
    is short and comes to all variables at the same time. Each has noise, and a strength of its own in each variable.

    Returns:
        (float32 [T, V], its class).
    """
    rng = np.random.default_rng([seed, index])
    steps, variables = SHAPE
    label = int(rng.integers(len(CLASSES)))
    time = np.linspace(0, 1, steps)[:, None]
    strength = rng.uniform(0.5, 1.5, variables)
    if label == 0:
        signal = np.sin(2 * np.pi * (rng.uniform(2, 6) * time + rng.random(variables)))
    elif label == 1:
        signal = (2 * time - 1) * rng.choice([-1, 1], variables)
    else:
        signal = 2 * np.exp(-(((time - rng.uniform(0.2, 0.8)) / 0.05) ** 2)) * rng.choice([-1, 1], variables)
    return (strength * signal + rng.normal(0, _NOISE, SHAPE)).astype(np.float32), label


def _draw(indices: pd.Series, *, seed: int) -> pd.DataFrame:
    """The rows, without their split, of these window numbers (int64 [n])."""
    drawn = [window(index, seed=seed) for index in indices]
    return pd.DataFrame(
        {
            "id": [f"window-{index:08d}" for index in indices],
            "tensor": [values.ravel() for values, _ in drawn],
            "label": np.array([label for _, label in drawn], np.int32),
        }
    )
