"""From a recipe and a dataset to all that an engine needs, every mistake found before training starts."""

import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
from pyspark.sql import SparkSession

from insitu.cluster.cpu import bf16_is_faster, executors_cpu_flags
from insitu.data.dataset import Dataset, open_dataset
from insitu.data.labels import MAX_CLASSES
from insitu.data.pipeline import Source
from insitu.data.plan import ShardPlan, plan_shards
from insitu.data.scan import LabelTally, Refusals, Scan, scan
from insitu.data.selection import select
from insitu.errors import UserError
from insitu.recipe import Recipe
from insitu.tasks import TASKS, LabelCounts, Task
from insitu.training.engines.base import Layout


@dataclass(frozen=True)
class Prepared:
    """A dataset as training will use it.

    Attributes:
        dataset: its footers.
        scan: its good and bad rows.
        source: columns, and what rows become.
        class_names: K names.
        counts: labels of the training rows.
    """

    dataset: Dataset
    scan: Scan
    source: Source
    class_names: tuple[str, ...]
    counts: LabelCounts

    def class_weights(self, recipe: Recipe) -> np.ndarray | None:
        """The weights for the task's loss, None where the recipe wants none."""
        if recipe.training.class_weight == "none":
            return None
        return TASKS[recipe.task.kind].class_weights(self.counts, len(self.class_names))


def prepare(spark: SparkSession, recipe: Recipe, uri: str) -> Prepared:
    """Find the columns, scan the rows and check the labels.

    Raises:
        UserError: no usable column, too many bad rows, or labels that the task cannot learn from.
        WorkerError: BigDL cannot read a file.
    """
    dataset = open_dataset(uri)
    task, selection = TASKS[recipe.task.kind], select(dataset, recipe)
    input, label = selection.input, selection.label
    named = _class_names(recipe, dataset, label.name)
    print(f"data: checking {dataset.rows} rows of {len(dataset.row_groups)} row groups", file=sys.stderr)
    scan_rows = partial(
        scan,
        spark,
        dataset,
        reader=recipe.data.reader,
        input=input,
        label=label,
        id_column=selection.id_column,
        split=selection.split,
    )

    def checked(found: Scan) -> Prepared:
        _check_rows(dataset, found, recipe)
        counts = _counts(found.labels["train"])
        names = named or tuple(map(str, range(_count_classes(task, counts, label.name))))
        for split in found.labels.values():
            task.check_range(_counts(split), len(names))
        task.check_variety(counts, len(names))
        shape = task.label_shape(len(names))
        source = Source(recipe.data.reader, input, label, shape, task.label_dtype)
        return Prepared(dataset, found, source, names, counts)

    prepared = checked(scan_rows())
    refused = _refused(spark, recipe, prepared)
    return checked(scan_rows(refused=refused)) if refused else prepared


def resolve(spark: SparkSession, recipe: Recipe, prepared: Prepared, layout: Layout) -> Recipe:
    """The recipe with what it leaves open filled in: class names, workers, precision."""
    precision = recipe.training.precision
    if recipe.training.engine == "bigdl":
        precision = "fp32"
    elif precision == "auto":
        precision = "bf16" if bf16_is_faster(executors_cpu_flags(spark)) else "fp32"
    training = recipe.training.model_copy(update={"workers": layout.workers, "precision": precision})
    task = recipe.task.model_copy(update={"classes": prepared.class_names})
    return recipe.model_copy(update={"training": training, "task": task})


def shard(recipe: Recipe, prepared: Prepared, layout: Layout) -> tuple[ShardPlan, ShardPlan]:
    """The training and validation plans, printed.

    Raises:
        UserError: a global batch that the workers cannot share, or too few rows.
    """
    batch, workers = recipe.training.global_batch, layout.workers
    check_batch(batch, workers)
    rows = {name: sum(map(len, pieces)) for name, pieces in prepared.scan.rows.items()}
    if rows["train"] < batch:
        raise UserError("training.global_batch", f"{batch} is more than the {rows['train']} training rows", "lower it")
    if rows["validation"] < workers:
        raise UserError(
            "training.workers",
            f"{workers} workers for {rows['validation']} validation rows, each needs one",
            "lower it, or move rows to the validation split",
        )
    row_bytes = max(1, prepared.dataset.row_bytes, prepared.source.input.held_bytes)
    window = max(batch // workers, int(recipe.data.shuffle_mib * 2**20 / row_bytes))
    train, validation = (
        plan_shards(
            prepared.scan.rows[name],
            workers=workers,
            local_batch=batch // workers,
            window_rows=window,
            seed=recipe.training.seed,
        )
        for name in ("train", "validation")
    )
    _print_plan(recipe, prepared, train, validation)
    return train, validation


def check_batch(global_batch: int, workers: int) -> None:
    """Raise `UserError` where the workers cannot share a global batch evenly."""
    if global_batch % workers:
        raise UserError(
            "training.global_batch",
            f"{global_batch} images cannot be shared evenly by {workers} workers",
            f"set a multiple of {workers}, or training.workers",
        )


def _refused(spark: SparkSession, recipe: Recipe, prepared: Prepared) -> Refusals:
    """Good rows that the recipe's engine cannot take: BigDL decodes with Java, which knows less than Pillow."""
    if recipe.training.engine != "bigdl":
        return {}
    from insitu.training.engines.bigdl_check import refused_rows

    print("data: checking the rows once more, in the JVM that BigDL trains in", file=sys.stderr)
    return refused_rows(spark, [piece for pieces in prepared.scan.rows.values() for piece in pieces], prepared.source)


def _count_classes(task: Task, counts: LabelCounts, label: str) -> int:
    classes = task.count_classes(counts)
    if classes > MAX_CLASSES:
        raise UserError(
            "data.label_column",
            f"{label} would make {classes} classes, more than {MAX_CLASSES}: is it an id?",
            "name the label column, or the classes in task.classes",
        )
    return classes


def _class_names(recipe: Recipe, dataset: Dataset, label: str) -> tuple[str, ...]:
    """The recipe's or else the dataset's class names; empty where neither has any."""
    ours, theirs = recipe.task.classes or (), tuple(dataset.class_names(label) or ())
    for place, name in enumerate(ours):
        if name in theirs and theirs.index(name) != place:
            raise UserError(
                "task.classes",
                f"{name!r} is class {place} here and class {theirs.index(name)} in the dataset's metadata",
                "take the dataset's own order with --set task.classes=null",
            )
    return ours or theirs


def _check_rows(dataset: Dataset, found: Scan, recipe: Recipe) -> None:
    bad, limit = found.bad_rows, recipe.data.max_bad_fraction
    if bad > limit * dataset.rows:
        first = found.bad[0]
        raise UserError(
            "data.max_bad_fraction",
            f"{bad} of {dataset.rows} rows cannot be used, more than {limit:g} of them; "
            f"the first, {first.id}: {first.reason}",
            "mend the rows or the columns, or raise it",
        )
    for split, pieces in found.rows.items():
        if not any(map(len, pieces)):
            raise UserError(
                "data.split_column",
                f"no row is in the {split} split",
                "mark rows train and validation, or take the column away to split by data.holdout",
            )


def _counts(tally: LabelTally) -> LabelCounts:
    return LabelCounts(tally.rows, tally.values, tuple(width for width, _ in tally.widths.most_common()))


def _print_plan(recipe: Recipe, prepared: Prepared, train: ShardPlan, validation: ShardPlan) -> None:
    found = prepared.scan
    print(
        f"data: {train.rows} training and {validation.rows} validation rows, {found.bad_rows} quarantined, "
        f"{found.unused} in no split, {len(prepared.class_names)} classes, seed {train.seed}\n"
        f"plan: {train.workers} workers x {train.local_batch} images, {train.steps} steps an epoch; "
        f"{train.dropped} rows an epoch fill no batch and are dropped, none is padded or repeated; "
        f"rows are shuffled {min(train.window_rows, train.rows)} at a time",
        file=sys.stderr,
    )
