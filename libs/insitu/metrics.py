"""Exact validation metrics from all scores of a split, in float64.

Legend: N rows, K classes.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import numpy as np

from insitu.errors import UserError

_EPSILON = 1e-7  # Keras's clip on probabilities: no loss is infinite


class Metrics(TypedDict):
    """Plain JSON values.

    loss: mean cross-entropy, without class weights; binary ones also averaged over the classes.
    accuracy: multilabel: the share of the N·K labels that score > 0.5 gets right; multiclass: of rows.
    auc: ROC AUC by class, one class against the rest; None where only one label occurs.
    auc_macro: mean of those that are not None; None if all are.
    """

    loss: float
    accuracy: float
    auc: dict[str, float | None]
    auc_macro: float | None


def headline(kind: str, metrics: Mapping[str, Any]) -> str:
    """The metric that models are judged by: macro AUC of several labels, where there is one, else accuracy."""
    return "auc_macro" if kind == "multilabel" and metrics["auc_macro"] is not None else "accuracy"


def evaluate(
    *,
    kind: Literal["multilabel", "multiclass"],
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: list[str],
) -> Metrics:
    """Score a model's predictions on a whole split.

    Args:
        kind: what a row's labels are.
        labels: multilabel: 0/1 [N, K]; multiclass: integers 0..K-1 [N].
        scores: float32 [N, K] in 0..1, the model's outputs.
        class_names: the K names.

    Raises:
        UserError: `training.optimizer.learning_rate`, if a score is NaN: the training diverged.
        ValueError: no rows, or the number of scores is not N x K.
    """
    if len(labels) == 0 or scores.shape != (len(labels), len(class_names)):
        raise ValueError(f"scores of shape {scores.shape} for {len(labels)} rows and {len(class_names)} classes")
    diverged = int(np.isnan(scores).any(axis=1).sum())
    if diverged:
        raise UserError(
            "training.optimizer.learning_rate",
            f"training diverged: {diverged} of {len(scores)} rows have NaN scores",
            "lower it, or warm up for longer",
        )
    scores = scores.astype(np.float64)
    if kind == "multilabel":
        truth = labels.astype(np.float64)
        loss, accuracy = _binary_cross_entropy(truth, scores), np.mean((scores > 0.5) == (truth > 0.5))
    else:
        truth = np.eye(len(class_names))[labels]
        loss, accuracy = _cross_entropy(truth, scores), np.mean(scores.argmax(axis=1) == labels)
    auc = {name: _auc(truth[:, k], scores[:, k]) for k, name in enumerate(class_names)}
    defined = [value for value in auc.values() if value is not None]
    return Metrics(
        loss=float(loss),
        accuracy=float(accuracy),
        auc=auc,
        auc_macro=float(np.mean(defined)) if defined else None,
    )


def recall(*, labels: np.ndarray, scores: np.ndarray, class_names: list[str]) -> dict[str, float | None]:
    """By class, the share of its rows that are answered with it; None where it has none.

    Args:
        labels: integers 0..K-1 [N].
        scores: [N, K]; the highest of a row is its answer.
        class_names: the K names.
    """
    rows = np.bincount(labels, minlength=len(class_names))
    hits = np.bincount(labels[scores.argmax(axis=1) == labels], minlength=len(class_names))
    return {name: float(hits[k] / rows[k]) if rows[k] else None for k, name in enumerate(class_names)}


def _auc(truth: np.ndarray, scores: np.ndarray) -> float | None:
    if truth.min() == truth.max():
        return None
    from sklearn.metrics import roc_auc_score  # 0.7 s that no worker's first step waits for

    return float(roc_auc_score(truth, scores))


def _binary_cross_entropy(truth: np.ndarray, scores: np.ndarray) -> float:
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return -np.mean(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped))


def _cross_entropy(truth: np.ndarray, scores: np.ndarray) -> float:
    return -np.mean(np.sum(truth * np.log(np.clip(scores, _EPSILON, 1 - _EPSILON)), axis=1))
