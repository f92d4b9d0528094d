"""The thread plan: disjoint core sets and the published environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from insitu.cluster.threads import core_numbers, core_ranges, core_set, worker_environment

SEED = 1902
hosts = st.sets(st.integers(0, 255), min_size=1, max_size=64).map(sorted)


@seed(SEED)
@given(cores=hosts, workers=st.integers(1, 16))
def test_workers_that_fit_get_disjoint_sets_of_equal_size(cores: list[int], workers: int) -> None:
    threads = len(cores) // workers
    if threads == 0:
        return
    sets = [core_set(cores, local_rank=rank, threads=threads) for rank in range(workers)]
    assert {len(chosen) for chosen in sets} == {threads}
    together = [core for chosen in sets for core in chosen]
    assert len(set(together)) == len(together)
    assert set(together) <= set(cores)


@seed(SEED)
@given(cores=hosts, local_rank=st.integers(0, 16), threads=st.integers(1, 64))
def test_worker_past_the_last_core_shares_them_all(cores: list[int], local_rank: int, threads: int) -> None:
    chosen = core_set(cores, local_rank=local_rank, threads=threads)
    assert chosen == (cores if (local_rank + 1) * threads > len(cores) else cores[local_rank * threads :][:threads])


@pytest.mark.parametrize("threads", [1, 20])
def test_environment_is_the_published_one(threads: int) -> None:
    published = {
        "OMP_NUM_THREADS": str(threads),
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "KMP_BLOCKTIME": "1",
    }
    found = worker_environment(threads)
    assert {name: value for name, value in found.items() if name.startswith(("OMP_", "KMP_"))} == published


def test_process_and_its_later_threads_are_bound_to_its_cores() -> None:
    cores = sorted(os.sched_getaffinity(0))
    for local_rank in range(len(cores)):
        assert pinned(local_rank=local_rank, threads=1) == [[cores[local_rank]]] * 3
    assert pinned(local_rank=0, threads=len(cores)) == [cores] * 3


def pinned(*, local_rank: int, threads: int) -> list[list[int]]:
    """The cores that `pin_process` names, those of the process, and those of a thread started afterwards."""
    code = (
        "import json, os\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from insitu.cluster.threads import pin_process\n"
        f"named = pin_process(local_rank={local_rank}, threads={threads})\n"
        "inherited = ThreadPoolExecutor(1).submit(os.sched_getaffinity, 0).result()\n"
        "print(json.dumps([named, sorted(os.sched_getaffinity(0)), sorted(inherited)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_processes_that_score_share_the_cores_out(tmp_path: Path) -> None:
    """One that comes when none are left is not bound; one that ends leaves its cores to the next."""
    cores = sorted(os.sched_getaffinity(0))
    code = (
        "import os, sys\n"
        "from insitu.cluster.threads import claim_cores\n"
        "print(*claim_cores(1), '|', *sorted(os.sched_getaffinity(0)), flush=True)\n"
        "sys.stdin.read()\n"
    )

    def begin() -> subprocess.Popen[str]:
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        command, pipe = [sys.executable, "-c", code], subprocess.PIPE
        return subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe)

    def claimed(process: "subprocess.Popen[str]") -> list[int]:
        assert process.stdout
        named, bound = process.stdout.readline().split("|")
        assert named.split() == bound.split()
        return [int(core) for core in named.split()]

    processes = [begin() for _ in cores]
    try:
        assert sorted(claimed(process) for process in processes) == [[core] for core in cores]
        processes.append(begin())
        assert claimed(processes[-1]) == cores
        processes[0].kill()
        processes[0].wait()
        processes.append(begin())
        assert len(claimed(processes[-1])) == 1
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@seed(SEED)
@given(hosts)
def test_core_numbers_are_read_as_they_are_written(cores: list[int]) -> None:
    assert core_numbers(core_ranges(cores)) == cores


def test_cores_are_written_as_the_kernel_does() -> None:
    assert core_ranges([8, 0, 1, 2, 3, 10, 11]) == "0-3,8,10-11"
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "Cpus_allowed_list" in line)
    assert set(core_numbers(line.split()[1])) == os.sched_getaffinity(0)
