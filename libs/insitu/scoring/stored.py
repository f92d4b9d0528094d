"""What a network takes on disk, and what of it is the same again and again."""

import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Stored:
    """A network's files, and its kernels: the weights of its convolutions and dense layers, without biases.

    Attributes:
        bytes: of the files.
        zipped_bytes: of a zip archive of them.
        zeros: the share of the kernels' weights, 0..1.
        distinct_values: of the weights of one kernel, the one that has the most.
    """

    bytes: int
    zipped_bytes: int
    zeros: float
    distinct_values: int


def stored(files: Sequence[Path], kernels: Sequence[np.ndarray]) -> Stored:
    """Measure a network.

    Args:
        files: that it is in.
        kernels: as they are in them, of any dtype and shape.
    """
    weights = sum(kernel.size for kernel in kernels)
    return Stored(
        bytes=sum(path.stat().st_size for path in files),
        zipped_bytes=_zipped_bytes(files),
        zeros=1 - sum(np.count_nonzero(kernel) for kernel in kernels) / weights,
        distinct_values=max(len(np.unique(kernel)) for kernel in kernels),
    )


def _zipped_bytes(files: Sequence[Path]) -> int:
    with tempfile.TemporaryFile(prefix="insitu-") as archive:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for path in files:
                out.write(path, path.name)
        return archive.tell()
