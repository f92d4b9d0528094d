"""Exact metrics against brute force, scikit-learn and Keras."""

import json

import numpy as np
import pytest
from hypothesis import given, seed
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from insitu.errors import UserError
from insitu.metrics import evaluate

SEED = 1711


def multilabel(rows: int, *, distinct_scores: int = 9) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(SEED + rows)
    labels = random.integers(0, 2, (rows, 3))
    scores = random.integers(0, distinct_scores, (rows, 3)).astype(np.float32) / distinct_scores
    return labels, scores


def multiclass(rows: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(SEED + rows)
    return random.integers(0, 3, rows), random.dirichlet(np.ones(3), rows).astype(np.float32)


def pair_counting_auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The share of (positive, negative) pairs in the right order, ties counting half."""
    pairs = [(p, n) for p in scores[labels == 1] for n in scores[labels == 0]]
    return sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs) if pairs else None


@seed(SEED)
@given(rows=st.integers(1, 30))
def test_auc_is_the_share_of_pairs_in_order(rows: int) -> None:
    labels, scores = multilabel(rows)
    metrics = evaluate(kind="multilabel", labels=labels, scores=scores, class_names=["a", "b", "c"])
    expected = [pair_counting_auc(labels[:, k], scores[:, k]) for k in range(3)]
    assert list(metrics["auc"].values()) == [
        pytest.approx(auc, abs=1e-12) if auc is not None else None for auc in expected
    ]
    defined = [auc for auc in expected if auc is not None]
    assert metrics["auc_macro"] == (pytest.approx(np.mean(defined), abs=1e-12) if defined else None)


def test_multilabel_equals_scikit_learn_and_counts_every_label() -> None:
    labels, scores = multilabel(200, distinct_scores=1000)
    metrics = evaluate(kind="multilabel", labels=labels, scores=scores, class_names=["a", "b", "c"])
    assert metrics["auc_macro"] == roc_auc_score(labels, scores, average="macro")
    assert metrics["accuracy"] == sum((s > 0.5) == t for s, t in zip(scores.flat, labels.flat, strict=True)) / 600


def test_multiclass_equals_scikit_learn_one_against_the_rest() -> None:
    labels, scores = multiclass(200)
    metrics = evaluate(kind="multiclass", labels=labels, scores=scores, class_names=["a", "b", "c"])
    assert metrics["auc_macro"] == pytest.approx(np.mean([roc_auc_score(labels == k, scores[:, k]) for k in range(3)]))
    assert metrics["accuracy"] == sum(int(np.argmax(s)) == t for s, t in zip(scores, labels, strict=True)) / 200


def test_loss_is_the_training_loss() -> None:
    from tensorflow import keras

    labels, scores = multilabel(50)
    scores = 0.05 + 0.9 * scores  # Keras and we clip the saturated ones differently
    binary = evaluate(kind="multilabel", labels=labels, scores=scores, class_names=["a", "b", "c"])["loss"]
    assert binary == pytest.approx(float(keras.losses.BinaryCrossentropy()(labels, scores)), rel=1e-6)
    labels, scores = multiclass(50)
    categorical = evaluate(kind="multiclass", labels=labels, scores=scores, class_names=["a", "b", "c"])["loss"]
    assert categorical == pytest.approx(float(keras.losses.SparseCategoricalCrossentropy()(labels, scores)), rel=1e-6)


def test_saturated_scores_give_a_finite_loss() -> None:
    labels, scores = np.array([[0, 1]]), np.array([[1, 0]], np.float32)
    metrics = evaluate(kind="multilabel", labels=labels, scores=scores, class_names=["a", "b"])
    assert metrics["loss"] == pytest.approx(-np.log(1e-7))


def test_class_with_one_label_has_no_auc_and_is_left_out_of_the_mean() -> None:
    labels, scores = np.array([[0, 1], [0, 0]]), np.array([[0.1, 0.9], [0.2, 0.3]], np.float32)
    metrics = evaluate(kind="multilabel", labels=labels, scores=scores, class_names=["never", "some"])
    assert metrics["auc"] == {"never": None, "some": 1.0}
    assert metrics["auc_macro"] == 1.0


def test_metrics_are_plain_json() -> None:
    labels, scores = multiclass(20)
    metrics = evaluate(kind="multiclass", labels=labels, scores=scores, class_names=["a", "b", "c"])
    assert json.loads(json.dumps(metrics)) == metrics


def test_nan_scores_say_that_the_training_diverged() -> None:
    labels, scores = multilabel(5)
    scores[1, 2] = np.nan
    with pytest.raises(
        UserError, match=r"training\.optimizer\.learning_rate: training diverged: 1 of 5 rows .*; lower"
    ):
        evaluate(kind="multilabel", labels=labels, scores=scores, class_names=["a", "b", "c"])


@pytest.mark.parametrize(("rows", "scored"), [(0, 0), (4, 5)])
def test_no_rows_and_scores_of_other_rows_are_refused(rows: int, scored: int) -> None:
    labels, _ = multilabel(rows)
    with pytest.raises(ValueError, match=rf"scores of shape \({scored}, 3\) for {rows} rows"):
        evaluate(kind="multilabel", labels=labels, scores=np.zeros((scored, 3)), class_names=["a", "b", "c"])
