"""Models judged on labelled rows that none of them was trained on.

Legend: N rows, K classes.
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from insitu.cluster.failures import workers_user_errors
from insitu.cluster.progress import running_tasks, shown
from insitu.data.columns import BadLabel
from insitu.data.dataset import Dataset, open_dataset
from insitu.data.scan import LabelTally
from insitu.data.selection import Selection, select
from insitu.errors import UserError
from insitu.metrics import Metrics, evaluate, headline
from insitu.recipe import Recipe
from insitu.scoring.dataframes import quoted, with_results
from insitu.scoring.row_scorer import COLUMN, FAULT, SCORES
from insitu.scoring.shipped import ShippedModel
from insitu.scoring.splits import check_labels

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

CANDIDATE, CURRENT = "candidate", "current"
_LABEL = "label"


@dataclass(frozen=True)
class OnHoldout:
    """How models do on the same rows.

    Attributes:
        uri, fingerprint: of the dataset.
        rows: that were judged.
        unusable: that were not, since their label or they themselves cannot be read.
        lost: of these, what the current version reads and the candidate does not.
        metric: by which the models are compared.
        metrics: by model.
    """

    uri: str
    fingerprint: str
    rows: int
    unusable: int
    lost: int
    metric: str
    metrics: Mapping[str, Metrics]

    def value(self, model: str) -> float:
        """The metric of a model."""
        return self.metrics[model][self.metric]  # type: ignore[literal-required]

    @property
    def drop(self) -> float:
        """How far the candidate's metric is below the current version's; 0 where there is none."""
        return self.value(CURRENT) - self.value(CANDIDATE) if CURRENT in self.metrics else 0.0

    def to_json(self) -> dict[str, Any]:
        values = {model: self.value(model) for model in self.metrics}
        own = {name: getattr(self, name) for name in ("uri", "fingerprint", "rows", "unusable", "lost", "metric")}
        return {**own, **values, "metrics": dict(self.metrics)}


def judge_on_holdout(
    spark: "SparkSession",
    data: str,
    recipe: Recipe,
    models: Mapping[str, ShippedModel],
    *,
    trained_on: Collection[str],
) -> OnHoldout:
    """Score a labelled dataset on the executors and evaluate the scores here.

    Of a dataset with a split column the validation rows count, of another one all rows: a draw by the recipe's seed
    would keep only the candidate's own training rows apart, and only in its own dataset.

    Args:
        spark: the session whose executors score.
        data: a dataset of the columns of the training data.
        recipe: of the candidate.
        models: the `CANDIDATE`, and perhaps the `CURRENT` one, of the same classes.
        trained_on: fingerprints of the datasets that they were trained on.

    Raises:
        UserError: no usable dataset, more rows that cannot be used than the recipe allows, or a dataset that one of the
            models was trained on whole.
    """
    with _naming_holdout():
        dataset = open_dataset(data)
        selection = select(dataset, recipe)
    if selection.split.column is None and dataset.fingerprint in trained_on:
        problem = f"{data} is what one of the models was trained on, without a column that tells the validation rows"
        raise UserError("--holdout", problem, "bring rows that neither has seen, or add a column split")
    found = _answers(spark, data, selection, models)
    if found.empty:
        raise UserError("--holdout", f"{data} holds no row of the validation split", "bring some")
    labels = selection.label.read(pa.record_batch([pa.Array.from_pandas(found[_LABEL])], [selection.label.name]))
    labelled = np.array([not isinstance(label, BadLabel) for label in labels])
    reads = {model: found[_of(model, FAULT)].isna().to_numpy() for model in models}
    usable = np.logical_and.reduce([labelled, *reads.values()])
    readable = labelled & np.logical_or.reduce(list(reads.values()))
    _check_bad(found, labels, readable, recipe.data.max_bad_fraction)
    good = [label for label, use in zip(labels, usable, strict=True) if use and not isinstance(label, BadLabel)]
    if not good:
        raise UserError("--holdout", f"{data} holds no row that all models read", "bring rows of the training's form")
    _check_classes(recipe, dataset, selection, good)
    metrics = {
        model: evaluate(
            kind=recipe.task.kind,
            labels=np.stack(good),
            scores=np.nan_to_num(np.stack(list(found[_of(model, SCORES)][usable])).astype(np.float32)),
            class_names=list(recipe.task.classes or ()),
        )
        for model in models
    }
    lost = int((readable & ~reads[CANDIDATE]).sum())
    metric = headline(recipe.task.kind, metrics[CANDIDATE])
    return OnHoldout(data, dataset.fingerprint, len(good), int((~usable).sum()), lost, metric, metrics)


def _answers(
    spark: "SparkSession", data: str, selection: Selection, models: Mapping[str, ShippedModel]
) -> "pd.DataFrame":
    """A row for each of the holdout: its label as it is stored, and each model's fault, or scores [K]."""
    from pyspark.sql import functions as F

    rows = spark.read.parquet(data)
    if selection.split.column is not None:
        rows = rows.filter(rows[quoted(selection.split.column)].cast("string") == F.lit("validation"))
    rows = rows.select(
        rows[quoted(selection.input.column.name)].alias(COLUMN), rows[quoted(selection.label.name)].alias(_LABEL)
    )
    answered = with_results(rows, models)
    faults = [answered[model][FAULT].alias(_of(model, FAULT)) for model in models]
    scores = [answered[model][SCORES][0].alias(_of(model, SCORES)) for model in models]
    with (
        workers_user_errors(),
        shown(lambda: running_tasks(spark), name="holdout", what="task", stream=sys.stderr),
    ):
        return answered.select(_LABEL, *faults, *scores).toPandas()


def _check_bad(found: "pd.DataFrame", labels: list[Any], readable: np.ndarray, limit: float) -> None:
    bad = np.flatnonzero(~readable)
    if len(bad) <= limit * len(found):
        return
    first = bad[0]
    reason = labels[first] if isinstance(labels[first], BadLabel) else found[_of(CANDIDATE, FAULT)][first]
    problem = f"{len(bad)} of {len(found)} rows cannot be used, more than the recipe's {limit:g}; the first: {reason}"
    raise UserError("--holdout", problem, "mend the rows")


def _check_classes(recipe: Recipe, dataset: Dataset, selection: Selection, labels: list[np.ndarray]) -> None:
    tally = LabelTally()
    for label in labels:
        tally.count(selection.label.form, label)
    with _naming_holdout():
        check_labels(recipe, dataset, selection.label.name, [tally], setting="--holdout")


@contextmanager
def _naming_holdout() -> Iterator[None]:
    """Around what reads a dataset as training does: the user has named it otherwise, and cannot change the recipe."""
    try:
        yield
    except UserError as error:
        setting, problem, mend = error.args
        if setting.startswith("--"):
            raise UserError("--holdout", problem, mend) from None
        mend = "bring a dataset with the columns and classes of the training data"
        raise UserError("--holdout", f"{setting}: {problem}", mend) from None


def _of(model: str, field: str) -> str:
    return f"{model} {field}"
