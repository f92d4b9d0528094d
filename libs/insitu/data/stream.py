"""A worker's rows as batches, in the order of its shard plan.

Memory holds a window of encoded rows, twice for a moment when it has been read, beside a batch
and what the reader holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from insitu.data.columns import BadLabel, LabelColumn
from insitu.data.inputs import Input
from insitu.data.plan import Rows, Window
from insitu.data.readers import Reader


@dataclass(frozen=True)
class Batch:
    """Rows of one worker.

    Attributes:
        inputs: [B, ...], as the input's `stored` gives them.
        labels: [B, ...], as `LabelColumn.read` gives them, stacked.
    """

    inputs: np.ndarray
    labels: np.ndarray


class RowGroupCursor:
    """Reads ascending rows of row groups without starting over within one.

    A row group that spans several windows is read once, from its first row to its last.
    """

    def __init__(self, reader: Reader, columns: Sequence[str]) -> None:
        self._reader = reader
        self._columns = columns
        self._key: tuple[str, int] | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._start = 0

    def take(self, rows: Rows) -> pa.Table:
        """The given rows of one row group, in stored order."""
        if (rows.path, rows.row_group) != self._key or rows.offsets[0] < self._start:
            self._key = (rows.path, rows.row_group)
            self._batches = self._reader.batches(rows.path, rows.row_group, self._columns)
            self._batch, self._start = next(self._batches), 0
        taken = []
        offsets = rows.offsets
        while len(offsets):
            assert self._batch is not None
            end = self._start + self._batch.num_rows
            here = offsets[offsets < end]
            if len(here):
                taken.append(self._batch.take(pa.array(here - self._start)))
                offsets = offsets[len(here) :]
            if len(offsets):
                self._batch, self._start = next(self._batches), end
        return pa.Table.from_batches(taken)


def stream_batches(
    windows: Iterator[Window], *, reader: Reader, input: Input, label: LabelColumn, batch_rows: int
) -> Iterator[Batch]:
    """Read windows and cut their rows, in training order, into batches.

    Args:
        windows: from `ShardPlan.epoch` or `ShardPlan.in_order`.
        reader: opens the row groups.
        input, label: what is read of a row.
        batch_rows: B; the last batch may be smaller.

    Raises:
        BadLabel, BadTensor: a value that was readable when the dataset was scanned no longer is.
    """
    cursor = RowGroupCursor(reader, [input.column.name, label.name])
    parts: list[pa.Table] = []
    missing = batch_rows
    for window in windows:
        table = _joined([cursor.take(piece) for piece in window.pieces])
        for order in np.split(window.order, range(missing, len(window.order), batch_rows)):
            parts.append(table.take(pa.array(order)))
            missing -= len(order)
            if not missing:
                yield _batch(parts, input, label)
                parts, missing = [], batch_rows
        del table  # before the next window is read
    if parts:
        yield _batch(parts, input, label)


def _batch(parts: Sequence[pa.Table], input: Input, label: LabelColumn) -> Batch:
    record_batch = _joined(parts).to_batches()[0]
    return Batch(input.stored(record_batch), np.stack([_good(value) for value in label.read(record_batch)]))


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One after the other; where a column may be null in one of them, it may be in all."""
    return pa.concat_tables(tables, promote_options="default").combine_chunks()


def _good(value: np.ndarray | BadLabel) -> np.ndarray:
    if isinstance(value, BadLabel):
        raise value
    return value
