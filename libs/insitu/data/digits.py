"""scikit-learn's handwritten digits, real images, as a Parquet data set."""

from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from insitu.data.layout import MIN_FILES, shuffled, split_counts, write_dataset
from insitu.data.png import encode_png
from insitu.data.publish import publishing

CLASSES = tuple("0123456789")
_HOLDOUT = 0.2
_LEVELS = 16  # the stored brightness runs from 0 to 16


def write_digits(spark: SparkSession, output: str, *, seed: int) -> dict[str, Any]:
    """Write the 1 797 digits (8 x 8 pixels, 0..16 scaled to 0..255) as Parquet.

    The source is scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test set.
    Columns: `id` string, `image` binary (8-bit grayscale PNG), `label` int (class names in the
    column's metadata), `split` string: 80 % `train` and 20 % `validation`, the same in every class.

    Args:
        output: a directory that does not exist, on any file system that Spark knows.
        seed: of the split.

    Returns:
        `output`, `rows`, `classes`, and the rows of `train` and `validation`.

    Raises:
        UserError: `output` exists.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.round(digits.images * (255 / _LEVELS)).astype(np.uint8)
    table = pd.DataFrame(
        {
            "id": [f"digit-{index:04d}" for index in range(len(pixels))],
            "image": [encode_png(image) for image in pixels],
            "label": digits.target,
            "split": "train",
        }
    )
    _, held_out = train_test_split(table.index, test_size=_HOLDOUT, stratify=digits.target, random_state=seed)
    table.loc[held_out, "split"] = "validation"
    rows = spark.createDataFrame(table, "id string, image binary, label int, split string")
    rows = shuffled(rows, key="id", files=MIN_FILES, seed=seed)
    with publishing(spark, "OUT", output) as partial:
        write_dataset(rows, partial, label="label", classes=CLASSES)
        counts = split_counts(spark.read.parquet(partial))
    return {"output": output, "rows": len(table), "classes": list(CLASSES), **counts}
