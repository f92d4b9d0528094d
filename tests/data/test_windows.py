"""Synthetic windows as a data set."""

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from insitu.data.windows import CLASSES, SHAPE, window, write_windows
from insitu.errors import UserError

SEED = 5


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    output = tmp_path_factory.mktemp("windows") / "set"
    return write_windows(spark, str(output), rows=200, seed=SEED), output


def test_every_row_is_the_window_of_its_number(spark: SparkSession, written: tuple[dict, Path]) -> None:
    rows = spark.read.parquet(str(written[1])).orderBy("id").collect()
    assert [row["id"] for row in rows] == [f"window-{index:08d}" for index in range(200)]
    for index in (0, 99, 199):
        values, label = window(index, seed=SEED)
        assert values.shape == SHAPE and values.dtype == np.float32
        np.testing.assert_array_equal(np.array(rows[index]["tensor"], np.float32), values.ravel())
        assert rows[index]["label"] == label


def test_summary_classes_and_split(spark: SparkSession, written: tuple[dict, Path]) -> None:
    summary, output = written
    rows = spark.read.parquet(str(output))
    assert rows.schema["label"].metadata == {"classes": list(CLASSES)} == {"classes": summary["classes"]}
    assert summary["train"] + summary["validation"] == summary["rows"] == rows.count() == 200
    assert rows.filter("split = 'validation'").count() == summary["validation"]
    assert 20 < summary["validation"] < 60
    assert rows.groupBy("label").count().count() == len(CLASSES)


def test_kinds_differ_in_what_they_are_named_for() -> None:
    """A trend's ends are far apart, a burst's largest step stands out, a sine does neither."""
    drawn = [window(index, seed=SEED) for index in range(300)]
    kinds = [np.stack([values for values, label in drawn if label == kind]) for kind in range(len(CLASSES))]
    strength = [np.abs(values).mean(axis=2) for values in kinds]  # [windows, T], over the variables
    ends = [np.abs(values[:, -8:].mean(axis=1) - values[:, :8].mean(axis=1)).mean() for values in kinds]
    peaks = [float(np.mean(values.max(axis=1) / np.median(values, axis=1))) for values in strength]
    assert ends[1] > 1.5 * max(ends[0], ends[2])
    assert peaks[2] > 1.5 * max(peaks[0], peaks[1])


def test_other_seeds_draw_other_windows() -> None:
    assert not np.array_equal(window(3, seed=1)[0], window(3, seed=2)[0])


@pytest.mark.parametrize(("option", "value"), [("rows", 0), ("seed", -1), ("holdout", 1.0)])
def test_numbers_out_of_range_are_refused(spark: SparkSession, tmp_path: Path, option: str, value: float) -> None:
    arguments: dict = {"rows": 4, "seed": SEED, "holdout": 0.5} | {option: value}
    with pytest.raises(UserError, match=f"--{option}: "):
        write_windows(spark, str(tmp_path / "set"), **arguments)
