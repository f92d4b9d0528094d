"""Image and label columns are recognised by their shape, and read row by row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from petastorm.codecs import NdarrayCodec
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row
from pyspark.sql import SparkSession

from image_conventions import CONVENTIONS, PICTURES
from image_data import as_npy, as_npz, as_uri, encode, picture
from insitu.data.columns import BadLabel, find_image, find_label
from insitu.data.dataset import open_dataset
from insitu.data.decode import BadImage, decode
from insitu.data.readers import READERS
from insitu.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:petastorm")


@pytest.mark.parametrize(("write", "form"), CONVENTIONS)
def test_every_convention_is_recognised_and_gives_the_same_pixels(
    spark: SparkSession, tmp_path: Path, write: Callable[[SparkSession, Path], None], form: str
) -> None:
    write(spark, tmp_path)
    dataset = open_dataset(as_uri(tmp_path))
    image = find_image(dataset.schema, name=None)
    assert image.form == form
    payloads = [
        payload
        for group in dataset.row_groups
        for batch in READERS["pyarrow"]().batches(group.path, group.index, [image.name])
        for payload in image.payloads(batch)
    ]
    np.testing.assert_array_equal([decode(payload, size=None, channels=3) for payload in payloads], PICTURES)


SPARK_IMAGE = pa.struct(
    {
        "origin": pa.string(),
        **dict.fromkeys(("height", "width", "nChannels", "mode"), pa.int32()),
        "data": pa.binary(),
    }
)


def one_column(values: list, kind: pa.DataType, name: str = "image") -> pa.RecordBatch:
    return pa.record_batch([pa.array(values, kind)], names=[name])


@pytest.mark.parametrize("shape", [(6, 5, 1), (6, 5, 3), (6, 5, 4)])
def test_spark_images_have_one_three_or_four_channels(shape: tuple[int, int, int]) -> None:
    pixels = picture(7, shape=shape)
    stored = pixels[:, :, [2, 1, 0, 3][: shape[2]]] if shape[2] > 1 else pixels
    row = {"height": 6, "width": 5, "nChannels": shape[2], "mode": 0, "data": stored.tobytes()}
    batch = one_column([row, None, row | {"data": b""}, row | {"data": b"short"}], SPARK_IMAGE)
    good, null, empty, short = find_image(batch.schema, name=None).payloads(batch)
    np.testing.assert_array_equal(decode(good, size=None, channels=3), np.broadcast_to(pixels[:, :, :3], (6, 5, 3)))
    assert (null, empty) == (None, None)
    with pytest.raises(BadImage, match="not an image"):
        decode(short, size=None, channels=3)


@pytest.mark.parametrize(
    "sizes",
    [
        *({"height": None}, {"width": None}, {"nChannels": None}, {"nChannels": 2, "width": 3}),
        *({"height": -1, "width": -2}, {"height": -1}, {"height": 2**31 - 1, "width": 2**31 - 1}),
    ],
    ids=str,
)
def test_a_spark_image_of_impossible_sizes_is_no_image(sizes: dict[str, int | None]) -> None:
    row = {"height": 1, "width": 2, "nChannels": 3, "mode": 16, "data": b"pixels"} | sizes
    batch = one_column([row], SPARK_IMAGE)
    (payload,) = find_image(batch.schema, name=None).payloads(batch)
    with pytest.raises(BadImage):
        decode(payload, size=None, channels=3)


def test_null_images_are_none_in_every_layout() -> None:
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for batch in (
        one_column([b"x", None], pa.binary()),
        one_column([{"bytes": b"x", "path": "a"}, None], struct),
        one_column([{"bytes": b"x", "path": "a"}, {"bytes": None, "path": "b"}], struct),
    ):
        assert find_image(batch.schema, name=None).payloads(batch) == [b"x", None]


@pytest.mark.parametrize(
    ("columns", "name", "message"),
    [
        ({"id": pa.int64()}, None, "data.image_column: no image in columns id; images are binary"),
        ({"id": pa.int64()}, "id", "data.image_column: id is int64, no image; images are binary"),
        ({"image": pa.binary()}, "imgae", "no column imgae; did you mean image?"),
        ({"image": pa.binary()}, "zzz", "no column zzz; the columns are image"),
        ({"a": pa.binary(), "b": pa.binary()}, None, "several columns may be images: a, b; set it to one of them"),
        ({"a": pa.struct({"bytes": pa.binary()})}, None, "no image in columns a"),
    ],
)
def test_a_missing_or_unclear_image_column_is_named(columns: dict, name: str | None, message: str) -> None:
    with pytest.raises(UserError) as error:
        find_image(pa.schema(columns), name=name)
    assert message in str(error.value)


def test_a_name_or_the_usual_name_or_an_excluded_mask_settles_which_column_it_is() -> None:
    schema = pa.schema({"image": pa.binary(), "thumb": pa.binary()})
    assert find_image(schema, name=None).name == "image"
    assert find_image(schema, name="thumb").name == "thumb"
    assert find_image(pa.schema({"a": pa.binary(), "b": pa.binary()}), name=None, exclude=["a"]).name == "b"


MASK = picture(3, shape=(4, 4))

LABELS: list[Any] = [
    ("integer", pa.int64(), [3, -1], [np.int64(3), np.int64(-1)]),
    ("integer", pa.uint8(), [255], [np.int64(255)]),
    ("integer", pa.bool_(), [True, False], [np.int64(1), np.int64(0)]),
    ("float", pa.float64(), [0.5], [np.float32(0.5)]),
    ("multi_hot", pa.list_(pa.int8()), [[0, 1, 1]], [np.array([0, 1, 1], np.float32)]),
    ("multi_hot", pa.list_(pa.bool_()), [[False, True]], [np.array([0, 1], np.float32)]),
    ("multi_hot", pa.large_list(pa.float32()), [[1, 0]], [np.array([1, 0], np.float32)]),
    ("multi_hot", pa.list_(pa.int8(), 2), [[1, 0]], [np.array([1, 0], np.float32)]),
    ("mask", pa.binary(), [encode(MASK)], [MASK]),
]


@pytest.mark.parametrize(("form", "kind", "values", "expected"), LABELS, ids=lambda value: str(value)[:20])
def test_labels_are_recognised_and_read(form: str, kind: pa.DataType, values: list, expected: list) -> None:
    batch = one_column(values, kind, "labels")
    label = find_label(batch.schema, name=None)
    assert label.form == form
    for read, wanted in zip(label.read(batch), expected, strict=True):
        assert isinstance(read, np.ndarray) and read.dtype == wanted.dtype
        np.testing.assert_array_equal(read, wanted)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (pa.int64(), None, "label is null"),
        (pa.uint64(), 2**63, "label 9223372036854775808 is too large"),
        (pa.bool_(), None, "label is null"),
        (pa.float32(), None, "label is null"),
        (pa.float32(), float("nan"), "label is nan"),
        (pa.float32(), float("inf"), "label is inf"),
        (pa.list_(pa.int8()), None, "label is null"),
        (pa.list_(pa.int8()), [1, None], "label is null"),
        (pa.list_(pa.int8()), [0, 2], "label [0, 2] is no list of 0 and 1"),
        (pa.list_(pa.float32()), [0.0, float("nan")], "label [0.0, nan] is no list of 0 and 1"),
        (pa.binary(), None, "mask: no bytes"),
        (pa.binary(), b"text", "mask: not an image: 4 bytes starting with b'text'"),
    ],
)
def test_bad_labels_say_why_and_leave_the_others_readable(kind: pa.DataType, value: object, reason: str) -> None:
    good = {"list": [1, 0], "binary": encode(MASK), "bool": True}.get(str(kind).split("<")[0], 1)
    batch = one_column([value, good], kind, "label")
    bad, read = find_label(batch.schema, name="label").read(batch)
    assert isinstance(bad, BadLabel) and str(bad) == reason
    assert isinstance(read, np.ndarray)


def test_multi_hot_labels_of_petastorm_are_arrays(spark: SparkSession, tmp_path: Path) -> None:
    schema = Unischema("Labels", [UnischemaField("labels", np.uint8, (3,), NdarrayCodec(), False)])
    with materialize_dataset(spark, as_uri(tmp_path), schema, row_group_size_mb=1):
        rows = [dict_to_spark_row(schema, {"labels": np.array([0, 1, 1], np.uint8)})]
        spark.createDataFrame(rows, schema.as_spark_schema()).write.mode("overwrite").parquet(as_uri(tmp_path))
    label = find_label(open_dataset(as_uri(tmp_path)).schema, name=None)
    good = as_npy(np.array([0, 1, 1], np.uint8))
    others = [as_npz(labels=np.array([1, 0])), good[:-1], None, as_npy(np.array(1)), as_npy(np.array(["1"]))]
    batch = one_column([good, *others], pa.binary(), "labels")
    plain, compressed, cut, null, scalar, text = label.read(batch)
    assert isinstance(plain, np.ndarray) and plain.tolist() == [0, 1, 1]
    assert isinstance(compressed, np.ndarray) and compressed.tolist() == [1, 0]
    assert isinstance(cut, BadLabel) and str(cut).startswith("label: damaged NumPy array")
    assert isinstance(null, BadLabel) and str(null) == "label is null"
    assert isinstance(scalar, BadLabel) and str(scalar) == "label: array of int64 [], expected numbers [K]"
    assert isinstance(text, BadLabel) and str(text) == "label: array of <U1 [1], expected numbers [K]"


@pytest.mark.parametrize(
    ("columns", "name", "message"),
    [
        ({"image": pa.binary()}, None, "data.label_column: no column label or labels among image; name the label"),
        ({"diagnosis": pa.int8()}, "diagnose", "no column diagnose; did you mean diagnosis?"),
        ({"label": pa.string()}, None, "data.label_column: label is string, expected an integer, a list of 0 and 1"),
        ({"label": pa.list_(pa.string())}, None, "label is list<item: string>, expected an integer"),
        ({"label": pa.list_(pa.list_(pa.int8()))}, None, "expected an integer, a list of 0 and 1"),
    ],
)
def test_a_missing_or_unusable_label_column_is_named(columns: dict, name: str | None, message: str) -> None:
    with pytest.raises(UserError) as error:
        find_label(pa.schema(columns), name=name)
    assert message in str(error.value)
