"""Bootstrap intervals against brute force, ROC curves against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

from insitu.report.roc import RESAMPLES, SEED, auc_intervals, curve


def labelled(rows: int, *, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth bool [N, 2], both values in each column, and scores that know it a little."""
    random = np.random.default_rng(rows)
    truth = random.random((rows, 2)) < 0.4
    truth[:2] = [[True, False], [False, True]]
    scores = (0.3 * truth + random.random((rows, 2))) / 1.3
    return truth, np.round(scores * distinct) / distinct


def test_intervals_equal_brute_force_over_the_same_draws() -> None:
    truth, scores = labelled(40, distinct=20)
    random = np.random.default_rng(SEED)
    drawn = [random.integers(40, size=40) for _ in range(RESAMPLES)]
    aucs = np.array([[roc_auc_score(truth[rows, k], scores[rows, k]) for k in (0, 1)] for rows in drawn])
    intervals, macro = auc_intervals(truth, scores)
    np.testing.assert_allclose(intervals, np.percentile(aucs, [2.5, 97.5], axis=0).T, atol=1e-12)
    np.testing.assert_allclose(macro, np.percentile(aucs.mean(axis=1), [2.5, 97.5]), atol=1e-12)


def test_intervals_hold_the_auc_and_narrow_with_the_rows() -> None:
    widths = []
    for rows in (100, 10_000):
        truth, scores = labelled(rows, distinct=10**6)
        intervals, _ = auc_intervals(truth, scores)
        for k, (low, high) in enumerate(intervals):
            assert low < roc_auc_score(truth[:, k], scores[:, k]) < high
        widths.append(np.diff(intervals).mean())
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.25)


def test_two_rows_have_an_interval() -> None:
    intervals, macro = auc_intervals(np.array([[True], [False]]), np.array([[0.9], [0.2]]))
    assert intervals.tolist() == [[1, 1]]
    assert macro.tolist() == [1, 1]


def test_curve_is_short_and_keeps_its_area() -> None:
    truth, scores = labelled(10_000, distinct=10**6)
    false_positives, true_positives = curve(truth[:, 0], scores[:, 0])
    assert len(false_positives) <= 150
    assert (false_positives[0], true_positives[0], false_positives[-1], true_positives[-1]) == (0, 0, 1, 1)
    area = roc_auc_score(truth[:, 0], scores[:, 0])
    assert auc(false_positives, true_positives) == pytest.approx(area, abs=1e-3)
