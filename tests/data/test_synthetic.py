"""Synthetic X-rays as a data set: columns, split by patient, independence of Spark's partitions."""

import json
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from insitu.data import layout
from insitu.data.decode import decode
from insitu.data.synthetic import write_xrays
from insitu.data.xray import CLASSES, xray
from insitu.errors import UserError

SEED = 5


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    output = tmp_path_factory.mktemp("xrays") / "set"
    return write_xrays(spark, str(output), images=240, size=64, seed=SEED), output


def test_every_row_is_the_image_of_its_number(spark: SparkSession, written: tuple[dict, Path]) -> None:
    rows = spark.read.parquet(str(written[1])).orderBy("id").collect()
    assert [row["id"] for row in rows] == [f"xray-{index:08d}" for index in range(240)]
    for index in (0, 99, 239):
        pixels, labels = xray(index, size=64, seed=SEED)
        np.testing.assert_array_equal(decode(bytes(rows[index]["image"]), size=None, channels=1)[:, :, 0], pixels)
        assert rows[index]["labels"] == labels.tolist()


def test_no_patient_is_on_both_sides(spark: SparkSession, written: tuple[dict, Path]) -> None:
    summary, output = written
    rows = spark.read.parquet(str(output))
    assert rows.select("patient", "split").distinct().count() == rows.select("patient").distinct().count() == 60
    assert summary["train"] + summary["validation"] == summary["rows"] == 240
    assert rows.filter("split = 'validation'").count() == summary["validation"]
    assert 20 < summary["validation"] < 80


def test_the_class_names_travel_with_the_label_column(spark: SparkSession, written: tuple[dict, Path]) -> None:
    summary, output = written
    assert spark.read.parquet(str(output)).schema["labels"].metadata == {"classes": list(CLASSES)}
    footer = pq.read_schema(next(output.glob("*.parquet"))).metadata[b"org.apache.spark.sql.parquet.row.metadata"]
    fields = {field["name"]: field for field in json.loads(footer)["fields"]}
    assert fields["labels"]["metadata"]["classes"] == summary["classes"] == list(CLASSES)


def test_the_summary_counts_the_positives(written: tuple[dict, Path]) -> None:
    summary, output = written
    labels = np.array(ds.dataset(output).to_table(["labels"])["labels"].to_pylist())
    assert list(summary["positives"].values()) == labels.sum(axis=0).tolist()


def test_a_small_set_has_four_files_and_a_large_one_files_of_256_mib() -> None:
    assert layout.file_count(10) == 4
    assert layout.file_count(10 << 30) == 40


def test_row_groups_stay_small_when_rows_are_large(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "ROW_GROUP_BYTES", 1 << 20)
    rows = spark.range(0, 60, 1, 1).selectExpr(
        "id", "unhex(repeat(sha2(string(id), 512), 1600)) AS image", "0 AS label"
    )
    layout.write_dataset(rows, str(tmp_path / "set"), label="label", classes=["0"])
    footer = pq.ParquetFile(next((tmp_path / "set").glob("*.parquet"))).metadata
    sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    assert len(sizes) > 3 and max(sizes) <= 16, sizes


@pytest.mark.parametrize("partitions", [1, 7])
def test_split_and_order_do_not_depend_on_partitions(spark: SparkSession, partitions: int) -> None:
    ids = spark.range(100).selectExpr("string(id) AS id")

    def arranged(rows: DataFrame) -> list:
        split = layout.split_column(rows["id"], holdout=0.3, seed=SEED)
        return layout.shuffled(rows.withColumn("split", split), key="id", files=4, seed=SEED).collect()

    expected = arranged(ids)
    assert arranged(ids.repartition(partitions)) == expected
    assert [row["id"] for row in expected] != sorted(row["id"] for row in expected)


def test_an_existing_output_is_refused_and_kept(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=r"OUT: .*set exists; name a new directory"):
        write_xrays(spark, str(tmp_path / "set"), images=4, size=64, seed=SEED)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("option", "value"), [("images", 0), ("size", 8), ("seed", -1), ("holdout", 1.0), ("holdout", 0.0)]
)
def test_numbers_out_of_range_are_refused(spark: SparkSession, tmp_path: Path, option: str, value: float) -> None:
    arguments: dict = {"images": 4, "size": 64, "seed": SEED, "holdout": 0.5} | {option: value}
    with pytest.raises(UserError, match=f"--{option}: "):
        write_xrays(spark, str(tmp_path / "set"), **arguments)


def test_nothing_appears_where_a_split_would_be_empty(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--holdout: the .* split is left without rows"):
        write_xrays(spark, str(tmp_path / "set"), images=2, size=64, seed=SEED)
    assert list(tmp_path.iterdir()) == []
