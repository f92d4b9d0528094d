"""Predictions out of their file, and what is counted of them."""

from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from insitu.report.classes import MOST_CLASSES, MOST_CONFUSED, class_table, most_confused
from insitu.report.predictions import Predictions, read_predictions
from report.trained_runs import write_predictions

SEED = 3


def multiclass(rows: int, classes: int) -> Predictions:
    random = np.random.default_rng(SEED)
    scores = random.dirichlet(np.ones(classes), rows).astype(np.float32)
    return Predictions(random.integers(0, classes, rows), scores, [""] * rows)


def test_file_gives_back_labels_scores_and_places(tmp_path: Path) -> None:
    scores = np.random.default_rng(SEED).random((25, 3)).astype(np.float32)
    for labels in (np.arange(25) % 3, np.eye(3, dtype=np.int64)[np.arange(25) % 3]):
        write_predictions(tmp_path, labels, scores)
        read = read_predictions(tmp_path / "predictions.parquet")
        np.testing.assert_array_equal(read.labels, labels)
        np.testing.assert_array_equal(read.scores, scores)
        assert read.rows[24] == "row 4 of row group 1 in part-0.parquet"
        assert read.multilabel == (labels.ndim == 2)


def test_counts_and_confusion_equal_scikit_learn() -> None:
    predictions = multiclass(200, 5)
    expected = confusion_matrix(predictions.labels, predictions.scores.argmax(axis=1))
    np.testing.assert_array_equal(predictions.confusion(np.arange(5)), expected)
    labelled, predicted = predictions.counts()
    np.testing.assert_array_equal(labelled, expected.sum(axis=1))
    np.testing.assert_array_equal(predicted, expected.sum(axis=0))


def test_many_classes_are_cut_to_the_weakest() -> None:
    names = [f"class {k}" for k in range(60)]
    aucs = {name: None if k == 7 else k / 60 for k, name in enumerate(names)}
    table = class_table(multiclass(300, 60), class_names=names, aucs=aucs)
    expected = [k for k in range(60) if k != 7][:MOST_CLASSES]
    assert [row.index for row in table.rows] == expected
    assert table.macro is None


def test_class_without_an_auc_is_in_the_table_without_an_interval() -> None:
    predictions = Predictions(np.array([0, 1, 1, 0]), np.eye(3, dtype=np.float32)[[0, 1, 1, 1]], [""] * 4)
    table = class_table(predictions, class_names=["a", "b", "c"], aucs={"a": 0.75, "b": 0.75, "c": None})
    assert [(row.auc, row.low is None) for row in table.rows] == [(0.75, False), (0.75, False), (None, True)]
    assert table.macro is not None


def test_most_confused_classes_are_those_with_wrong_rows() -> None:
    labels = np.arange(50).repeat(2)
    answers = labels.copy()
    answers[[20, 21]] = 30  # two rows of class 10
    predictions = Predictions(labels, np.eye(50, dtype=np.float32)[answers], [""] * 100)
    shown = most_confused(predictions)
    assert len(shown) == MOST_CONFUSED
    assert {10, 30} <= set(shown.tolist())
    assert shown.tolist() == sorted(shown)
