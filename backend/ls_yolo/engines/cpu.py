"""How many CPU cores there are for this process."""

from __future__ import annotations

import os
from pathlib import Path


def available(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may use, at least 1: its affinity and its container's limit.

    A part of a core counts for nothing: threads beyond the limit only wait for each other.
    """
    cores = len(os.sched_getaffinity(0))
    limit = _limit(cgroup)
    return max(cores if limit is None else min(cores, int(limit + 1e-6)), 1)


def _limit(cgroup: Path) -> float | None:
    """The limit of the control group, in cores; None without one."""
    try:
        if (cgroup / "cpu.max").exists():  # version 2
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no control groups
        return None
