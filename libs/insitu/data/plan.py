"""The shard plan: which worker reads which rows, in which order.

Row groups are shuffled by the seed, laid end to end and cut into one equal part a worker, so that
row counts differ by one at the most and only row groups at the cuts are split. Each epoch a worker
shuffles its row groups, then the rows within windows of a bounded size. The order is a pure
function of (seed, epoch), so a run that stops at a step can go on at that step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Rows:
    """Some rows of one Parquet row group.

    Attributes:
        path: URI of the file.
        row_group: index of the row group in the file.
        offsets: int32 [n], ascending row offsets within the row group.
    """

    path: str
    row_group: int
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, part: slice) -> "Rows":
        return Rows(self.path, self.row_group, self.offsets[part])


@dataclass(frozen=True)
class Window:
    """Consecutive pieces of a worker's rows, read together.

    Attributes:
        pieces: read one after the other.
        order: int64 [n], the training order of the pieces' concatenated rows.
    """

    pieces: tuple[Rows, ...]
    order: np.ndarray


@dataclass(frozen=True)
class ShardPlan:
    """The rows of every worker for one split.

    Attributes:
        shards: the rows of each worker, by rank.
        local_batch: rows a worker gives to one step.
        window_rows: rows that are shuffled together.
        seed: of all shuffles.
    """

    shards: tuple[tuple[Rows, ...], ...]
    local_batch: int
    window_rows: int
    seed: int

    @property
    def workers(self) -> int:
        return len(self.shards)

    @cached_property
    def rows(self) -> int:
        return sum(len(piece) for shard in self.shards for piece in shard)

    @property
    def steps(self) -> int:
        """Steps in an epoch, the same on every worker."""
        return self.rows // (self.workers * self.local_batch)

    @property
    def dropped(self) -> int:
        """Rows at the end of an epoch's order that fill no global batch; each epoch drops others."""
        return self.rows - self.steps * self.workers * self.local_batch

    def epoch(self, rank: int, epoch: int, *, first_row: int = 0) -> Iterator[Window]:
        """A worker's windows in training order, from its row number `first_row` on."""
        shard = self.shards[rank]
        rng = np.random.default_rng([self.seed, epoch, rank])
        shuffled = [shard[i] for i in rng.permutation(len(shard))]
        for pieces in _windows(shuffled, self.window_rows):
            order = rng.permutation(sum(map(len, pieces)))
            if first_row < len(order):
                yield Window(tuple(pieces), order[first_row:])
            first_row = max(0, first_row - len(order))

    def in_order(self, rank: int) -> Iterator[Window]:
        """A worker's windows as they are stored, for validation."""
        for pieces in _windows(self.shards[rank], self.window_rows):
            yield Window(tuple(pieces), np.arange(sum(map(len, pieces))))


def plan_shards(rows: Sequence[Rows], *, workers: int, local_batch: int, window_rows: int, seed: int) -> ShardPlan:
    """Deal rows to workers so that their numbers differ by one at the most.

    Args:
        rows: the rows of the split, an entry a row group.
        workers: number of workers, at most the number of rows.
        local_batch, window_rows, seed: as in `ShardPlan`.
    """
    pieces = [piece for piece in rows if len(piece)]
    dealt = [pieces[i] for i in np.random.default_rng(seed).permutation(len(pieces))]
    total = sum(map(len, dealt))
    ends = [total * (rank + 1) // workers for rank in range(workers)]
    sizes = np.diff([0, *ends]).tolist()
    shards = tuple(tuple(shard) for shard in _cut(dealt, sizes))
    return ShardPlan(shards, local_batch, window_rows, seed)


def _windows(pieces: Sequence[Rows], window_rows: int) -> Iterator[list[Rows]]:
    total = sum(map(len, pieces))
    full, rest = divmod(total, window_rows)
    return _cut(pieces, [window_rows] * full + [rest] * (rest > 0))


def _cut(pieces: Sequence[Rows], sizes: Sequence[int]) -> Iterator[list[Rows]]:
    """Cut pieces laid end to end into runs of the given sizes, which add up to all of them."""
    queue = iter(pieces)
    current: Rows | None = None
    for size in sizes:
        run: list[Rows] = []
        while size > 0:
            current = current if current is not None and len(current) else next(queue)
            run.append(current[slice(size)])
            current = current[slice(size, None)]
            size -= len(run[-1])
        yield run
