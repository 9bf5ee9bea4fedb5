"""How many processors and how much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

#: Version 2 of cgroups: microseconds of processor time, and of which period.
QUOTA = Path("/sys/fs/cgroup/cpu.max")
#: Linux's account of memory, and version 2 of cgroups: the limit, and what is in use.
MEMORY = Path("/proc/meminfo")
LIMIT, IN_USE = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def usable_cores() -> int:
    """Return how many cores this process may use: affinity and the cgroup's quota count."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = QUOTA.read_text().split()
        if quota != "max":
            cores = min(cores or 1, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no cgroup, or version 1: the affinity alone counts
    return max(1, cores or 1)


def free_memory() -> float:
    """Return how many bytes this process may still take; infinity where nothing says so."""
    free = float("inf")
    try:
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        free = 1024.0 * int(lines["MemAvailable"].split()[0])
        free = min(free, float(int(LIMIT.read_text()) - int(IN_USE.read_text())))
    except (OSError, ValueError, KeyError):
        pass  # another system than Linux, or no limit: what was found so far counts
    return free
