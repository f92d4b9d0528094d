"""The JVM reads tensors as Python does, to the last bit, or says why it cannot."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from image_data import as_npy, as_uri, write_table
from insitu.data.readers import READERS
from insitu.data.tensors import read_tensors
from jvm_data import Jvm
from tensor_data import ARRAYS, DTYPES, FLOATS, INTEGERS, LISTED, SHAPE, column, extremes

TENSOR = {"input": "tensor", "height": 2, "width": 3, "channels": 2}


@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS], ids=str)
@pytest.mark.parametrize("listed", LISTED)
def test_tensors_are_pythons_to_the_last_bit(jvm: Jvm, tmp_path: Path, kind: pa.DataType, listed: str) -> None:
    values = extremes(kind.to_pandas_dtype())
    path = write_table(tmp_path / "1.parquet", {"tensor": column(values, kind, listed), "label": list(range(5))})
    [batch] = READERS["pyarrow"]().batches(path, 0, ["tensor"])
    expected, faults = read_tensors(batch.column(0), shape=SHAPE)
    assert faults == {}
    tensors, labels = jvm.in_order(jvm.shard((path, 0, range(5))), jvm.source(inputForm="list", **TENSOR))
    np.testing.assert_array_equal(tensors, expected.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(labels[:, 0], range(5))


@pytest.mark.parametrize("stored", ARRAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_pythons_to_the_last_bit(jvm: Jvm, tmp_path: Path, dtype: str, stored: str) -> None:
    payloads = [ARRAYS[stored](tensor) for tensor in extremes(dtype)]
    path = write_table(tmp_path / "1.parquet", {"tensor": payloads, "label": list(range(5))})
    expected, faults = read_tensors(pa.array(payloads), shape=SHAPE)
    assert faults == {}
    tensors, _ = jvm.in_order(jvm.shard((path, 0, range(5))), jvm.source(inputForm="ndarray", **TENSOR))
    np.testing.assert_array_equal(tensors, expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", ["array<float>", "array<double>", "array<array<float>>", "array<bigint>"])
def test_tensors_that_spark_wrote(jvm: Jvm, tmp_path: Path, kind: str) -> None:
    values = np.arange(30).reshape(5, 3, 2)
    nested = "array<array" in kind
    rows = [(window.tolist() if nested else window.ravel().tolist(), 0) for window in values]
    table = jvm.spark.createDataFrame(rows, f"tensor {'array<array<int>>' if nested else 'array<int>'}, label int")
    table.coalesce(1).withColumn("tensor", F.col("tensor").cast(kind)).write.parquet(str(tmp_path / "spark"))
    path = as_uri(next((tmp_path / "spark").glob("*.parquet")))
    source = jvm.source(input="tensor", inputForm="list", height=3, width=2)
    np.testing.assert_array_equal(jvm.in_order(jvm.shard((path, 0, range(5))), source)[0][:, 0], values)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int32(), pa.int64()], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"use_dictionary": False, "data_page_size": 100, "write_batch_size": 7},
        {"use_dictionary": False, "data_page_size": 100, "write_batch_size": 7, "data_page_version": "2.0"},
        {"data_page_size": 100, "write_batch_size": 7, "data_page_version": "2.0", "compression": "none"},
    ],
    ids=str,
)
def test_some_rows_of_lists_however_they_are_written(
    jvm: Jvm, tmp_path: Path, kind: pa.DataType, options: dict[str, Any]
) -> None:
    values = extremes(kind.to_pandas_dtype(), rows=30)
    table = pa.table({"tensor": column(values, kind, "list"), "label": list(range(30))})
    pq.write_table(table, tmp_path / "1.parquet", **options)
    rows = [0, 3, 4, 17, 29]
    shard = jvm.shard((as_uri(tmp_path / "1.parquet"), 0, rows))
    tensors, labels = jvm.in_order(shard, jvm.source(inputForm="list", **TENSOR))
    np.testing.assert_array_equal(tensors, values[rows].astype(np.float32).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(labels[:, 0], rows)


def fails(jvm: Jvm, columns: dict[str, Any], tmp_path: Path, match: str, **source: Any) -> None:
    shard = jvm.shard((write_table(tmp_path / "1.parquet", columns), 0, range(5)))
    batches = jvm.validation(shard, jvm.source(**source), local_batch=5)
    with closing(batches), pytest.raises(Exception, match=match):
        batches.next()


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        ([1.0, 2.0], "row 2: list of 2, expected 4"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], "row 2: list of 5, expected 4"),
        (None, "row 2: tensor.* is null"),
        ([1.0, None, 3.0, 4.0], "row 2: tensor.* is null"),
        ([1.0, 2.0, float("nan"), 4.0], "row 2: number 2 is NaN"),
        ([1.0, 2.0, 3.0, 1e39], "row 2: number 3 is Infinity"),
    ],
    ids=str,
)
def test_lists_that_are_no_tensors(jvm: Jvm, tmp_path: Path, tensor: Any, match: str) -> None:
    good = [1.0, 2.0, 3.0, 4.0]
    columns = {"tensor": [good, good, tensor, good, good], "label": [0] * 5}
    fails(jvm, columns, tmp_path, match, input="tensor", inputForm="list", height=2, width=2)


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        (b"a note", "row 2: not a NumPy array"),
        (as_npy(np.zeros((2, 2)))[:-1], "row 2: damaged NumPy array"),
        (as_npy(np.zeros((4, 1))), r"row 2: array of shape \(4, 1\), expected 2 x 2 x 1"),
        (as_npy(np.zeros((2, 2), bool)), "row 2: array of b1, expected numbers"),
        (as_npy(np.array([[1, 2], [3, np.nan]])), "row 2: number 3 is NaN"),
    ],
)
def test_arrays_that_are_no_tensors(jvm: Jvm, tmp_path: Path, payload: bytes, match: str) -> None:
    good = as_npy(np.zeros((2, 2)))
    columns = {"tensor": [good, good, payload, good, good], "label": [0] * 5}
    fails(jvm, columns, tmp_path, match, input="tensor", inputForm="ndarray", height=2, width=2)
