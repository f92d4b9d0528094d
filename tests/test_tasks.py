"""Tasks against scikit-learn and NumPy: label checks, class weights and losses."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from insitu.errors import UserError
from insitu.tasks import TASKS, LabelCounts

MULTICLASS, MULTILABEL = TASKS["multiclass"], TASKS["multilabel"]


def multiclass_counts(labels: np.ndarray) -> LabelCounts:
    classes, rows = np.unique(labels, return_counts=True)
    return LabelCounts(len(labels), dict(zip(classes.tolist(), rows.tolist(), strict=True)))


def multilabel_counts(labels: np.ndarray) -> LabelCounts:
    return LabelCounts(len(labels), dict(enumerate(labels.sum(axis=0).tolist())), (labels.shape[1],))


def scores(rows: int, classes: int, *, sums_to_one: bool) -> np.ndarray:
    drawn = np.random.default_rng(7).uniform(0.05, 0.95, (rows, classes)).astype(np.float32)
    return drawn / drawn.sum(axis=1, keepdims=True) if sums_to_one else drawn


def test_multiclass_counts_up_to_the_largest_label() -> None:
    assert MULTICLASS.count_classes(multiclass_counts(np.array([0, 2, 2]))) == 3


def test_multilabel_counts_the_commonest_width() -> None:
    assert MULTILABEL.count_classes(LabelCounts(5, {0: 1}, (14, 13))) == 14


@pytest.mark.parametrize("label", [-1, 3])
def test_multiclass_label_outside_the_classes_is_refused(label: int) -> None:
    with pytest.raises(UserError, match=rf"task\.classes: label {label} is outside the classes 0\.\.2; "):
        MULTICLASS.check_range(multiclass_counts(np.array([0, 1, 2, label])), 3)


def test_multiclass_labels_inside_the_classes_are_accepted() -> None:
    MULTICLASS.check_range(multiclass_counts(np.array([0, 2])), 3)


def test_multilabel_of_another_length_is_refused() -> None:
    with pytest.raises(UserError, match=r"task\.classes: a label has 13 entries, expected 14; "):
        MULTILABEL.check_range(LabelCounts(5, {0: 1}, (14, 13)), 14)


def test_rows_of_one_class_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.label_column: all training rows are of class 4; "):
        MULTICLASS.check_variety(multiclass_counts(np.array([4, 4])), 5)
    MULTICLASS.check_variety(multiclass_counts(np.array([4, 3])), 5)


@pytest.mark.parametrize("row", [[0, 0], [1, 1], [0, 1]])
def test_rows_that_all_have_the_same_labels_are_refused(row: list[int]) -> None:
    with pytest.raises(UserError, match=r"data\.label_column: every training row has the same labels; "):
        MULTILABEL.check_variety(multilabel_counts(np.array([row] * 3)), 2)
    MULTILABEL.check_variety(multilabel_counts(np.array([row] * 3 + [[1, 0]])), 2)


def test_multiclass_weights_are_scikit_learns_balanced() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [3] * 11)
    weights = MULTICLASS.class_weights(multiclass_counts(labels), 4)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(weights[[0, 1, 3]], expected, rtol=1e-6)
    assert weights.dtype == np.float32
    assert weights[labels].mean() == pytest.approx(1)


def test_multilabel_weights_are_chexnets() -> None:
    labels = (np.random.default_rng(3).random((50, 4)) < [0.1, 0.3, 0.5, 0.9]).astype(int)
    weights = MULTILABEL.class_weights(multilabel_counts(labels), 4)
    negatives, positives = (labels == 0).sum(axis=0), (labels == 1).sum(axis=0)
    of_positive, of_negative = negatives / (positives + negatives), positives / (positives + negatives)
    np.testing.assert_allclose(weights, [of_negative, of_positive], rtol=1e-6)
    assert weights.dtype == np.float32


@pytest.mark.parametrize("weighted", [False, True])
def test_multiclass_loss_is_weighted_cross_entropy(weighted: bool) -> None:
    labels = np.array([0, 2, 1, 2], np.int64)
    given = scores(4, 3, sums_to_one=True)
    weights = np.array([0.5, 2.0, 1.25], np.float32) if weighted else None
    expected = -np.log(given[np.arange(4), labels])
    if weights is not None:
        expected *= weights[labels]
    found = MULTICLASS.loss(weights)(tf.constant(labels), tf.constant(given))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_multilabel_loss_is_weighted_binary_cross_entropy(weighted: bool) -> None:
    labels = np.array([[0, 1, 1], [1, 0, 0]], np.float32)
    given = scores(2, 3, sums_to_one=False)
    weights = np.array([[0.1, 0.6, 0.5], [0.9, 0.4, 0.5]], np.float32) if weighted else None
    of_negative, of_positive = (1.0, 1.0) if weights is None else weights
    expected = -(of_positive * labels * np.log(given) + of_negative * (1 - labels) * np.log(1 - given)).mean(axis=1)
    found = MULTILABEL.loss(weights)(tf.constant(labels), tf.constant(given))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", TASKS)
def test_loss_trains_what_keras_feeds_it(kind: str) -> None:
    """Keras gives integer labels as [B, 1] and averages the loss of the rows."""
    task = TASKS[kind]
    rng = np.random.default_rng(5)
    images = rng.random((8, 4)).astype(np.float32)
    labels = rng.integers(0, 2, (8, *task.label_shape(3))).astype(task.label_dtype)
    counts = multilabel_counts(labels.astype(int)) if kind == "multilabel" else multiclass_counts(labels)
    loss = task.loss(task.class_weights(counts, 3))
    model = tf.keras.Sequential([tf.keras.layers.Dense(3, activation=task.activation)])
    model.compile("sgd", loss=loss)
    expected = float(np.mean(loss(tf.constant(labels), model(images))))
    assert model.evaluate(images, labels, verbose=0) == pytest.approx(expected, rel=1e-5)
