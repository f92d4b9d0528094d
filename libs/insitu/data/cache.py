"""Decoded images that stay in a worker's memory from epoch to epoch, as tf.data's `cache` and petastorm's keep them."""

import math
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np

from insitu.cluster.machine import usable_memory_bytes
from insitu.data.inputs import ImageInput
from insitu.data.pipeline import Source
from insitu.errors import UserError

_DIGEST_BYTES = 16
_OBJECT_BYTES = 400
"""Of Python's objects beside an image's pixels."""


@dataclass(frozen=True)
class CachedImages(ImageInput):
    """Images of which the first ones are decoded once, known again by a digest of their bytes.

    What came first stays: were the oldest given up for the newest, as an LRU cache does, a data set that is larger
    than the cache would find none again, since an epoch reads every row once.

    Attributes:
        rows: how many are kept.
        kept: pixels by digest.
    """

    rows: int
    kept: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """uint8 [B, h, w, C]; raises `BadImage`."""
        return np.stack([self._pixels(stored, row) for row in range(len(stored))])

    def _pixels(self, stored: np.ndarray, row: int) -> np.ndarray:
        digest = blake2b(stored[row], digest_size=_DIGEST_BYTES).digest()
        pixels = self.kept.get(digest)
        if pixels is None:
            (pixels,) = super().decode(stored[row : row + 1])
            if len(self.kept) < self.rows:
                self.kept[digest] = pixels
        return pixels


def cached_rows(shape: tuple[int, int, int], mib: int, *, rows: int) -> int:
    """How many of `rows` images of `shape` (h, w, C) a cache holds."""
    return min(rows, mib * 2**20 // _bytes(shape))


def with_cache(source: Source, mib: int, *, rows: int, workers: int) -> Source:
    """A worker's source of images that keeps decoded ones; as it is where `mib` is 0.

    Args:
        source: of images.
        mib: `data.cache_mib`.
        rows: that the worker reads.
        workers: on this host.

    Raises:
        UserError: they would keep more than this host's memory.
    """
    if not mib:
        return source
    assert isinstance(source.input, ImageInput)
    kept = cached_rows(source.input.shape, mib, rows=rows)
    needed, memory = workers * kept * _bytes(source.input.shape) // 2**20, usable_memory_bytes() // 2**20
    if needed > memory:
        problem = f"{workers} workers of a host would keep {needed} MiB of decoded images, and it has {memory} MiB"
        raise UserError("data.cache_mib", problem, "lower it, or take fewer workers a host")
    return replace(source, input=CachedImages(**vars(source.input), rows=kept))


def _bytes(shape: tuple[int, int, int]) -> int:
    return math.prod(shape) + _OBJECT_BYTES
