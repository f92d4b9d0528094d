"""Parquet readers: a row group as a stream of record batches.

A reader opens one row group of one file; everything else (order, windows, decoding) is the same
for all readers.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from insitu.cluster.filesystem import open_filesystem
from insitu.errors import UserError

BATCH_ROWS = 256


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
    """The default: Arrow's own Parquet reader."""

    def batches(self, path: str, row_group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        file_system, local = open_filesystem(path)
        with file_system.open(local, "rb") as source, pq.ParquetFile(source) as file:
            yield from file.iter_batches(BATCH_ROWS, row_groups=[row_group], columns=list(columns), use_threads=False)


class PetastormReader:
    """Petastorm's batch reader (`make_batch_reader`), a row group at a time.

    Petastorm has no call for "this row group"; sharding a file into as many shards as it has row
    groups selects one. It reads scalars, binary and lists, but no structs: columns of Spark's
    `image` type and of Hugging Face's are refused.
    """

    def batches(self, path: str, row_group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        from petastorm import make_batch_reader

        file_system, local = open_filesystem(path)
        with file_system.open(local, "rb") as source, pq.ParquetFile(source) as file:
            row_groups = file.num_row_groups
            schema = file.schema_arrow
        structs = [name for name in columns if pa.types.is_struct(schema.field(name).type)]
        if structs:
            raise UserError(
                "data.reader", f"petastorm cannot read the struct column {structs[0]!r}", "set data.reader: pyarrow"
            )
        target = pa.schema([schema.field(name) for name in columns])
        with make_batch_reader(
            path,
            schema_fields=[f"^{name}$" for name in columns],
            reader_pool_type="dummy",
            shuffle_row_groups=False,
            cur_shard=row_group,
            shard_count=row_groups,
        ) as reader:
            for batch in reader:
                arrays = [pa.array(list(getattr(batch, field.name)), field.type) for field in target]
                yield pa.RecordBatch.from_arrays(arrays, schema=target)


READERS: dict[str, type[Reader]] = {"pyarrow": PyArrowReader, "petastorm": PetastormReader}
