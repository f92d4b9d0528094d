"""Parquet readers: a row group as a stream of record batches.

A reader opens one row group of one file; everything else (order, windows, decoding) is the same
for all readers.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from insitu.cluster.filesystem import open_filesystem
from insitu.errors import UserError

BATCH_ROWS = 256
_BUFFER_BYTES = 2**20
_MEND = "set data.reader: pyarrow"
# petastorm.unischema leaves columns of other types out without a word.
_PETASTORM_TYPES = {
    *(pa.bool_(), pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
    *(pa.string(), pa.binary()),
}


class Reader(Protocol):
    """Reads row groups; an implementation holds no open file between calls."""

    def batches(self, path: str, row_group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Stream the rows of one row group in stored order.

        Args:
            path: URI of the Parquet file.
            row_group: its index in the file.
            columns: names of the columns to read.

        Yields:
            record batches with exactly `columns`, whatever their number of rows.
        """
        ...


class PyArrowReader:
    """The default: Arrow's own Parquet reader.

    Memory holds a record batch, and of each column a page and a read buffer: without a buffer
    size, Arrow reads a whole column chunk before its first row.
    """

    def batches(self, path: str, row_group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        file_system, local = open_filesystem(path)
        with (
            file_system.open(local, "rb") as source,
            pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file,
        ):
            yield from file.iter_batches(BATCH_ROWS, row_groups=[row_group], columns=list(columns), use_threads=False)


class PetastormReader:
    """Petastorm's batch reader, a row group at a time; memory holds the whole row group.

    Petastorm has no call for "this row group"; sharding a file into as many shards as it has row
    groups selects one. It reads scalars, binary and plain lists, but no structs (Spark's `image`
    type and Hugging Face's), large or fixed-size lists, large binary or uint16 to uint64: these
    are refused.
    """

    def batches(self, path: str, row_group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        from petastorm.fs_utils import get_filesystem_and_path_or_paths
        from petastorm.reader import Reader as BatchReader
        from petastorm.workers_pool.dummy_pool import DummyPool

        from insitu.data.petastorm_worker import TableWorker

        if path.startswith("hdfs://") and shutil.which("hadoop") is None:
            raise UserError("data.reader", "petastorm reads hdfs:// by the hadoop command, which is not here", _MEND)
        file_system, local = open_filesystem(path)
        with file_system.open(local, "rb") as source, pq.ParquetFile(source) as file:
            row_groups = file.num_row_groups
            _check_readable(file.schema_arrow, columns)
        reader = BatchReader(
            *get_filesystem_and_path_or_paths(path),
            schema_fields=[f"^{re.escape(name)}$" for name in columns],
            reader_pool=DummyPool(),
            worker_class=TableWorker,
            is_batched_reader=True,
            shuffle_row_groups=False,
            cur_shard=row_group,
            shard_count=row_groups,
        )
        try:
            for table in reader:
                yield from table.select(list(columns)).to_batches(BATCH_ROWS)
        finally:
            reader.stop()
            reader.join()


def _check_readable(schema: pa.Schema, columns: Sequence[str]) -> None:
    for name in columns:
        kind = schema.field(name).type
        if (kind.value_type if pa.types.is_list(kind) else kind) not in _PETASTORM_TYPES:
            raise UserError("data.reader", f"petastorm cannot read column {name} of type {kind}", _MEND)


READERS: dict[str, type[Reader]] = {"pyarrow": PyArrowReader, "petastorm": PetastormReader}


def read_row_group(reader: str, path: str, row_group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of `READERS[reader]`.

    Raises:
        UserError: pages that are damaged behind a whole footer.
    """
    try:
        yield from READERS[reader]().batches(path, row_group, columns)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            path, f"row group {row_group} cannot be read ({reason})", "write it again or take it away"
        ) from None
