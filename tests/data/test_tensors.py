"""Stored tensors become float32, row by row, and what is none says why."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, seed
from hypothesis import strategies as st
from petastorm.codecs import CompressedNdarrayCodec, NdarrayCodec, ScalarCodec
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row
from pyspark.sql import SparkSession
from pyspark.sql.types import IntegerType

from image_data import as_npy, as_uri, write_table
from insitu.data.columns import TensorColumn, find_tensor
from insitu.data.dataset import open_dataset
from insitu.data.readers import READERS
from insitu.data.tensors import BadTensor, read_tensor, read_tensors
from insitu.errors import UserError
from tensor_data import ARRAYS, DTYPES, FLOATS, INTEGERS, LISTED, SHAPE, column, extremes

SEED = 1711


@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS], ids=str)
@pytest.mark.parametrize("listed", LISTED)
def test_lists_of_every_type_give_their_values(tmp_path: Path, kind: pa.DataType, listed: str) -> None:
    values = extremes(kind.to_pandas_dtype())
    path = write_table(tmp_path / "1.parquet", {"tensor": column(values, kind, listed)})
    [batch] = READERS["pyarrow"]().batches(path, 0, ["tensor"])
    tensors, faults = read_tensors(batch.column(0), shape=SHAPE)
    assert tensors.dtype == np.float32 and faults == {}
    np.testing.assert_array_equal(tensors, values.astype(np.float32))


@pytest.mark.parametrize("stored", ARRAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_type_give_their_values(stored: str, dtype: str) -> None:
    values = extremes(dtype)
    tensors, faults = read_tensors(pa.array([ARRAYS[stored](tensor) for tensor in values]), shape=SHAPE)
    assert tensors.dtype == np.float32 and faults == {}
    np.testing.assert_array_equal(tensors, values.astype(np.float32))


def test_a_window_is_a_map_of_one_channel() -> None:
    tensors, _ = read_tensors(pa.array([[1, 2, 3, 4, 5, 6]]), shape=(3, 2))
    np.testing.assert_array_equal(tensors, [[[[1], [2]], [[3], [4]], [[5], [6]]]])


numbers = st.floats(width=32) | st.integers(-9, 9).map(float) | st.none()
lists = st.lists(numbers, min_size=4, max_size=4)
flat_rows = st.none() | lists | st.lists(numbers, max_size=6)
inner = st.none() | st.lists(numbers, min_size=2, max_size=2) | st.lists(numbers, max_size=3)
nested_rows = st.none() | st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=2, max_size=2) | st.lists(inner)


def plainly(row: Any) -> np.ndarray | None:
    """A row of shape (2, 2) as the definition has it; None where it is bad."""
    try:
        values = np.array(row, np.float32)
    except (TypeError, ValueError):
        return None
    fits = values.shape in ((4,), (2, 2)) and np.isfinite(values).all()
    return values.reshape(2, 2, 1) if fits else None


@seed(SEED)
@given(
    st.one_of(
        st.tuples(st.lists(flat_rows), st.sampled_from([pa.list_(pa.float32()), pa.large_list(pa.float64())])),
        st.tuples(st.lists(st.none() | lists), st.just(pa.list_(pa.float32(), 4))),
        st.tuples(st.lists(nested_rows), st.just(pa.list_(pa.list_(pa.float32())))),
    ),
    st.integers(0, 3),
)
def test_rows_are_read_each_on_its_own(rows: tuple[list[Any], pa.DataType], start: int) -> None:
    """Wherever the column begins within a longer one, and whatever its neighbours hold."""
    values, kind = rows
    tensors, faults = read_tensors(pa.array(values, kind).slice(start), shape=(2, 2))
    expected = [plainly(row) for row in values[start:]]
    assert len(tensors) == len(expected)
    assert sorted(faults) == [number for number, tensor in enumerate(expected) if tensor is None]
    for tensor, wanted in zip(tensors, expected, strict=True):
        np.testing.assert_array_equal(tensor, np.zeros((2, 2, 1)) if wanted is None else wanted)


BAD: list[tuple[Any, Any, str]] = [
    (pa.list_(pa.float32()), None, "tensor is null"),
    (pa.list_(pa.float32()), [1, 2, 3], "list of 3, expected 4"),
    (pa.list_(pa.float32()), [], "list of 0, expected 4"),
    (pa.list_(pa.float32()), [1, 2, None, 4], "number 2 is null"),
    (pa.list_(pa.float32()), [1, float("nan"), 3, 4], "number 1 is nan"),
    (pa.list_(pa.float32()), [1, 2, 3, float("-inf")], "number 3 is -inf"),
    (pa.list_(pa.float64()), [1e39, 2, 3, 4], "number 0 is inf"),
    (pa.list_(pa.int64()), [1, None, 2**60 + 1, 4], "number 1 is null"),
    (pa.list_(pa.list_(pa.float32())), [[1, 2], [3]], "list of 1, expected 2"),
    (pa.list_(pa.list_(pa.float32())), [[1, 2, 3], [4]], "list of 3, expected 2"),
    (pa.binary(), None, "tensor is null"),
    (pa.binary(), b"text", "not a NumPy array: 4 bytes starting with b'text'"),
    (pa.binary(), as_npy(np.zeros((2, 2)))[:-1], "damaged NumPy array: "),
    (pa.binary(), as_npy(np.zeros((4, 1))), "array of shape (4, 1), expected (2, 2)"),
    (pa.binary(), as_npy(np.zeros((2, 2), bool)), "array of bool, expected floats or integers"),
    (pa.binary(), as_npy(np.array([[1, 2], [np.nan, 4]])), "number 2 is nan"),
    (pa.binary(), as_npy(np.array([{}], object)), "damaged NumPy array: "),
]


@pytest.mark.parametrize(("kind", "value", "reason"), BAD)
def test_bad_rows_say_why_and_leave_the_others_readable(kind: pa.DataType, value: Any, reason: str) -> None:
    good: Any = {"list<item: list": [[1, 2], [3, 4]], "binary": as_npy(np.array([1, 2, 3, 4]))}
    other = good.get(str(kind).split("<item: float")[0], [1, 2, 3, 4])
    tensors, faults = read_tensors(pa.array([other, value, other], kind), shape=(2, 2))
    assert list(faults) == [1] and faults[1].startswith(reason)
    np.testing.assert_array_equal(tensors[:, :, :, 0], [[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[1, 2], [3, 4]]])


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3, 4],
        (1.0, 2.0, 3.0, 4.0),
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]], np.uint8),
        np.array([1.0, 2.0, 3.0, 4.0]),
        np.array([np.array([1.0, 2.0]), np.array([3.0, 4.0]), None], object)[:2],
        as_npy(np.array([[1, 2], [3, 4]])),
        bytearray(as_npy(np.array([1, 2, 3, 4]))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_value_is_read_as_a_column_is(value: Any) -> None:
    tensor = read_tensor(value, shape=(2, 2))
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor, [[[1], [2]], [[3], [4]]])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null, expected a list of numbers, an array or its bytes"),
        ("text", "string, expected a list of numbers"),
        ([True, False, True, True], "list<item: bool>, expected a list of numbers"),
        ([1, "two"], "no list of numbers: "),
        ([[[1, 2], [3, 4]]], "lists 3 deep, expected 1 or 2"),
        ([1, 2], "list of 2, expected 4"),
        (np.zeros((2, 3)), r"array of shape \(2, 3\), expected \(2, 2\)"),
        (np.zeros((2, 2), complex), "array of complex128, expected floats or integers"),
        (np.full((2, 2), np.inf), "number 0 is inf"),
    ],
    ids=str,
)
def test_one_value_that_is_no_tensor_says_why(value: Any, reason: str) -> None:
    with pytest.raises(BadTensor, match=reason):
        read_tensor(value, shape=(2, 2))


LIST, NESTED = pa.list_(pa.float32()), pa.list_(pa.list_(pa.list_(pa.int8())))


def test_the_only_column_the_named_one_or_the_usual_one_is_taken() -> None:
    assert find_tensor(pa.schema({"a": LIST, "b": pa.string()}), shape=SHAPE, name=None) == TensorColumn("a", "list")
    assert find_tensor(pa.schema({"a": pa.binary()}), shape=SHAPE, name=None) == TensorColumn("a", "ndarray")
    several = pa.schema({"tensor": NESTED, "image": pa.binary(), "labels": LIST})
    assert find_tensor(several, shape=SHAPE, name=None) == TensorColumn("tensor", "list")
    assert find_tensor(several, shape=SHAPE, name="image").form == "ndarray"
    assert find_tensor(pa.schema({"a": LIST, "b": LIST}), shape=SHAPE, name=None, exclude=["a"]).name == "b"


@pytest.mark.parametrize(
    ("columns", "name", "message"),
    [
        ({"id": pa.int64()}, None, "data.tensor_column: no tensor in columns id; tensors are lists of floats"),
        ({"id": pa.list_(pa.string())}, "id", "data.tensor_column: id is list<item: string>, no tensor; tensors are"),
        ({"on": pa.list_(pa.bool_())}, None, "no tensor in columns on"),
        ({"window": LIST}, "windov", "no column windov; did you mean window?"),
        ({"a": LIST, "b": pa.binary()}, None, "several columns may be tensors: a, b; set it to one of them"),
        ({"a": pa.list_(LIST)}, None, "lists 2 deep, expected 1 or 3; flatten the lists, or nest them as data"),
    ],
)
def test_a_missing_or_unclear_tensor_column_is_named(columns: dict, name: str | None, message: str) -> None:
    with pytest.raises(UserError) as error:
        find_tensor(pa.schema(columns), shape=SHAPE, name=name)
    assert message in str(error.value)


@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("codec", [NdarrayCodec(), CompressedNdarrayCodec()], ids=lambda codec: type(codec).__name__)
def test_petastorms_arrays_are_tensors(spark: SparkSession, tmp_path: Path, codec: Any, reader: str) -> None:
    values = np.random.default_rng(1).normal(size=(4, *SHAPE)).astype(np.float32)
    fields = [
        UnischemaField("id", np.int32, (), ScalarCodec(IntegerType()), False),
        UnischemaField("pileup", np.float32, SHAPE, codec, False),
    ]
    schema = Unischema("Pileups", fields)
    rows = [dict_to_spark_row(schema, {"id": number, "pileup": array}) for number, array in enumerate(values)]
    with materialize_dataset(spark, as_uri(tmp_path), schema, row_group_size_mb=1):
        spark.createDataFrame(rows, schema.as_spark_schema()).coalesce(1).write.mode("overwrite").parquet(
            as_uri(tmp_path)
        )
    dataset = open_dataset(as_uri(tmp_path))
    found = find_tensor(dataset.schema, shape=SHAPE, name=None)
    assert found == TensorColumn("pileup", "ndarray")
    [group] = dataset.row_groups
    [batch] = READERS[reader]().batches(group.path, group.index, ["pileup"])
    tensors, faults = read_tensors(batch.column(0), shape=SHAPE)
    assert faults == {}
    np.testing.assert_array_equal(tensors, values)
