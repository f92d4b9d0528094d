"""Drift of one statistic against another sample of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.scoring.drift import drifts, stability_index

NORMAL = np.random.default_rng(20240229).normal(size=2000)


def test_stability_index_is_the_textbooks() -> None:
    """Two bins of 50 % each become 80 % and 20 %."""
    reference, recent = np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [80, 20])
    expected = (0.8 - 0.5) * np.log(0.8 / 0.5) + (0.2 - 0.5) * np.log(0.2 / 0.5)
    assert stability_index(reference, recent) == pytest.approx(expected)


@pytest.mark.parametrize(("shift", "alarms"), [(0.0, False), (0.1, False), (1.0, True)])
def test_alarm_is_of_a_shift_that_is_large_and_no_chance(shift: float, alarms: bool) -> None:
    recent = np.random.default_rng(1).normal(shift, size=500)
    (drift,) = drifts({"x": NORMAL}, {"x": recent})
    assert drift.alarms is alarms


def test_few_rows_are_no_alarm_however_far_they_seem() -> None:
    (drift,) = drifts({"x": NORMAL}, {"x": NORMAL[:3]})
    assert drift.psi > 0.2
    assert not drift.alarms


def test_nulls_are_left_out_and_empty_statistics_too() -> None:
    found = drifts({"x": NORMAL, "height": [np.nan], "gone": NORMAL}, {"x": [np.nan, *NORMAL], "height": [1.0]})
    assert [(drift.statistic, drift.psi) for drift in found] == [("x", 0.0)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_stability_index_is_zero_of_the_same_and_never_negative(reference: list[float], recent: list[float]) -> None:
    assert stability_index(np.array(reference), np.array(reference)) == 0
    assert stability_index(np.array(reference), np.array(recent)) >= 0


@pytest.mark.parametrize("reference", [[96.0] * 500, [1024.0] * 475 + [512.0] * 25])
@pytest.mark.parametrize("recent", [64.0, 128.0, 512.0, 2048.0])
def test_a_value_that_repeats_may_drift_either_way(reference: list[float], recent: float) -> None:
    (drift,) = drifts({"input_height": reference}, {"input_height": [recent] * 100})
    assert drift.alarms
    (same,) = drifts({"input_height": reference}, {"input_height": reference[::5]})
    assert (same.psi, same.alarms) == (0, False)
