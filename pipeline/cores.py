"""How many processors this process may use."""

from __future__ import annotations

import os
from pathlib import Path

#: Version 2 of cgroups: microseconds of processor time, and of which period.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


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
