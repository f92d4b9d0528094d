"""Which predictions are shown."""

import numpy as np
from hypothesis import given, seed
from hypothesis import strategies as st

from insitu.report.gallery import choose
from insitu.report.predictions import Predictions

SEED = 1711


def predictions(rows: int, classes: int, *, multilabel: bool) -> Predictions:
    random = np.random.default_rng(SEED + rows)
    labels = random.integers(0, 2, (rows, classes)) if multilabel else random.integers(0, classes, rows)
    return Predictions(labels, random.random((rows, classes)).astype(np.float32), [""] * rows)


@seed(SEED)
@given(st.integers(2, 60), st.integers(2, 12))
def test_multiclass_kinds_are_right_and_wrong(rows: int, classes: int) -> None:
    made = predictions(rows, classes, multilabel=False)
    answers = made.scores.argmax(axis=1)
    (_, _, right), (_, _, wrong) = choose(made)
    assert all(answers[choice.row] == made.labels[choice.row] == choice.explained for choice in right)
    assert all(answers[choice.row] == choice.explained != made.labels[choice.row] for choice in wrong)
    hits = int((answers == made.labels).sum())
    assert (len(right), len(wrong)) == (min(8, hits), min(8, rows - hits))


@seed(SEED)
@given(st.integers(2, 60), st.integers(2, 12))
def test_multilabel_kinds_are_found_missed_and_false(rows: int, classes: int) -> None:
    made = predictions(rows, classes, multilabel=True)
    for (_, _, chosen), (label, answer) in zip(choose(made), [(1, True), (1, False), (0, True)], strict=True):
        places = [(choice.row, choice.explained) for choice in chosen]
        assert all((made.labels[place], made.scores[place] > 0.5) == (label, answer) for place in places)
        assert len({row for row, _ in places}) == len(places) <= 8


def test_wrong_ones_come_surest_first_and_right_ones_by_class() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3], [0.95, 0.05]], np.float32)
    made = Predictions(np.array([0, 0, 1, 1, 1]), scores, [""] * 5)
    (_, _, right), (_, _, wrong) = choose(made)
    assert [choice.row for choice in right] == [0, 2, 1]
    assert [choice.row for choice in wrong] == [4, 3]
