"""What the footers of a Parquet dataset say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from image_data import as_uri, write_table
from insitu.data.dataset import RowGroup, open_dataset
from insitu.errors import UserError

ROWS = {"image": [b"a", b"bb", b"ccc"], "label": [0, 1, 0]}


def test_row_groups_come_in_file_order_with_their_sizes(tmp_path: Path) -> None:
    second = write_table(tmp_path / "b.parquet", ROWS)
    first = write_table(tmp_path / "a.parquet", ROWS, row_group_rows=2)
    dataset = open_dataset(as_uri(tmp_path))
    places = [(group.path, group.index, group.rows) for group in dataset.row_groups]
    assert places == [(first, 0, 2), (first, 1, 1), (second, 0, 3)]
    footer = pq.read_metadata(tmp_path / "b.parquet").row_group(0)
    assert dataset.row_groups[2].bytes == footer.total_byte_size
    assert dataset.rows == 6
    assert dataset.row_bytes == sum(group.bytes for group in dataset.row_groups) / 6
    assert dataset.schema.names == ["image", "label"]


def test_one_file_is_a_dataset(tmp_path: Path) -> None:
    uri = write_table(tmp_path / "only", ROWS)
    dataset = open_dataset(uri)
    assert [group.path for group in dataset.row_groups] == [uri]


def test_a_file_of_any_name_is_data_as_in_spark(tmp_path: Path) -> None:
    """Hive names a table's files 000000_0."""
    uri = write_table(tmp_path / "000000_0", ROWS)
    assert [group.path for group in open_dataset(as_uri(tmp_path)).row_groups] == [uri]


def test_partition_folders_are_columns_and_hidden_entries_are_no_data(tmp_path: Path) -> None:
    for name in ("split=train/site=a/1.parquet", "split=validation/site=b/1.parquet"):
        write_table(tmp_path / name, ROWS)
    for name in ("_quarantine/1.parquet", "split=train/.hidden.parquet", "_metadata.parquet", ".tmp/1.parquet"):
        write_table(tmp_path / name, {"other": [1]})
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "split=train/1.parquet.crc").touch()
    dataset = open_dataset(as_uri(tmp_path))
    partitions = [group.partition for group in dataset.row_groups]
    assert partitions == [{"split": "train", "site": "a"}, {"split": "validation", "site": "b"}]
    assert dataset.partition_columns == {"split", "site"}


def test_a_hidden_or_partition_like_folder_above_the_dataset_means_nothing(tmp_path: Path) -> None:
    write_table(tmp_path / "_work/run=3/data/1.parquet", ROWS)
    dataset = open_dataset(as_uri(tmp_path / "_work/run=3/data"))
    assert dataset.partition_columns == set()


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    write_table(tmp_path / "here/1.parquet", ROWS)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here = open_dataset(as_uri(tmp_path / "here")).fingerprint
    assert open_dataset(as_uri(tmp_path / "there")).fingerprint == here
    write_table(tmp_path / "there/1.parquet", ROWS | {"image": [b"a", b"bb", b"longer"]})
    longer = open_dataset(as_uri(tmp_path / "there")).fingerprint
    write_table(tmp_path / "there/1.parquet", ROWS, row_group_rows=2)
    cut = open_dataset(as_uri(tmp_path / "there")).fingerprint
    write_table(tmp_path / "there/2.parquet", ROWS)
    more = open_dataset(as_uri(tmp_path / "there")).fingerprint
    assert len({here, longer, cut, more}) == 4


def truncated(folder: Path) -> None:
    write_table(folder / "1.parquet", ROWS)
    (folder / "1.parquet").write_bytes((folder / "1.parquet").read_bytes()[:-20])


def emptied(folder: Path) -> None:
    (folder / "1.parquet").touch()


def no_rows(folder: Path) -> None:
    write_table(folder / "1.parquet", pa.table(ROWS)[:0])


def other_columns(folder: Path) -> None:
    write_table(folder / "1.parquet", ROWS)
    write_table(folder / "2.parquet", ROWS | {"label": ["x", "y", "z"]})


def nothing(folder: Path) -> None:
    (folder / "_SUCCESS").touch()


def no_parquet(folder: Path) -> None:
    (folder / "labels.csv").write_text("image,label")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "1.parquet is no whole Parquet file"),
        (emptied, "1.parquet is no whole Parquet file"),
        (no_rows, "holds no row; check the job that wrote it"),
        (other_columns, "2.parquet has other columns than .*1.parquet; keep one dataset in one directory"),
        (no_parquet, "labels.csv is no whole Parquet file"),
        (nothing, "holds no Parquet file; name a directory such as"),
        (Path.rmdir, "does not exist; name a Parquet directory or file"),
    ],
)
def test_what_is_no_dataset_is_refused_in_one_line(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(UserError, match=f"^--data: .*{message}") as error:
        open_dataset(as_uri(folder))
    assert "\n" not in str(error.value)


def test_files_that_spark_left_empty_are_passed_over(spark: SparkSession, tmp_path: Path) -> None:
    rows = spark.createDataFrame([(b"a", 1)], "image binary, label int")
    rows.repartition(3).write.mode("append").parquet(as_uri(tmp_path))
    write_table(tmp_path / "empty.parquet", pq.read_table(tmp_path)[:0])
    assert open_dataset(as_uri(tmp_path)).rows == 1


def test_class_names_come_from_sparks_column_metadata(spark: SparkSession, tmp_path: Path) -> None:
    rows = spark.createDataFrame([(b"a", 1)], "image binary, label int")
    rows.withMetadata("label", {"classes": ["cat", "dog"]}).write.mode("append").parquet(as_uri(tmp_path))
    dataset = open_dataset(as_uri(tmp_path))
    assert dataset.class_names("label") == ["cat", "dog"]
    assert dataset.class_names("image") is None


def test_class_names_come_from_hugging_faces_features(tmp_path: Path) -> None:
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
        "labels": [{"dtype": "int8", "_type": "Value"}],
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    write_table(tmp_path / "1.parquet", pa.table(ROWS).replace_schema_metadata(metadata))
    dataset = open_dataset(as_uri(tmp_path))
    assert dataset.class_names("label") == ["cat", "dog"]
    assert [dataset.class_names(name) for name in ("image", "labels", "id")] == [None, None, None]


def test_a_plain_table_has_no_class_names(tmp_path: Path) -> None:
    write_table(tmp_path / "1.parquet", ROWS)
    dataset = open_dataset(as_uri(tmp_path))
    assert dataset.class_names("label") is None
    assert dataset.row_groups[0].partition == RowGroup("", 0, 0, 0).partition == {}


def test_a_row_counts_as_it_is_in_memory_however_well_the_file_is_compressed(tmp_path: Path) -> None:
    images = [bytes([value]) * 10_000 for value in range(3)]
    write_table(tmp_path / "only.parquet", ROWS | {"image": images})
    assert (tmp_path / "only.parquet").stat().st_size < 10_000
    assert 10_000 < open_dataset(as_uri(tmp_path)).row_bytes < 11_000
