"""Every row goes to one worker, in an order that only the seed and the epoch decide."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.data.plan import Rows, ShardPlan, plan_shards


@dataclass(frozen=True)
class Case:
    row_groups: list[Rows]
    plan: ShardPlan


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Row groups, some empty and some with gaps where bad rows were, planned for a few workers."""
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any))
    gap = draw(st.integers(1, 3))
    groups = [Rows(f"file-{i // 2}", i % 2, np.arange(0, size * gap, gap, np.int32)) for i, size in enumerate(sizes)]
    plan = plan_shards(
        groups,
        workers=draw(st.integers(1, min(5, sum(sizes)))),
        local_batch=draw(st.integers(1, 4)),
        window_rows=draw(st.integers(1, 40)),
        seed=draw(st.integers(0, 2**31)),
    )
    return Case(groups, plan)


def keys(pieces: tuple[Rows, ...] | list[Rows]) -> list[tuple[str, int, int]]:
    return [(piece.path, piece.row_group, int(offset)) for piece in pieces for offset in piece.offsets]


def order(plan: ShardPlan, rank: int, epoch: int, first_row: int = 0) -> list[tuple[str, int, int]]:
    """The rows of an epoch in training order."""
    windows = plan.epoch(rank, epoch, first_row=first_row)
    return [key for window in windows for key in np.array(keys(window.pieces), object)[window.order].tolist()]


@given(cases())
def test_every_row_is_dealt_once_and_the_workers_counts_differ_by_one(case: Case) -> None:
    dealt = [key for shard in case.plan.shards for key in keys(shard)]
    assert sorted(dealt) == sorted(keys(case.row_groups))
    counts = [sum(map(len, shard)) for shard in case.plan.shards]
    assert max(counts) - min(counts) <= 1
    assert case.plan.rows == sum(counts)


@given(cases())
def test_every_worker_fills_every_step_and_the_rest_is_dropped(case: Case) -> None:
    plan = case.plan
    assert all(sum(map(len, shard)) >= plan.steps * plan.local_batch for shard in plan.shards)
    assert plan.steps * plan.local_batch * plan.workers + plan.dropped == plan.rows
    assert 0 <= plan.dropped < plan.local_batch * plan.workers


@given(cases(), st.integers(0, 1000))
def test_an_epoch_visits_the_shard_once_in_an_order_of_seed_and_epoch_alone(case: Case, epoch: int) -> None:
    plan = case.plan
    again = plan_shards(
        case.row_groups,
        workers=plan.workers,
        local_batch=plan.local_batch,
        window_rows=plan.window_rows,
        seed=plan.seed,
    )
    for rank in range(plan.workers):
        assert sorted(map(tuple, order(plan, rank, epoch))) == sorted(keys(plan.shards[rank]))
        assert order(plan, rank, epoch) == order(again, rank, epoch)


@settings(max_examples=40)
@given(cases(), st.integers(0, 3))
def test_an_epoch_can_begin_at_any_row(case: Case, epoch: int) -> None:
    whole = order(case.plan, 0, epoch)
    for first_row in range(len(whole) + 1):
        assert order(case.plan, 0, epoch, first_row) == whole[first_row:]


@given(cases(), st.integers(0, 3))
def test_windows_are_full_and_bounded(case: Case, epoch: int) -> None:
    for windows in (list(case.plan.epoch(0, epoch)), list(case.plan.in_order(0))):
        sizes = [sum(map(len, window.pieces)) for window in windows]
        assert all(size == case.plan.window_rows for size in sizes[:-1])
        assert 0 < sizes[-1] <= case.plan.window_rows
        assert all(sorted(w.order) == list(range(n)) for w, n in zip(windows, sizes, strict=True))


@given(cases())
def test_validation_reads_rows_as_they_are_stored(case: Case) -> None:
    for rank, shard in enumerate(case.plan.shards):
        windows = list(case.plan.in_order(rank))
        assert [key for window in windows for key in keys(window.pieces)] == keys(shard)
        assert all(np.array_equal(window.order, np.sort(window.order)) for window in windows)


def test_epochs_seeds_and_workers_differ() -> None:
    groups = [Rows("file", i, np.arange(50, dtype=np.int32)) for i in range(4)]
    plans = [plan_shards(groups, workers=2, local_batch=4, window_rows=64, seed=seed) for seed in (1, 2)]
    orders = [order(plans[0], 0, 0), order(plans[0], 0, 1), order(plans[1], 0, 0), order(plans[0], 1, 0)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    groups_in_order = [[key[1] for key in order(plans[0], 0, epoch)] for epoch in range(8)]
    assert len({tuple(dict.fromkeys(groups)) for groups in groups_in_order}) > 1


def test_one_huge_row_group_is_split_over_the_workers() -> None:
    plan = plan_shards(
        [Rows("file", 0, np.arange(100_003, dtype=np.int32))], workers=4, local_batch=8, window_rows=512, seed=3
    )
    assert sorted(sum(map(len, shard)) for shard in plan.shards) == [25_000, 25_001, 25_001, 25_001]
    assert plan.steps == 100_003 // 32
