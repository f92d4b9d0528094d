"""Model weights as one `.npz` on any file system, in the order of `keras.Model.get_weights`."""

import tempfile
from pathlib import Path

import numpy as np

from insitu.artifact import download, upload


def save_weights(weights: list[np.ndarray], uri: str) -> None:
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / "weights.npz"
        np.savez(local, *weights)
        upload(local, uri)


def load_weights(uri: str) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / "weights.npz"
        download(uri, local)
        with np.load(local, allow_pickle=False) as archive:
            return [archive[f"arr_{i}"] for i in range(len(archive.files))]
