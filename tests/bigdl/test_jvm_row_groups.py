"""The JVM reads Parquet's rows, images and labels as Python does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from image_conventions import CONVENTIONS, PICTURES
from image_data import as_npy, as_npz, as_uri, encode, numbered, write_table
from image_files import ALPHA, GRAY
from jvm_data import Jvm

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
@pytest.mark.parametrize(("write", "form"), CONVENTIONS)
def test_every_image_convention_gives_its_pictures(
    jvm: Jvm, tmp_path: Path, write: Callable[[SparkSession, Path], None], form: str
) -> None:
    """In files that pyarrow wrote, and in those that Spark did."""
    folder = tmp_path / "stored"
    folder.mkdir()
    write(jvm.spark, folder)
    stored = next(folder.glob("*.parquet"))
    table = pq.read_table(stored)
    [name] = set(table.schema.names) & {"image", "content", "scan"}
    labelled = jvm.spark.read.parquet(str(stored)).withColumn("label", F.monotonically_increasing_id())
    labelled.write.parquet(str(tmp_path / "labelled"))
    source = jvm.source(input=name, inputForm=form, height=6, width=5, channels=3)
    for path in (
        write_table(tmp_path / "labelled.parquet", table.append_column("label", pa.array(range(5)))),
        as_uri(next((tmp_path / "labelled").glob("*.parquet"))),
    ):
        images, labels = jvm.in_order(jvm.shard((path, 0, range(5))), source)
        np.testing.assert_array_equal(images, np.stack(PICTURES).transpose(0, 3, 1, 2), err_msg=path)
        np.testing.assert_array_equal(labels[:, 0], range(5), err_msg=path)


@pytest.mark.parametrize("channels", [1, 4])
def test_sparks_gray_and_transparent_images_are_read(jvm: Jvm, tmp_path: Path, channels: int) -> None:
    pixels = GRAY[:, :, None] if channels == 1 else ALPHA
    blue_first = pixels if channels == 1 else pixels[:, :, [2, 1, 0, 3]]
    struct = {"origin": "", "height": 61, "width": 47, "nChannels": channels, "mode": 0, "data": blue_first.tobytes()}
    path = write_table(tmp_path / "1.parquet", {"image": [struct], "label": [0]})
    source = jvm.source(inputForm="spark_image", height=61, width=47, channels=min(channels, 3))
    images, _ = jvm.in_order(jvm.shard((path, 0, [0])), source)
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0), pixels[:, :, :3])


NUMBERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.bool_()]
HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]]


def labels_of(jvm: Jvm, path: str, **source: Any) -> np.ndarray:
    return jvm.in_order(jvm.shard((path, 0, range(5))), jvm.source(**source))[1]


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
def test_integer_labels_of_every_type(jvm: Jvm, tmp_path: Path, kind: pa.DataType) -> None:
    values = [1, 0, 1, 1, 0] if kind == pa.bool_() else [3, 0, 7, 1, 100]
    columns = numbered(0, 5) | {"label": pa.array(values).cast(kind)}
    labels = labels_of(jvm, write_table(tmp_path / "1.parquet", columns))
    np.testing.assert_array_equal(labels[:, 0], values)


@pytest.mark.parametrize("kind", [*NUMBERS, pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("listed", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 3)])
def test_lists_of_every_type(
    jvm: Jvm, tmp_path: Path, kind: pa.DataType, listed: Callable[[pa.DataType], pa.DataType]
) -> None:
    values = pa.array([[bool(n) if kind == pa.bool_() else n for n in row] for row in HOT])
    path = write_table(
        tmp_path / "1.parquet", numbered(0, 5) | {"label": values.cast(pa.list_(kind)).cast(listed(kind))}
    )
    np.testing.assert_array_equal(labels_of(jvm, path, labelForm="multi_hot", labelWidth=3), HOT)


@pytest.mark.parametrize("kind", ["array<int>", "array<boolean>", "array<double>", "array<byte>"])
def test_lists_that_spark_wrote(jvm: Jvm, tmp_path: Path, kind: str) -> None:
    payload = encode(np.zeros((8, 8), np.uint8))
    table = jvm.spark.createDataFrame([(payload, row) for row in HOT], "image binary, label array<int>").coalesce(1)
    table.withColumn("label", F.col("label").cast(kind)).write.parquet(str(tmp_path / "spark"))
    path = as_uri(next((tmp_path / "spark").glob("*.parquet")))
    np.testing.assert_array_equal(labels_of(jvm, path, labelForm="multi_hot", labelWidth=3), HOT)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "<i4", ">i4", "u8", "<f2", ">f4", "f8"])
def test_petastorms_labels_of_every_type(jvm: Jvm, tmp_path: Path, dtype: str) -> None:
    for stored in (as_npy, lambda array: as_npz(label=array)):
        path = write_table(
            tmp_path / "1.parquet", numbered(0, 5) | {"label": [stored(np.array(row, dtype)) for row in HOT]}
        )
        np.testing.assert_array_equal(labels_of(jvm, path, labelForm="multi_hot", labelWidth=3), HOT)


PARQUET = [
    *({"compression": name} for name in ("none", "snappy", "gzip", "zstd", "lz4")),
    {"data_page_version": "2.0"},
    {"data_page_version": "2.0", "compression": "none"},
    {"use_dictionary": False},
    {"use_dictionary": False, "column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY"}},
    {"data_page_size": 100, "write_batch_size": 3},
    {"data_page_size": 100, "write_batch_size": 3, "data_page_version": "2.0", "write_page_index": True},
]


@pytest.mark.parametrize("options", PARQUET, ids=str)
def test_parquet_however_it_is_written(jvm: Jvm, tmp_path: Path, options: dict[str, Any]) -> None:
    rows = numbered(0, 90)
    hot = [[n % 2, 1 - n % 2, 1] for n in range(90)]
    pq.write_table(pa.table(rows | {"label": hot}), tmp_path / "1.parquet", row_group_size=40, **options)
    path = as_uri(tmp_path / "1.parquet")
    source = jvm.source(labelForm="multi_hot", labelWidth=3)
    images, labels = jvm.in_order(jvm.shard((path, 1, range(1, 40, 3)), (path, 0, [0, 39]), (path, 2, [9])), source)
    expected = [*range(41, 80, 3), 0, 39, 89]
    np.testing.assert_array_equal(images[:, 0, 0, 0], expected)
    np.testing.assert_array_equal(labels, [hot[n] for n in expected])


def test_parquet_of_a_writer_that_names_no_version(jvm: Jvm, tmp_path: Path) -> None:
    path = write_table(tmp_path / "1.parquet", numbered(0, 5))
    file = Path(path.removeprefix("file://"))
    content = file.read_bytes()
    file.write_bytes(content.replace(b"parquet-cpp-arrow version", b"a writer without a number"))
    assert file.read_bytes() != content
    np.testing.assert_array_equal(labels_of(jvm, path)[:, 0], range(5))


def test_a_file_of_any_name_is_read(jvm: Jvm, tmp_path: Path) -> None:
    path = write_table(tmp_path / "a b" / "50%25 {x} [y] #1 ü.parquet", numbered(0, 5))
    np.testing.assert_array_equal(labels_of(jvm, path)[:, 0], range(5))


def test_a_plan_is_read_by_rank(jvm: Jvm, tmp_path: Path) -> None:
    columns = {
        "worker": pa.array([1, 0, 1, 0], pa.int32()),
        "position": pa.array([1, 0, 0, 1], pa.int32()),
        "path": ["file:///a b", "file:///c%20", "file:///d", "file:///a b"],
        "row_group": pa.array([4, 3, 2, 1], pa.int32()),
        "offsets": pa.array([[1, 2], [5], [0, 3, 4], [9]], pa.list_(pa.int32())),
    }
    uri = write_table(tmp_path / "plan [1].parquet", pa.table(columns), row_group_rows=3)
    shards = jvm.classes.Shards.read(jvm.spark._jsparkSession, uri)
    found = [[(piece.path(), piece.rowGroup(), list(piece.offsets())) for piece in shard.pieces()] for shard in shards]
    assert found == [
        [("file:///c%20", 3, [5]), ("file:///a b", 1, [9])],
        [("file:///d", 2, [0, 3, 4]), ("file:///a b", 4, [1, 2])],
    ]
    assert [shard.rows() for shard in shards] == [2, 5]


def test_a_source_comes_from_json(jvm: Jvm) -> None:
    json = (
        '{"input": "image", "input_form": "encoded", "label": "label", "label_form": "multi_hot", "label_width": 3,'
        ' "height": 8, "width": 9, "channels": 1}'
    )
    assert jvm.classes.Source.parse(json).equals(jvm.source(labelForm="multi_hot", labelWidth=3, width=9))
