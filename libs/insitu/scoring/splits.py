"""The rows of a labelled dataset as a recipe splits them, read on the driver a batch at a time.

Legend: B rows of a batch, h, w, C the model's input, K classes.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from pyspark.sql import SparkSession

from insitu.data.dataset import Dataset, open_dataset
from insitu.data.plan import Rows, ShardPlan, plan_shards
from insitu.data.readers import READERS
from insitu.data.scan import LabelTally, scan
from insitu.data.selection import Selection, select
from insitu.data.stream import stream_batches
from insitu.errors import UserError
from insitu.recipe import Recipe
from insitu.tasks import TASKS, LabelCounts

_WINDOW_MIB = 256


@dataclass(frozen=True)
class Split:
    """Some rows of a dataset; iterating reads them, as often as is wanted.

    Attributes:
        rows: how many.
        batches: of how many rows, the last one perhaps of fewer.
    """

    recipe: Recipe
    selection: Selection
    plan: ShardPlan
    rows: int
    shuffled: bool

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Inputs [B, h, w, C] as the model takes them, and labels as `LabelColumn.read` gives them, stacked."""
        left = self.rows
        windows = self.plan.epoch(0, 0) if self.shuffled else self.plan.in_order(0)
        batches = stream_batches(
            windows,
            reader=READERS[self.recipe.data.reader](),
            input=self.selection.input,
            label=self.selection.label,
            batch_rows=self.plan.local_batch,
        )
        for batch in islice(batches, -(-left // self.plan.local_batch)):
            yield self.selection.input.decode(batch.inputs[:left]), batch.labels[:left]
            left -= len(batch.labels)


@dataclass(frozen=True)
class Splits:
    """A dataset's rows.

    Attributes:
        dataset: its footers.
        calibration: some of the training rows, drawn by the recipe's seed.
        validation: all of the validation rows.
    """

    dataset: Dataset
    calibration: Split
    validation: Split


def read_splits(spark: SparkSession, recipe: Recipe, data: str, *, calibration_rows: int, batch: int) -> Splits:
    """Scan a dataset on the executors, and split it as the training of this recipe would.

    Args:
        recipe: of the model directory, every key resolved.
        data: a dataset of the same columns as the training data, perhaps the same.
        calibration_rows: the most that are drawn.
        batch: rows of a batch, B.

    Raises:
        UserError: no usable column, more bad rows than the recipe allows, or an empty split.
    """
    dataset = open_dataset(data)
    selection = select(dataset, recipe)
    print(f"data: checking {dataset.rows} rows of {len(dataset.row_groups)} row groups", file=sys.stderr)
    found = scan(
        spark,
        dataset,
        reader=recipe.data.reader,
        input=selection.input,
        label=selection.label,
        id_column=selection.id_column,
        split=selection.split,
    )
    if found.bad_rows > recipe.data.max_bad_fraction * dataset.rows:
        first = found.bad[0]
        raise UserError(
            "--data",
            f"{found.bad_rows} of {dataset.rows} rows cannot be used; the first, {first.id}: {first.reason}",
            "mend the rows",
        )
    check_labels(recipe, dataset, selection.label.name, list(found.labels.values()), setting="--data")
    sizes = {name: sum(map(len, pieces)) for name, pieces in found.rows.items()}
    for name, size in sizes.items():
        if not size:
            raise UserError("--data", f"no row is in the {name} split", "mark rows train and validation")

    def part(rows: list[Rows], *, most: int, shuffled: bool) -> Split:
        row_bytes = max(1, dataset.row_bytes, selection.input.held_bytes)
        window = max(batch, int(_WINDOW_MIB * 2**20 / row_bytes))
        plan = plan_shards(rows, workers=1, local_batch=batch, window_rows=window, seed=recipe.training.seed)
        return Split(recipe, selection, plan, min(most, plan.rows), shuffled)

    return Splits(
        dataset,
        calibration=part(found.rows["train"], most=calibration_rows, shuffled=True),
        validation=part(found.rows["validation"], most=sizes["validation"], shuffled=False),
    )


def check_labels(recipe: Recipe, dataset: Dataset, label: str, found: Sequence[LabelTally], *, setting: str) -> None:
    """Raise `UserError` where labels do not mean the classes that the model learned."""
    classes = recipe.task.classes or ()
    theirs = dataset.class_names(label)
    if theirs is not None and tuple(theirs) != classes:
        problem = f"its classes are {', '.join(theirs)}, and the model's {', '.join(classes)}"
        raise UserError(setting, problem, "bring labels of the model's classes, in their order")
    for tally in found:
        counts = LabelCounts(tally.rows, tally.values, tuple(width for width, _ in tally.widths.most_common()))
        TASKS[recipe.task.kind].check_range(counts, len(classes))
