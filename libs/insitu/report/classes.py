"""What the report says of each class, and of which classes.

Legend: N rows, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from insitu.report.predictions import Predictions
from insitu.report.roc import auc_intervals

MOST_CLASSES = 24
MOST_CONFUSED = 16


@dataclass(frozen=True)
class ClassRow:
    """A class in numbers: rows labelled and predicted as it, its ROC AUC and the 95 % interval of that.

    `auc`, `low` and `high` are None where only one label occurs.
    """

    index: int
    name: str
    labelled: int
    predicted: int
    auc: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassTable:
    """The classes that are shown, with the interval of their mean AUC where they are all K."""

    rows: list[ClassRow]
    macro: tuple[float, float] | None

    @property
    def axis(self) -> tuple[float, float]:
        """Where the drawn intervals begin and end: at 0.5 unless one reaches below."""
        return (0.5 if all(row.low is None or row.low >= 0.5 for row in self.rows) else 0.0), 1.0


def class_table(
    predictions: Predictions, *, class_names: Sequence[str], aucs: Mapping[str, float | None]
) -> ClassTable:
    """All classes in their order; of more than 24, those with the lowest AUC, the lowest first."""
    labelled, predicted = predictions.counts()
    shown = list(range(len(class_names)))
    if len(shown) > MOST_CLASSES:
        shown = sorted(shown, key=lambda k: _or_two(aucs[class_names[k]]))[:MOST_CLASSES]
    defined = [k for k in shown if aucs[class_names[k]] is not None]
    limits, macro = {}, None
    if defined:
        truth = np.stack([predictions.truth(k) for k in defined], axis=1)
        intervals, mean = auc_intervals(truth, predictions.scores[:, defined])
        limits = dict(zip(defined, intervals.tolist(), strict=True))
        macro = (float(mean[0]), float(mean[1])) if len(shown) == len(class_names) else None
    return ClassTable(
        rows=[
            ClassRow(
                k,
                class_names[k],
                int(labelled[k]),
                int(predicted[k]),
                aucs[class_names[k]],
                *limits.get(k, (None, None)),
            )
            for k in shown
        ],
        macro=macro,
    )


def most_confused(predictions: Predictions) -> np.ndarray:
    """The classes of the confusion matrix: all, or of more than 16 those with the most wrong rows; int, ascending."""
    classes = predictions.scores.shape[1]
    wrong = predictions.labels != predictions.answers
    errors = sum(np.bincount(side[wrong], minlength=classes) for side in (predictions.labels, predictions.answers))
    return np.sort(np.argsort(-np.asarray(errors), kind="stable")[:MOST_CONFUSED])


def _or_two(auc: float | None) -> float:
    """Undefined AUCs sort last."""
    return 2.0 if auc is None else auc
