"""Cores and memory under control groups, versions 1 and 2, laid out in a directory as Linux lays them out."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from pytest import TempPathFactory

from insitu.cluster.machine import usable_cores, usable_memory_bytes

CORES = len(os.sched_getaffinity(0))


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_no_limit(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal:  2048 kB", "proc/self/cgroup": "0::/"})
    assert usable_cores(root=tmp_path) == CORES
    assert usable_memory_bytes(root=tmp_path) == 2048 * 1024


def test_version_2_takes_the_tightest_of_the_group_and_its_ancestors(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  4096 kB",
            "proc/self/cgroup": "0::/pod/worker",
            "sys/fs/cgroup/pod/cpu.max": "50000 100000",
            "sys/fs/cgroup/pod/memory.max": "1000000",
            "sys/fs/cgroup/pod/worker/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/worker/memory.max": "max",
        },
    )
    assert usable_cores(root=tmp_path) == 1
    assert usable_memory_bytes(root=tmp_path) == 1_000_000


def test_version_1(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  4096 kB",
            "proc/self/cgroup": "4:cpu,cpuacct:/c\n3:memory:/c",
            "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/c/memory.limit_in_bytes": "2000000",
        },
    )
    assert usable_cores(root=tmp_path) == 1
    assert usable_memory_bytes(root=tmp_path) == 2_000_000


@given(quota_us=st.integers(1000, 10**7))
def test_a_quota_gives_whole_cores_that_exist(quota_us: int, tmp_path_factory: TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root")
    write(root, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": f"{quota_us} 100000"})
    assert 1 <= usable_cores(root=root) <= CORES
