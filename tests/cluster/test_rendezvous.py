"""Workers meeting through a shared directory, as processes of their own."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from insitu.cluster.rendezvous import Missing, exchange


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_all_workers_get_all_values_by_rank(tmp_path: Path, scheme: str) -> None:
    meet = partial(exchange, f"{scheme}{tmp_path}/gang", size=3, timeout_seconds=60)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        workers = [pool.submit(meet, f"host-{rank}:80", rank=rank) for rank in (2, 0, 1)]
        assert [worker.result() for worker in workers] == [["host-0:80", "host-1:80", "host-2:80"]] * 3


def test_single_worker_meets_itself(tmp_path: Path) -> None:
    assert exchange(f"{tmp_path}/gang", "é", rank=0, size=1, timeout_seconds=1) == ["é"]


def test_missing_worker_is_named(tmp_path: Path) -> None:
    meet = partial(exchange, f"{tmp_path}/gang", "here", size=3, timeout_seconds=0.3)
    with pytest.raises(Missing, match=r"workers \[0, 2\] of 3 did not start within 0\.3 s") as alone:
        meet(rank=1)
    with pytest.raises(Missing, match=r"workers \[2\] of 3 did not start within 0\.3 s") as with_another:
        meet(rank=0)
    assert not alone.value.others and with_another.value.others
