"""The scan: one pass over the dataset on Spark, before a core is spent on training.

Every image or tensor and every label is read once, by the same code that training uses. What comes
back to the driver is a byte a row and the bad rows' names, so that the shard plan counts only rows
that can be trained on and every worker makes the same number of steps.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from insitu.cluster.failures import workers_user_errors
from insitu.data.columns import BadLabel, LabelColumn, LabelForm
from insitu.data.dataset import Dataset, RowGroup
from insitu.data.inputs import Input
from insitu.data.plan import Rows
from insitu.data.readers import read_row_group
from insitu.data.row_ids import row_ids

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MAX_BAD_RECORDS = 1000
SPLITS = ("train", "validation")
_UNUSED = len(SPLITS)
_BAD = _UNUSED + 1
_UNLABELLED = _BAD + 1
_HELD_OUT = _UNLABELLED + 1
_TASKS_PER_CORE = 4

Refusals = Mapping[tuple[str, int], Mapping[int, str]]
"""By file URI and row group: the rows that an engine cannot take, and why."""

NOTHING_REFUSED: Refusals = {}


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be trained on: its id, file URI, row group, row in it, and why."""

    id: str
    path: str
    row_group: int
    row: int
    reason: str


@dataclass(frozen=True)
class SplitRule:
    """How a row's split is found: by a column, else by a seeded draw for each row."""

    column: str | None
    holdout: float
    seed: int

    def assign(self, group: RowGroup, values: Sequence[str | None] | None) -> np.ndarray:
        """uint8 [rows], an index into `SPLITS` for every row, or beyond them where it is in neither."""
        if values is not None:
            return np.array([SPLITS.index(v) if v in SPLITS else _UNUSED for v in values], np.uint8)
        name = zlib.crc32(group.path.rsplit("/", 1)[-1].encode())
        draws = np.random.default_rng([self.seed, name, group.index]).random(group.rows)
        return (draws < self.holdout).astype(np.uint8)


@dataclass
class LabelTally:
    """Label counts of the good rows of one split.

    Attributes:
        rows: how many.
        values: integer labels → rows with it; multi-hot: class index → rows with a 1.
        widths: multi-hot lengths → rows with it.
    """

    rows: int = 0
    values: Counter[int] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)

    def count(self, form: LabelForm, label: np.ndarray) -> None:
        self.rows += 1
        if form == "integer":
            self.values[int(label)] += 1
        elif form == "multi_hot":
            self.widths[len(label)] += 1
            self.values.update(np.flatnonzero(label).tolist())

    def add(self, other: "LabelTally") -> None:
        self.rows += other.rows
        self.values.update(other.values)
        self.widths.update(other.widths)


@dataclass(frozen=True)
class Scan:
    """What the scan found.

    Attributes:
        rows: good rows by split, an entry a row group.
        labels: label counts by split.
        bad_rows: how many rows cannot be trained on.
        bad: the first `MAX_BAD_RECORDS` of them of each row group.
        unused: rows whose split is neither train nor validation.
        unlabelled, held_out: rows of an addition that were left out: without a label, or with an id that is held out.
    """

    rows: dict[str, list[Rows]]
    labels: dict[str, LabelTally]
    bad_rows: int
    bad: list[BadRow]
    unused: int
    unlabelled: int
    held_out: int


@dataclass(frozen=True)
class _Scanner:
    """Scans one row group, given with the rows of it that are refused; sent to the executors."""

    reader: str
    input: Input
    label: LabelColumn
    id_column: str | None
    split: SplitRule
    held_out: frozenset[str] | None

    def __call__(
        self, task: tuple[RowGroup, Mapping[int, str]]
    ) -> tuple[RowGroup, np.ndarray, list[BadRow], dict[str, LabelTally]]:
        group, refused = task
        codes: list[np.ndarray] = []
        bad: list[BadRow] = []
        tallies = {name: LabelTally() for name in SPLITS}
        whole = self.split.assign(group, self._partition_values(group)) if not self._split_in_file(group) else None
        start = 0
        for batch in read_row_group(self.reader, group.path, group.index, self._columns(group)):
            part = self._batch_splits(group, batch) if whole is None else whole[start : start + batch.num_rows]
            part = self._left_out(batch, part)
            for i, fault, label in self._check(batch):
                if part[i] in (_UNLABELLED, _HELD_OUT):
                    continue
                fault = fault or refused.get(start + i, "")
                if fault:
                    part[i] = _BAD
                    if len(bad) < MAX_BAD_RECORDS:
                        row_id = self._row_id(group, batch, start, i)
                        bad.append(BadRow(row_id, group.path, group.index, start + i, fault))
                elif part[i] < _UNUSED:
                    tallies[SPLITS[part[i]]].count(self.label.form, label)
            codes.append(part)
            start += batch.num_rows
        return group, np.concatenate(codes or [np.empty(0, np.uint8)]), bad, tallies

    def _columns(self, group: RowGroup) -> list[str]:
        extra = [self.id_column, self.split.column if self._split_in_file(group) else None]
        return list(dict.fromkeys([self.input.column.name, self.label.name, *(name for name in extra if name)]))

    def _split_in_file(self, group: RowGroup) -> bool:
        return self.split.column is not None and self.split.column not in group.partition

    def _partition_values(self, group: RowGroup) -> list[str] | None:
        return None if self.split.column is None else [group.partition[self.split.column]] * group.rows

    def _batch_splits(self, group: RowGroup, batch: pa.RecordBatch) -> np.ndarray:
        return self.split.assign(group, batch.column(batch.schema.get_field_index(self.split.column)).to_pylist())

    def _left_out(self, batch: pa.RecordBatch, splits: np.ndarray) -> np.ndarray:
        """The rows' splits, changed where a row of an addition is left out."""
        splits = splits.copy()
        if self.held_out is not None:
            if self.id_column is not None:
                splits[[each in self.held_out for each in row_ids(batch, self.id_column)]] = _HELD_OUT
            unlabelled = batch.column(batch.schema.get_field_index(self.label.name)).is_null()
            splits[unlabelled.to_numpy(zero_copy_only=False)] = _UNLABELLED
        return splits

    def _check(self, batch: pa.RecordBatch) -> Iterable[tuple[int, str, np.ndarray]]:
        """For every row its number in the batch, its fault or "", and its label."""
        for i, (fault, label) in enumerate(zip(self.input.faults(batch), self.label.read(batch), strict=True)):
            if isinstance(label, BadLabel):
                yield i, str(label), np.empty(0)
            else:
                yield i, fault, label

    def _row_id(self, group: RowGroup, batch: pa.RecordBatch, start: int, i: int) -> str:
        if self.id_column is None:
            return f"{group.path.rsplit('/', 1)[-1]} row group {group.index} row {start + i}"
        return str(batch.column(batch.schema.get_field_index(self.id_column))[i].as_py())


def scan(
    spark: "SparkSession",
    dataset: Dataset,
    *,
    reader: str,
    input: Input,
    label: LabelColumn,
    id_column: str | None,
    split: SplitRule,
    refused: Refusals = NOTHING_REFUSED,
    held_out: frozenset[str] | None = None,
) -> Scan:
    """Read every image or tensor and every label of a dataset once, on the executors.

    Args:
        spark: the session whose executors do it.
        dataset: from `open_dataset`.
        reader: a key of `insitu.data.readers.READERS`.
        input, label: what is read of a row.
        id_column: names bad rows; None names them by their place.
        split: which rows train and which validate.
        refused: rows that are bad whatever is found here.
        held_out: makes it the scan of an addition, where rows with one of these ids and rows without a label are left
            out; None makes a row without a label a bad row.

    Raises:
        UserError: a row group whose pages are damaged, or a column that the reader does not take.
    """
    context = spark.sparkContext
    partitions = min(len(dataset.row_groups), _TASKS_PER_CORE * context.defaultParallelism)
    tasks = [(group, refused.get((group.path, group.index), {})) for group in dataset.row_groups]
    scanner = _Scanner(reader, input, label, id_column, split, held_out)
    with workers_user_errors():
        found = context.parallelize(tasks, partitions).map(scanner).collect()
    rows: dict[str, list[Rows]] = {name: [] for name in SPLITS}
    labels = {name: LabelTally() for name in SPLITS}
    bad: list[BadRow] = []
    for group, codes, group_bad, tallies in found:
        bad += group_bad
        for code, name in enumerate(SPLITS):
            rows[name].append(Rows(group.path, group.index, np.flatnonzero(codes == code).astype(np.int32)))
            labels[name].add(tallies[name])
    counted = {code: sum(int((codes == code).sum()) for _, codes, *_ in found) for code in range(_HELD_OUT + 1)}
    return Scan(
        rows,
        labels,
        bad_rows=counted[_BAD],
        bad=bad,
        unused=counted[_UNUSED],
        unlabelled=counted[_UNLABELLED],
        held_out=counted[_HELD_OUT],
    )
