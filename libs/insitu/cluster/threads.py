"""The thread plan: how many threads a worker runs, and on which cores.

The settings are those of Wilson et al., "Fast and Accurate Training of an AI Radiologist", III-A:
`OMP_NUM_THREADS` = the worker's cores, `KMP_AFFINITY=granularity=fine,compact,1,0`, `KMP_BLOCKTIME=1`.
KMP_AFFINITY binds within the process's own affinity mask, so workers on one host get disjoint
masks first; without that two workers bind to the same cores.
"""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from insitu.cluster.machine import usable_cores


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of a training worker that computes with `threads` cores."""
    return {**openmp_environment(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}


def openmp_environment(threads: int) -> dict[str, str]:
    """What of it is for OpenMP."""
    return {"OMP_NUM_THREADS": str(threads), "KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}


def core_set(cores: Sequence[int], *, local_rank: int, threads: int) -> list[int]:
    """The cores of one worker among those of its host.

    Args:
        cores: the host's cores that may be used, in order.
        local_rank: the worker's place among this run's workers on the host, from 0.
        threads: cores a worker.

    Returns:
        `threads` cores that no other local rank gets; all of `cores` where the workers want more
        than there are, which leaves the sharing to the operating system.
    """
    first = local_rank * threads
    chosen = list(cores[first : first + threads])
    return chosen if len(chosen) == threads else list(cores)


def openmp_threads() -> int:
    """The threads that this process's OpenMP runtimes really take, the largest where several are loaded."""
    from threadpoolctl import threadpool_info

    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")


def pin_process(*, local_rank: int, threads: int) -> list[int]:
    """Bind this process to its `core_set` and return it.

    Threads that are made later, TensorFlow's and OpenMP's, inherit the mask.
    """
    cores = core_set(sorted(os.sched_getaffinity(0)), local_rank=local_rank, threads=threads)
    os.sched_setaffinity(0, cores)
    return cores


@cache
def claim_cores(threads: int) -> list[int]:
    """Bind this process to cores that it keeps for itself, and return them.

    Spark does not tell a task which of its executor's cores it is on, so the processes of a host that call this, which
    score, share the cores out by file locks. The kernel takes a process's locks away when it ends.

    Returns:
        `threads` cores that no other such process has; all that may be used, unbound, where none are left, or where a
        container's share is of the time of all cores: it does not see the locks of the containers beside it.
    """
    cores = sorted(os.sched_getaffinity(0))
    if usable_cores() < len(cores):
        return cores
    for first in range(0, len(cores) - threads + 1, threads):
        group = cores[first : first + threads]
        if _claimed(group):
            os.sched_setaffinity(0, group)
            return group
    return cores


def _claimed(cores: Sequence[int]) -> bool:
    """Whether this process has got the locks of all of these cores."""
    directory = Path(tempfile.gettempdir()) / f"insitu-cores-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    locks = [os.open(directory / str(core), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600) for core in cores]
    with suppress(BlockingIOError):
        for lock in locks:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    for lock in locks:
        os.close(lock)
    return False


def core_ranges(cores: Sequence[int]) -> str:
    """Core numbers as `taskset` and the kernel write them: 0-3,8."""
    ranges: list[list[int]] = []
    for core in sorted(cores):
        if ranges and core == ranges[-1][1] + 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def core_numbers(ranges: str) -> list[int]:
    """The inverse of `core_ranges`, ascending."""
    ends = [list(map(int, part.split("-"))) for part in ranges.split(",") if part]
    return [core for each in ends for core in range(each[0], each[-1] + 1)]
