"""From a recipe and a dataset to all that an engine needs, every mistake found before training starts."""

import sys
from dataclasses import dataclass

import numpy as np
from pyspark.sql import SparkSession

from insitu.data.additions import Addition, joined, scan_additions
from insitu.data.cache import cached_rows
from insitu.data.dataset import Dataset
from insitu.data.labels import MAX_CLASSES
from insitu.data.opened import Opened
from insitu.data.pipeline import Source
from insitu.data.plan import ShardPlan, plan_shards
from insitu.data.scan import NOTHING_REFUSED, LabelTally, Refusals, Scan, scan
from insitu.errors import UserError
from insitu.recipe import Recipe
from insitu.tasks import TASKS, LabelCounts, Task
from insitu.training.engines.base import Layout


@dataclass(frozen=True)
class Prepared:
    """A dataset as training will use it.

    Attributes:
        opened: its footers.
        additions: what joins its training split.
        scan: its good and bad rows, those of the additions among them.
        source: columns, and what rows become.
        class_names: K names.
        counts: labels of the training rows.
    """

    opened: Opened
    additions: tuple[Addition, ...]
    scan: Scan
    source: Source
    class_names: tuple[str, ...]
    counts: LabelCounts

    @property
    def dataset(self) -> Dataset:
        return self.opened.dataset

    @property
    def rows(self) -> dict[str, int]:
        """Good ones by split."""
        return {name: sum(map(len, pieces)) for name, pieces in self.scan.rows.items()}

    def class_weights(self, recipe: Recipe) -> np.ndarray | None:
        """The weights for the task's loss, None where the recipe wants none."""
        if recipe.training.class_weight == "none":
            return None
        return TASKS[recipe.task.kind].class_weights(self.counts, len(self.class_names))


def prepare(spark: SparkSession, recipe: Recipe, opened: Opened) -> Prepared:
    """Scan the rows and check the labels.

    Raises:
        UserError: too many bad rows, or labels that the task cannot learn from.
        WorkerError: BigDL cannot read a file.
    """
    dataset, additions, selection = opened.dataset, opened.additions, opened.selection
    task, reader, label = TASKS[recipe.task.kind], recipe.data.reader, selection.label
    print(f"data: checking {opened.rows} rows of {opened.row_groups} row groups", file=sys.stderr)

    def checked(refused: Refusals = NOTHING_REFUSED) -> Prepared:
        own = scan(
            spark,
            dataset,
            reader=reader,
            input=selection.input,
            label=label,
            id_column=selection.id_column,
            split=selection.split,
            refused=refused,
        )
        _check_bad_rows(dataset, own, recipe)
        _check_splits(own)
        names = opened.class_names
        if not names:
            names = tuple(map(str, range(_count_classes(task, _counts(own.labels["train"]), label.name))))
        for split in own.labels.values():
            task.check_range(_counts(split), len(names))
        added = scan_additions(spark, additions, own, selection, reader=reader, refused=refused)
        for each in added:
            _check_bad_rows(each.dataset, each.scan, recipe)
            _check_labels(task, each, label.name, names)
        found = joined(own, added)
        counts = _counts(found.labels["train"])
        task.check_variety(counts, len(names))
        source = Source(reader, selection.input, label, task.label_shape(len(names)), task.label_dtype)
        return Prepared(opened, tuple(added), found, source, names, counts)

    prepared = checked()
    refused = _refused(spark, recipe, prepared)
    return checked(refused) if refused else prepared


def resolve(recipe: Recipe, prepared: Prepared, layout: Layout) -> Recipe:
    """A settled recipe with what else it leaves open filled in: class names and workers."""
    training = recipe.training.model_copy(update={"workers": layout.workers})
    task = recipe.task.model_copy(update={"classes": prepared.class_names})
    return recipe.model_copy(update={"training": training, "task": task})


def shard(recipe: Recipe, prepared: Prepared, layout: Layout) -> tuple[ShardPlan, ShardPlan]:
    """The training and validation plans, printed.

    Raises:
        UserError: too few rows.
    """
    batch, workers = recipe.training.global_batch, layout.workers
    rows = prepared.rows
    if rows["train"] < batch:
        raise UserError("training.global_batch", f"{batch} is more than the {rows['train']} training rows", "lower it")
    if rows["validation"] < workers:
        raise UserError(
            "training.workers",
            f"{workers} workers for {rows['validation']} validation rows, each needs one",
            "lower it, or move rows to the validation split",
        )
    window = prepared.opened.window_rows(recipe.data.shuffle_mib, batch // workers)
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


def _check_bad_rows(dataset: Dataset, found: Scan, recipe: Recipe) -> None:
    bad, limit = found.bad_rows, recipe.data.max_bad_fraction
    rows = dataset.rows - found.unlabelled - found.held_out
    if bad > limit * rows:
        first = found.bad[0]
        raise UserError(
            "data.max_bad_fraction",
            f"{bad} of {rows} rows of {dataset.uri} cannot be used, more than {limit:g} of them; "
            f"the first, {first.id}: {first.reason}",
            "mend the rows or the columns, or raise it",
        )


def _check_labels(task: Task, addition: Addition, label: str, names: tuple[str, ...]) -> None:
    """The labels of an addition have to mean the dataset's classes."""
    uri, theirs = addition.dataset.uri, addition.dataset.class_names(label)
    if theirs is not None and tuple(theirs) != names:
        problem = f"the classes of {uri} are {', '.join(theirs)}, and here {', '.join(names)}"
        raise UserError("data.additions", problem, "bring labels of these classes, in this order")
    try:
        task.check_range(_counts(addition.scan.labels["train"]), len(names))
    except UserError as error:
        _, problem, mend = error.args
        raise UserError("data.additions", f"{uri}: {problem}", mend) from None


def _check_splits(found: Scan) -> None:
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
    for each in prepared.additions:
        print(
            f"data: {each.rows} rows of {each.dataset.uri} join the training split; left out: {each.scan.unlabelled} "
            f"without a label, {each.scan.held_out} that are validation rows, {each.scan.bad_rows} quarantined",
            file=sys.stderr,
        )
    print(
        f"data: {train.rows} training and {validation.rows} validation rows, {found.bad_rows} quarantined, "
        f"{found.unused} in no split, {len(prepared.class_names)} classes, seed {train.seed}\n"
        f"plan: {train.workers} workers x {train.local_batch} images, {train.steps} steps an epoch; "
        f"{train.dropped} rows an epoch fill no batch and are dropped, none is padded or repeated; "
        f"rows are shuffled {min(train.window_rows, train.rows)} at a time",
        file=sys.stderr,
    )
    if recipe.data.cache_mib:
        rows = -(-(train.rows + validation.rows) // train.workers)
        kept = cached_rows(prepared.source.input.shape, recipe.data.cache_mib, rows=rows)
        print(f"cache: a worker keeps {kept} of its {rows} images decoded, while it lives", file=sys.stderr)
