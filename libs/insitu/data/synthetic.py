"""Synthetic chest X-rays as a Parquet data set, drawn in parallel by Spark."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from insitu.data.layout import check_holdout, file_count, split_column, split_counts, write_dataset
from insitu.data.publish import publishing
from insitu.errors import UserError

_SCHEMA = "id string, patient string, image binary, labels array<int>"
_BATCH_IMAGES = 64
_SMALLEST_SIZE = 32


def write_xrays(
    spark: SparkSession, output: str, *, images: int, size: int, seed: int, holdout: float = 0.2
) -> dict[str, Any]:
    """Write `images` chest X-rays with the 14 findings of ChestX-ray14 as Parquet.

    Columns: `id` string, `patient` string, `image` binary (8-bit grayscale PNG), `labels`
    array<int> (14 of 0/1, class names in the column's metadata), `split` string (`train` or
    `validation`; no patient is on both sides). What the pictures show: `insitu.data.xray`.

    Args:
        output: a directory that does not exist, on any file system that Spark knows.
        images: number of images.
        size: height and width in pixels; signs are visible from 64 on.
        seed: same seed, same images, same split.
        holdout: expected share of patients in `validation`.

    Returns:
        `output`, `rows`, `classes`, `train` and `validation` rows, and `positives` by class.

    Raises:
        UserError: `output` exists, or a number is out of range.
    """
    from insitu.data.xray import CLASSES

    _check(images=images, size=size, seed=seed)
    check_holdout(holdout)

    def draw(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            for start in range(0, len(batch), _BATCH_IMAGES):
                yield _draw(batch["id"].iloc[start : start + _BATCH_IMAGES], size=size, seed=seed)

    indices = spark.range(0, images, 1, file_count(images * size * size))
    split = split_column(F.col("patient"), holdout=holdout, seed=seed)
    rows = indices.mapInPandas(draw, _SCHEMA).withColumn("split", split)
    with publishing(spark, "OUT", output) as partial:
        write_dataset(rows, partial, label="labels", classes=CLASSES)
        written = spark.read.parquet(partial)
        counts = split_counts(written)
        positives = written.agg(*(F.sum(F.col("labels")[k]).alias(name) for k, name in enumerate(CLASSES))).first()
    assert positives is not None
    return {"output": output, "rows": images, "classes": list(CLASSES), **counts, "positives": positives.asDict()}


def _check(*, images: int, size: int, seed: int) -> None:
    for option, value, least in (("--images", images, 1), ("--size", size, _SMALLEST_SIZE), ("--seed", seed, 0)):
        if value < least:
            raise UserError(option, f"{value} is too small", f"give {least} or more")


def _draw(indices: pd.Series, *, size: int, seed: int) -> pd.DataFrame:
    """The rows, without their split, of these image numbers (int64 [n])."""
    from insitu.data.png import encode_png
    from insitu.data.xray import patient, xray

    drawn = [xray(index, size=size, seed=seed) for index in indices]
    return pd.DataFrame(
        {
            "id": [f"xray-{index:08d}" for index in indices],
            "patient": [f"patient-{patient(index):07d}" for index in indices],
            "image": [encode_png(pixels) for pixels, _ in drawn],
            "labels": [labels.astype("int32") for _, labels in drawn],
        }
    )
