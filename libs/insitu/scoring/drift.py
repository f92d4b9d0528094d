"""Whether the rows that are scored are still like those that the model was validated on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10
PSI_ALARM = 0.2
P_ALARM = 0.001
_LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class Drift:
    """How far the values of a statistic have moved.

    Attributes:
        statistic: its name.
        psi: population stability index over the tenths of the reference; 0 where nothing has moved.
        ks: Kolmogorov-Smirnov statistic, the largest difference of the two distribution functions, 0..1.
        p: probability of so large a one by chance.
    """

    statistic: str
    psi: float
    ks: float
    p: float

    @property
    def alarms(self) -> bool:
        """Whether it is both large, by the usual limit of the index, and no chance."""
        return self.psi >= PSI_ALARM and self.p < P_ALARM


def drifts(
    reference: Mapping[str, Sequence[float] | np.ndarray], recent: Mapping[str, Sequence[float] | np.ndarray]
) -> list[Drift]:
    """Compare the statistics that both have, without what is null in either; one without a value is left out."""
    found = []
    for name in reference:
        if name in recent:
            before, now = _values(reference[name]), _values(recent[name])
            if len(before) and len(now):
                found.append(_drift(name, before, now))
    return found


def _drift(name: str, reference: np.ndarray, recent: np.ndarray) -> Drift:
    from scipy.stats import ks_2samp

    test = ks_2samp(reference, recent)
    return Drift(name, stability_index(reference, recent), float(test.statistic), float(test.pvalue))


def stability_index(reference: np.ndarray, recent: np.ndarray) -> float:
    """The population stability index: the sum over bins of (now - before) · ln(now / before), of shares of the rows.

    The bins hold a tenth of the reference each; a value that is a tenth or more of it is a bin of its own, apart from
    what is less. An empty bin counts as 0.01 %.
    """
    inner, tenths = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]), return_counts=True)
    edges = np.unique([*inner, *np.nextafter(inner[tenths > 1], -np.inf)])
    before, now = (
        np.maximum(np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values), _LEAST_SHARE)
        for values in (reference, recent)
    )
    return float(np.sum((now - before) * np.log(now / before)))


def _values(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.array(values, np.float64)
    return array[np.isfinite(array)]
