"""Model weights as one `.npz`, in the order of `keras.Model.get_weights`."""

import tempfile
from pathlib import Path

import numpy as np

from insitu.artifact import download, upload
from insitu.cluster.filesystem import in_scratch


def write_weights(weights: list[np.ndarray], path: Path) -> None:
    np.savez(path, *weights)


def read_weights(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return [archive[f"arr_{i}"] for i in range(len(archive.files))]


def save_weights(weights: list[np.ndarray], uri: str) -> None:
    """Write to any file system."""
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / "weights.npz"
        with in_scratch(scratch):
            write_weights(weights, local)
        upload(local, uri)


def load_weights(uri: str) -> list[np.ndarray]:
    """Read from any file system."""
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / "weights.npz"
        with in_scratch(scratch):
            download(uri, local)
        return read_weights(local)
