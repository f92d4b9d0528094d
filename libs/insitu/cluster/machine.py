"""How many cores and how much memory this process may use, container limits included."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

GIB = 1024**3


def usable_cores(*, root: Path = Path("/")) -> int:
    """Cores that this process may run on: its affinity, and no more than its control group's CPU quota, rounded up."""
    cores = len(os.sched_getaffinity(0))
    for group in _control_groups("cpu", root=root):
        quota_us, period_us = _cpu_quota(group)
        if quota_us > 0:
            cores = min(cores, math.ceil(quota_us / period_us))
    return max(1, cores)


def usable_memory_bytes(*, root: Path = Path("/")) -> int:
    """Physical memory in bytes, or the smallest limit of this process's control groups."""
    limits = [_physical_memory_bytes(root)]
    for group in _control_groups("memory", root=root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read(group / name)
            if limit.isdecimal():
                limits.append(int(limit))
    return min(limits)


def _physical_memory_bytes(root: Path) -> int:
    total = next(line for line in (root / "proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    return int(total.split()[1]) * 1024


def _cpu_quota(group: Path) -> tuple[int, int]:
    """Microseconds of CPU a period, and the period; (0, 1) where there is no limit. Version 2, then 1."""
    quota, _, period = _read(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    return (int(quota), int(period)) if quota.isdecimal() and period.isdecimal() else (0, 1)


def _control_groups(controller: str, *, root: Path) -> Iterator[Path]:
    """This process's group and its ancestors, each of which may hold a limit, as directories.

    A line of /proc/self/cgroup is `0::PATH` in version 2 and `N:CONTROLLERS:PATH` in version 1 (cgroups(7)).
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        group = mount / path.lstrip("/")
        yield group
        yield from (parent for parent in group.parents if parent.is_relative_to(mount))


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
