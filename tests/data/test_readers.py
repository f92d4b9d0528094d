"""The contract that every Parquet reader keeps."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from image_data import write_table
from insitu.data.readers import BATCH_ROWS, READERS, Reader
from insitu.errors import UserError

ROWS = 2 * BATCH_ROWS + 88  # two full record batches and a short one where they are in one row group


def table(first: int = 0) -> pa.Table:
    """Columns of all the types that every reader takes, nulls and uneven lists among them."""
    numbers = range(first, first + ROWS)
    columns: dict[str, Any] = {
        "id": [f"row {n}" if n % 7 else None for n in numbers],
        "image": [bytes([n % 256, 0]) * (n % 5) if n % 11 else None for n in numbers],
        "label": pa.array([n + 2**53 if n % 3 else None for n in numbers], pa.int64()),
        "grade": pa.array([n / 2 if n % 4 else None for n in numbers], pa.float32()),
        "sick": [n % 2 == 0 if n % 5 else None for n in numbers],
        "labels": pa.array([[n % 2, 1] if n % 9 else None for n in numbers], pa.list_(pa.int8())),
        "uneven": pa.array([[1] * (n % 4) for n in numbers], pa.list_(pa.int32())),
        "image.raw (8 bit)": list(numbers),
    }
    return pa.table(columns)


@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
@pytest.mark.parametrize("name", READERS)
class TestReader:
    @pytest.fixture
    def reader(self, name: str) -> Reader:
        return READERS[name]()

    def read(self, reader: Reader, path: str, row_group: int, columns: list[str]) -> pa.Table:
        return pa.Table.from_batches(list(reader.batches(path, row_group, columns)))

    @pytest.mark.parametrize("column", table().schema.names)
    def test_a_column_comes_back_value_for_value_in_stored_order(
        self, reader: Reader, tmp_path: Path, column: str
    ) -> None:
        path = write_table(tmp_path / "1.parquet", table())
        assert self.read(reader, path, 0, [column]) == table().select([column])

    def test_exactly_the_asked_columns_come_in_the_asked_order(self, reader: Reader, tmp_path: Path) -> None:
        path = write_table(tmp_path / "1.parquet", table())
        for columns in (["label", "image"], ["image", "id", "sick"]):
            assert self.read(reader, path, 0, columns) == table().select(columns)

    def test_one_row_group_of_one_file_is_read(self, reader: Reader, tmp_path: Path) -> None:
        for number in range(2):
            path = write_table(tmp_path / f"split=train/{number}.parquet", table(number * ROWS), row_group_rows=250)
            for row_group in (2, 0, 1):
                expected = table(number * ROWS).slice(row_group * 250, 250).select(["id", "label"])
                assert self.read(reader, path, row_group, ["id", "label"]) == expected

    def test_batches_are_bounded(self, reader: Reader, tmp_path: Path) -> None:
        path = write_table(tmp_path / "1.parquet", table())
        sizes = [batch.num_rows for batch in reader.batches(path, 0, ["label"])]
        assert sum(sizes) == ROWS and max(sizes) <= BATCH_ROWS

    def test_reading_can_stop_early_and_writes_nothing(
        self, reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_table(tmp_path / "1.parquet", table())
        batches = reader.batches(path, 0, ["label"])
        next(iter(batches))
        del batches
        assert self.read(reader, path, 0, ["label"]).num_rows == ROWS
        assert [entry.name for entry in tmp_path.iterdir()] == ["1.parquet"]
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"bytes": b"x", "path": "a"}]),
        pa.array([[1]], pa.large_list(pa.int8())),
        pa.array([[1]], pa.list_(pa.int8(), 1)),
        pa.array([b"x"], pa.large_binary()),
        pa.array([1], pa.uint16()),
    ],
    ids=lambda column: str(column.type),
)
def test_petastorm_refuses_the_types_it_leaves_out_and_pyarrow_reads_them(tmp_path: Path, column: pa.Array) -> None:
    path = write_table(tmp_path / "1.parquet", {"image": column})
    with pytest.raises(UserError, match=r"data.reader: petastorm cannot read column image .*; set data.reader: pyarr"):
        next(iter(READERS["petastorm"]().batches(path, 0, ["image"])))
    assert [batch.column(0) for batch in READERS["pyarrow"]().batches(path, 0, ["image"])] == [column]


READ_AND_PRINT_PEAK_KIB = """
import re, sys
from pathlib import Path
from insitu.data.readers import PyArrowReader
for batch in PyArrowReader().batches(sys.argv[1], 0, ["image"]):
    pass
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_pyarrows_memory_does_not_grow_with_the_row_group(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    peaks_mib = []
    for row_group_mib in (20, 80):
        images = [rng.bytes(4096) for _ in range(row_group_mib * 256)]
        path = write_table(tmp_path / "1.parquet", {"image": images}, row_group_rows=len(images))
        read = [sys.executable, "-c", READ_AND_PRINT_PEAK_KIB, path]
        peaks_mib.append(int(subprocess.run(read, capture_output=True, text=True, check=True).stdout) / 1024)
    assert peaks_mib[1] - peaks_mib[0] < 20, peaks_mib
