"""ROC curves, and how sure an AUC is.

Legend: N rows, K classes, R resamples.
"""

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_curve

RESAMPLES = 1000
SEED = 17
_BINS = 1000
_CHUNK = 25  # resamples at once: 4 * N * 25 bytes
_CURVE_POINTS = 150


def curve(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate of a class, at most 150 points of its ROC curve.

    Args:
        truth: bool [N], both values in it.
        scores: float [N].
    """
    false_positives, true_positives, _ = roc_curve(truth, scores)
    kept = np.unique(np.linspace(0, len(false_positives) - 1, _CURVE_POINTS).astype(int))
    return false_positives[kept], true_positives[kept]


def auc_intervals(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap intervals of ROC AUCs: Efron, Tibshirani 1993, section 13.3.

    The N rows are drawn with replacement 1000 times from seed 17, the same draw for every class. Scores
    are ranked into at most 1000 bins, within which they tie. A draw that holds only one label of a
    class is left out for that class.

    Args:
        truth: bool [N, K], both values in every column.
        scores: float [N, K].

    Returns:
        low and high of each class, float64 [K, 2], and of their mean, float64 [2].
    """
    random = np.random.default_rng(SEED)
    cells = [_cells(truth[:, k], scores[:, k]) for k in range(truth.shape[1])]
    chunks = []
    for _ in range(RESAMPLES // _CHUNK):
        draws = _draws(random, len(truth))
        chunks.append(np.stack([_aucs(cell @ draws) for cell in cells], axis=1))
    aucs = np.concatenate(chunks)
    defined = aucs[~np.isnan(aucs).all(axis=1)]
    means = np.nanmean(defined, axis=1)
    return np.nanpercentile(defined, [2.5, 97.5], axis=0).T, np.percentile(means, [2.5, 97.5])


def _cells(truth: np.ndarray, scores: np.ndarray) -> csr_matrix:
    """Which of the 2 * bins (bin, label) cells a row is in: float32 0/1 [2 * bins, N]."""
    values, place = np.unique(scores, return_inverse=True)
    bins = min(len(values), _BINS)
    cell = 2 * (place * bins // len(values)) + truth
    return csr_matrix((np.ones(len(truth), np.float32), (cell, np.arange(len(truth)))), shape=(2 * bins, len(truth)))


def _draws(random: np.random.Generator, rows: int) -> np.ndarray:
    """How often each row is in each resample of one chunk: float32 [N, chunk]."""
    counts = [np.bincount(random.integers(rows, size=rows), minlength=rows) for _ in range(_CHUNK)]
    return np.stack(counts, axis=1).astype(np.float32)


def _aucs(counts: np.ndarray) -> np.ndarray:
    """AUC of each resample from its counts by cell [2 * bins, R]: the share of pairs in order, ties counting half."""
    negative, positive = counts[0::2].astype(np.float64), counts[1::2].astype(np.float64)
    below = np.cumsum(negative, axis=0) - negative / 2
    pairs = negative.sum(axis=0) * positive.sum(axis=0)
    return np.divide((positive * below).sum(axis=0), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
