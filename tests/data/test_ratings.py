"""Synthetic ratings: their number, their pairs, their rank, their noise, and independence of Spark's partitions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from insitu.data import ratings as module
from insitu.data.ratings import write_ratings
from insitu.errors import UserError

SIZES: dict[str, Any] = {"ratings": 30_000, "users": 300, "items": 200, "rank": 3, "noise": 0.1, "seed": 4}


def written(spark: SparkSession, path: Path, **options: Any) -> pd.DataFrame:
    """The rows in order, their timestamps as seconds: pyarrow 14 may crash on time zones where TensorFlow is loaded."""
    write_ratings(spark, str(path), **(SIZES | options))
    rows = spark.read.parquet(str(path)).withColumn("timestamp", F.col("timestamp").cast("long"))
    return rows.orderBy("user", "item").toPandas()


def test_ratings_are_of_the_rank_up_to_the_noise(spark: SparkSession, tmp_path: Path) -> None:
    found = written(spark, tmp_path / "all", ratings=300 * 200)
    matrix = found.pivot(index="user", columns="item", values="rating").to_numpy()
    assert matrix.shape == (300, 200) and not np.isnan(matrix).any()
    left, strengths, right = np.linalg.svd(matrix, full_matrices=False)
    signal = left[:, :3] * strengths[:3] @ right[:3]
    assert (matrix - signal).std() == pytest.approx(0.1, rel=0.05)
    assert signal.std() == pytest.approx(1, abs=0.2)


def test_pairs_are_distinct_and_as_many_as_asked_for(spark: SparkSession, tmp_path: Path) -> None:
    found = written(spark, tmp_path / "some")
    assert len(found) == len(found[["user", "item"]].drop_duplicates()) == 30_000
    assert (found["user"].min(), found["user"].max()) == (0, 299)
    assert pd.to_datetime(found["timestamp"], unit="s").dt.year.unique().tolist() == [2024]
    assert found.groupby("user").size().unique().tolist() == [100]


def test_skew_makes_a_few_users_and_items_popular(spark: SparkSession, tmp_path: Path) -> None:
    found = written(spark, tmp_path / "skewed", ratings=3000, skew=1)
    assert len(found) == 3000
    for column in ("user", "item"):
        sizes = found.groupby(column).size().sort_values(ascending=False)
        assert sizes.iloc[:10].sum() > 0.25 * 3000
    assert found.groupby("user").size().idxmax() != 0


def test_partitions_change_nothing_and_the_seed_everything(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_USERS", 50)
    expected = written(spark, tmp_path / "a", ratings=2000)
    monkeypatch.setattr(module, "file_count", lambda size: 1)
    pd.testing.assert_frame_equal(written(spark, tmp_path / "b", ratings=2000), expected)
    assert not written(spark, tmp_path / "c", ratings=2000, seed=5)["rating"].equals(expected["rating"])


@pytest.mark.parametrize(
    ("option", "value"), [("ratings", 60_001), ("users", 0), ("items", 2**31), ("rank", 0), ("noise", -1), ("skew", -1)]
)
def test_numbers_out_of_range_are_refused(spark: SparkSession, tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{option}: "):
        write_ratings(spark, str(tmp_path / "set"), **(SIZES | {option: value}))
    assert list(tmp_path.iterdir()) == []
