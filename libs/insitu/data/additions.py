"""Additions: rows that people have labelled since, which join the training split of a dataset.

Nothing of an addition validates, so that metrics before and after it compare.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from insitu.data.dataset import Dataset, open_dataset
from insitu.data.plan import Rows
from insitu.data.row_ids import find_ids
from insitu.data.scan import NOTHING_REFUSED, LabelTally, Refusals, Scan, SplitRule, scan
from insitu.data.selection import Selection
from insitu.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SETTING = "data.additions"
_ALL_TRAIN = SplitRule(column=None, holdout=0, seed=0)


@dataclass(frozen=True)
class Addition:
    """One directory of additions.

    Attributes:
        dataset: its footers.
        scan: its rows; the good ones are of the training split.
    """

    dataset: Dataset
    scan: Scan

    @property
    def rows(self) -> int:
        """How many join."""
        return self.scan.labels["train"].rows


def open_addition(uri: str, dataset: Dataset, selection: Selection) -> Dataset:
    """Read the footers of an addition; where ids cannot be compared, it is said on stderr.

    Args:
        uri: a Parquet directory or file.
        dataset: what it adds to.
        selection: the columns of `dataset` that are read.

    Raises:
        UserError: it cannot be read, or lacks the dataset's input or label column in the dataset's type.
    """
    addition = open_dataset(uri, setting=_SETTING)
    for name in (selection.input.column.name, selection.label.name):
        wanted = dataset.schema.field(name).type
        if name not in addition.schema.names:
            problem = f"{uri} has no column {name}"
        elif addition.schema.field(name).type != wanted:
            problem = f"{name} is {addition.schema.field(name).type} in {uri}, and {wanted} in --data"
        else:
            continue
        raise UserError(_SETTING, problem, f"write it with {name} as {wanted}, as the dataset has it")
    if _id_column(addition, selection) is None:
        problem = f"{uri} and --data have no id column in common"
        print(f"data: {problem}: whether it holds validation rows is not known", file=sys.stderr)
    return addition


def scan_additions(
    spark: "SparkSession",
    additions: Sequence[Dataset],
    dataset: Scan,
    selection: Selection,
    *,
    reader: str,
    refused: Refusals = NOTHING_REFUSED,
) -> list[Addition]:
    """Scan additions, leaving out rows without a label and rows whose id is one of a validation row.

    Ids are compared as text; those of an addition without the dataset's id column are not.

    Args:
        spark: the session whose executors do it.
        additions: from `open_addition`.
        dataset: the scan of what they add to.
        selection: the columns of the dataset that are read.
        reader, refused: as for `scan`.

    Raises:
        UserError: as `scan` does, or where no row of an addition is left.
    """
    held_out = _held_out_ids(spark, additions, dataset, selection, reader)
    scanned = []
    for addition in additions:
        found = scan(
            spark,
            addition,
            reader=reader,
            input=selection.input,
            label=selection.label,
            id_column=_id_column(addition, selection),
            split=_ALL_TRAIN,
            refused=refused,
            held_out=held_out,
        )
        scanned.append(Addition(addition, found))
        if found.unlabelled + found.held_out == addition.rows:
            counts = f"{found.unlabelled} have no label, {found.held_out} are of the validation split"
            raise UserError(_SETTING, f"no row of {addition.uri} can train: {counts}", "label some, or leave it out")
    return scanned


def joined(dataset: Scan, additions: Sequence[Addition]) -> Scan:
    """A dataset's scan with the rows of its additions in the training split."""
    scans = [dataset, *(each.scan for each in additions)]
    labels = LabelTally()
    for each in scans:
        labels.add(each.labels["train"])
    return replace(
        dataset,
        rows=dataset.rows | {"train": [piece for each in scans for piece in each.rows["train"]]},
        labels=dataset.labels | {"train": labels},
        bad_rows=sum(each.bad_rows for each in scans),
        bad=[row for each in scans for row in each.bad],
    )


def _held_out_ids(
    spark: "SparkSession", additions: Sequence[Dataset], dataset: Scan, selection: Selection, reader: str
) -> frozenset[str]:
    """The ids that the additions have in common with the validation split."""
    groups = [group for addition in additions if _id_column(addition, selection) for group in addition.row_groups]
    if not groups:
        return frozenset()
    assert selection.id_column is not None
    rows = [Rows(group.path, group.index, np.arange(group.rows, dtype=np.int32)) for group in groups]
    added = find_ids(spark, rows, reader=reader, column=selection.id_column)
    return find_ids(spark, dataset.rows["validation"], reader=reader, column=selection.id_column, among=added)


def _id_column(addition: Dataset, selection: Selection) -> str | None:
    return selection.id_column if selection.id_column in addition.schema.names else None
