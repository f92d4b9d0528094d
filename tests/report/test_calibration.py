"""Reliability bins and the expected calibration error."""

import numpy as np
import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from insitu.report.calibration import BINS, reliability
from insitu.report.predictions import Predictions

SEED = 1711


def multilabel(labels: np.ndarray, scores: np.ndarray) -> Predictions:
    return Predictions(labels[:, None], scores[:, None].astype(np.float32), [""] * len(labels))


def test_scores_that_come_true_as_often_as_they_say_have_no_error() -> None:
    scores = np.repeat([0.25, 0.75], 400)
    labels = np.tile([1, 0, 0, 0], 100).tolist() + np.tile([1, 1, 1, 0], 100).tolist()
    assert reliability(multilabel(np.array(labels), scores)).error == pytest.approx(0, abs=1e-7)


def test_error_is_the_distance_weighed_by_answers() -> None:
    measured = reliability(multilabel(np.array([1, 1, 1, 0]), np.array([0.7, 0.7, 0.7, 0.1])))
    assert measured.answers.tolist() == [1, 3]
    assert measured.error == pytest.approx((3 * 0.3 + 1 * 0.1) / 4)


def test_multiclass_counts_the_highest_score_of_each_row() -> None:
    scores = np.array([[0.1, 0.9], [0.9, 0.1]], np.float32)
    measured = reliability(Predictions(np.array([1, 1]), scores, ["", ""]))
    assert (measured.confidence.tolist(), measured.observed.tolist()) == ([pytest.approx(0.9)], [0.5])


@seed(SEED)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1, width=32)), min_size=1, max_size=50))
def test_every_answer_is_in_a_bin_and_the_error_is_a_share(rows: list[tuple[int, float]]) -> None:
    measured = reliability(multilabel(np.array([row[0] for row in rows]), np.array([row[1] for row in rows])))
    assert measured.answers.sum() == len(rows)
    assert len(measured.answers) <= BINS
    assert 0 <= measured.error <= 1
