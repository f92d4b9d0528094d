"""The pure picture: reproducible, at Table I's frequencies, with signs that show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.data.xray import CLASSES, FREQUENCIES, IMAGES_PER_PATIENT, labels, patient, picture, xray

SEED = 20171113


@settings(max_examples=25)
@given(index=st.integers(0, 10**9), size=st.integers(32, 80), seed=st.integers(0, 2**32))
def test_an_image_is_a_pure_function_of_index_size_and_seed(index: int, size: int, seed: int) -> None:
    pixels, findings = xray(index, size=size, seed=seed)
    again, findings_again = xray(index, size=size, seed=seed)
    assert pixels.shape == (size, size) and pixels.dtype == np.uint8
    assert findings.shape == (14,) and findings.dtype == np.uint8 and set(findings) <= {0, 1}
    np.testing.assert_array_equal(pixels, again)
    np.testing.assert_array_equal(findings, findings_again)
    np.testing.assert_array_equal(findings, labels(index, seed=seed))


def test_images_differ_by_index_and_by_seed() -> None:
    first, _ = xray(0, size=64, seed=SEED)
    assert not np.array_equal(first, xray(1, size=64, seed=SEED)[0])
    assert not np.array_equal(first, xray(0, size=64, seed=SEED + 1)[0])


def test_labels_have_the_frequencies_of_table_1_and_are_independent() -> None:
    drawn = np.array([labels(index, seed=SEED) for index in range(20_000)])
    spread = np.sqrt(FREQUENCIES * (1 - FREQUENCIES) / len(drawn))
    assert (np.abs(drawn.mean(axis=0) - FREQUENCIES) < 4 * spread).all(), f"seed {SEED}"
    none = (drawn.sum(axis=1) == 0).mean()
    assert none == pytest.approx(np.prod(1 - FREQUENCIES), abs=0.015)


def test_the_misprints_of_table_1_are_not_followed() -> None:
    frequency = dict(zip(CLASSES, FREQUENCIES, strict=True))
    assert frequency["Mass"] == pytest.approx(0.0512, abs=1e-4)
    assert frequency["Effusion"] == pytest.approx(0.1188, abs=1e-4)
    assert frequency["Hernia"] == pytest.approx(0.0020, abs=1e-4)


def test_every_four_images_are_one_patient() -> None:
    assert [patient(index) for index in range(9)] == [0] * IMAGES_PER_PATIENT + [1] * IMAGES_PER_PATIENT + [2]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("size", [64, 96])
def test_every_sign_changes_the_picture(name: str, size: int) -> None:
    """The same image with only this finding and with none: a visible area differs visibly."""
    only = np.array([known == name for known in CLASSES], np.uint8)
    healthy = picture(5, np.zeros(14, np.uint8), size=size, seed=SEED).astype(int)
    changed = np.abs(picture(5, only, size=size, seed=SEED) - healthy) > 40
    assert changed.mean() > 0.004
