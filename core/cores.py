"""How many cores this process may use: its affinity, and the quota of its container."""

import os
import sys
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "QUOTA PERIOD" in microseconds, or "max PERIOD"


def usable_cores() -> int:
    """Return the number of cores, at least 1; a container's fraction of a core counts as a whole one."""
    cores = _count_allowed()
    try:
        quota, period = _CPU_MAX.read_text().split()[:2]
        return cores if quota == "max" else max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return cores


def _count_allowed() -> int:
    """Return the cores that the process's affinity leaves; all of them on a system without one (macOS, Windows)."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
