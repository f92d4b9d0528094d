"""What production data is compared with: a sample of the validation rows, kept in the model directory."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from insitu.data.plan import Rows, ShardPlan
from insitu.training.prepare import Prepared

_MOST_ROWS = 2000
_ROW_GROUPS = 32


def reference(prepared: Prepared, validation: ShardPlan, predictions: pa.Table) -> pa.Table:
    """At most 2000 validation rows, spread evenly, of no more row groups than that takes, or of 32.

    Args:
        prepared: the dataset.
        validation: the rows of the split.
        predictions: a row for each of them, in their order, with `scores`.

    Returns:
        `input_mean` float (see `insitu.data.inputs.Read.means`), `input_height` and `input_width` int, of an image as
        it is stored, null of a tensor, and `scores` list<float>.
    """
    rows = [piece for shard in validation.shards for piece in shard]
    starts = np.cumsum([0, *map(len, rows)])
    chosen, each = _choose([len(piece) for piece in rows])
    offsets = [_spread(len(rows[piece]), each) for piece in chosen]
    pieces = [
        replace(rows[piece], offsets=rows[piece].offsets[own]) for piece, own in zip(chosen, offsets, strict=True)
    ]
    places = np.concatenate([starts[piece] + own for piece, own in zip(chosen, offsets, strict=True)])
    means, sizes = _read(prepared, validation, pieces)
    height, width = (pa.array(side, mask=side == 0) for side in sizes.T)
    return pa.table(
        {
            "input_mean": pa.array(means, pa.float32()),
            "input_height": height,
            "input_width": width,
            "scores": predictions["scores"].take(places),
        }
    )


def _choose(sizes: list[int]) -> tuple[np.ndarray, int]:
    """Which row groups to read, and how many rows of each at most; row groups may hold few validation rows."""
    groups = min(_ROW_GROUPS, len(sizes))
    while True:
        chosen, each = _spread(len(sizes), groups), max(1, _MOST_ROWS // groups)
        if groups == len(sizes) or sum(min(sizes[piece], each) for piece in chosen) >= 0.9 * _MOST_ROWS:
            return chosen[:_MOST_ROWS], each
        groups = min(2 * groups, len(sizes))


def _read(prepared: Prepared, validation: ShardPlan, pieces: list[Rows]) -> tuple[np.ndarray, np.ndarray]:
    """Means [N] and sizes [N, 2] of N rows."""
    batches = prepared.source.validation_batches(replace(validation, shards=(tuple(pieces),)), 0)
    reads = [prepared.source.input.read_stored(batch.inputs) for batch in batches]
    return np.concatenate([read.means for read in reads]), np.concatenate([read.sizes for read in reads])


def _spread(length: int, most: int) -> np.ndarray:
    """At most so many of the numbers below a length, evenly from the first to the last: int64."""
    return np.linspace(0, length - 1, min(length, most)).astype(np.int64)
