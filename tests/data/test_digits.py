"""The real digits as a data set."""

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from sklearn.datasets import load_digits

from insitu.data.decode import decode
from insitu.data.digits import write_digits
from insitu.errors import UserError

SEED = 11


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    output = tmp_path_factory.mktemp("digits") / "set"
    return write_digits(spark, str(output), seed=SEED), output


def test_the_pixels_and_labels_are_scikit_learns(spark: SparkSession, written: tuple[dict, Path]) -> None:
    rows = spark.read.parquet(str(written[1])).orderBy("id").collect()
    pixels = np.stack([decode(bytes(row["image"]), size=None, channels=1)[:, :, 0] for row in rows])
    digits = load_digits()
    np.testing.assert_array_equal(np.round(pixels * (16 / 255)), digits.images)
    assert pixels.max() == 255
    np.testing.assert_array_equal([row["label"] for row in rows], digits.target)


def test_a_fifth_of_every_class_is_held_out(spark: SparkSession, written: tuple[dict, Path]) -> None:
    summary, output = written
    assert (summary["rows"], summary["train"], summary["validation"]) == (1797, 1437, 360)
    rows = spark.read.parquet(str(output))
    assert rows.schema["label"].metadata == {"classes": list("0123456789")}
    held_out = rows.selectExpr("label", "int(split = 'validation') AS held_out").groupBy("label").avg("held_out")
    assert all(0.19 < share < 0.21 for _, share in held_out.select("label", "avg(held_out)").collect())


def test_the_seed_decides_the_split(spark: SparkSession, written: tuple[dict, Path], tmp_path: Path) -> None:
    def split(path: Path) -> list:
        return spark.read.parquet(str(path)).orderBy("id").select("split").collect()

    write_digits(spark, str(tmp_path / "same"), seed=SEED)
    write_digits(spark, str(tmp_path / "other"), seed=SEED + 1)
    assert split(tmp_path / "same") == split(written[1])
    assert split(tmp_path / "other") != split(written[1])


def test_an_existing_output_is_refused(spark: SparkSession, written: tuple[dict, Path]) -> None:
    with pytest.raises(UserError, match=r"OUT: .* exists"):
        write_digits(spark, str(written[1]), seed=SEED)
