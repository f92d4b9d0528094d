"""The ids of rows, compared as text: scoring writes every id as text, whatever its type in the dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from insitu.cluster.failures import workers_user_errors
from insitu.data.plan import Rows
from insitu.data.readers import read_row_group

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TASKS_PER_CORE = 4


def row_ids(batch: pa.RecordBatch, column: str) -> list[str | None]:
    """The id of each row, None where it is null."""
    values = batch.column(batch.schema.get_field_index(column)).to_pylist()
    return [None if value is None else str(value) for value in values]


def find_ids(
    spark: "SparkSession", rows: Sequence[Rows], *, reader: str, column: str, among: frozenset[str] | None = None
) -> frozenset[str]:
    """Read the ids of some rows on the executors.

    Args:
        spark: the session whose executors do it.
        rows: at least one row, an entry a row group.
        reader: a key of `insitu.data.readers.READERS`.
        column: where the ids are.
        among: the only ones that are wanted; None wants all.

    Raises:
        UserError: a row group whose pages are damaged, or a column that the reader does not take.
    """
    pieces = [piece for piece in rows if len(piece)]
    partitions = min(len(pieces), _TASKS_PER_CORE * spark.sparkContext.defaultParallelism)
    with workers_user_errors():
        found = spark.sparkContext.parallelize(pieces, partitions).map(_Finder(reader, column, among)).collect()
    return frozenset().union(*found)


@dataclass(frozen=True)
class _Finder:
    """The ids of some rows of one row group; sent to the executors."""

    reader: str
    column: str
    among: frozenset[str] | None

    def __call__(self, rows: Rows) -> set[str]:
        batches = read_row_group(self.reader, rows.path, rows.row_group, [self.column])
        ids = [each for batch in batches for each in row_ids(batch, self.column)]
        found = {each for row in rows.offsets if (each := ids[row]) is not None}
        return found if self.among is None else found & self.among
