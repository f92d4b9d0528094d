"""Weights through an `.npz` and back."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from insitu.training.weights import load_weights, save_weights


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_weights_come_back_in_order_with_shape_and_dtype(tmp_path: Path, scheme: str) -> None:
    rng = np.random.default_rng(1)
    shapes = [(3, 3, 1, 8), (8,), (), (0, 4), *[(2,)] * 9]  # more than 10: arr_10 is not read before arr_2
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in shapes] + [np.array([7], np.int64)]
    uri = f"{scheme}{tmp_path}/weights.npz"
    save_weights(weights, uri)
    loaded = load_weights(uri)
    assert len(loaded) == len(weights)
    for ours, theirs in zip(loaded, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    uri = f"{tmp_path}/weights.npz"
    save_weights([np.zeros(3)], uri)
    save_weights([np.ones(2)], uri)
    np.testing.assert_array_equal(load_weights(uri)[0], np.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.npz"]


def test_a_full_temporary_directory_is_named(
    tmp_path: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, disk = f"{tmp_path}/weights.npz", small_disk("64k")
    save_weights([np.zeros(20_000)], uri)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    for attempt in (lambda: save_weights([np.zeros(20_000)], uri), lambda: load_weights(uri)):
        with pytest.raises(OSError, match=rf"No space left on device in {disk}/\S+, a temporary directory \(of TMPDIR"):
            attempt()


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", arr_0=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_weights(str(tmp_path / "weights.npz"))
