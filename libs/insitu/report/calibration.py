"""Whether a score of 0.8 is right eight times out of ten: Guo et al. 2017, arXiv:1706.04599."""

from dataclasses import dataclass

import numpy as np

from insitu.report.predictions import Predictions

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """The answers by confidence, in 15 bins of equal width; bins without answers are left out.

    Attributes:
        confidence: mean score of each bin, float64.
        observed: how often the answers of each bin were right, float64.
        answers: how many there are in each bin, int.
    """

    confidence: np.ndarray
    observed: np.ndarray
    answers: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and observed, by answers (equation 5 there)."""
        return float(np.average(np.abs(self.confidence - self.observed), weights=self.answers))


def reliability(predictions: Predictions) -> Reliability:
    """Multilabel: every score of every class; multiclass: the highest score of each row."""
    if predictions.multilabel:
        scores, right = predictions.scores.ravel(), predictions.labels.ravel() > 0
    else:
        scores, right = predictions.scores.max(axis=1), predictions.answers == predictions.labels
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    answers = np.bincount(bins, minlength=BINS)
    filled = answers > 0
    answers = answers[filled]
    return Reliability(
        confidence=np.bincount(bins, weights=scores, minlength=BINS)[filled] / answers,
        observed=np.bincount(bins, weights=right, minlength=BINS)[filled] / answers,
        answers=answers,
    )
