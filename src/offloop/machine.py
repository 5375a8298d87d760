"""What this machine grants us: cores, after affinity and the container's quota.

A container with a quota of 2 CPUs on a host of 160 still shows 160 to `os.cpu_count`;
pools sized by that number thrash. So the affinity mask and the quota of the process's
own control group (version 1 or 2) are asked as well.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return how many cores this process may keep busy, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    if quota is not None:
        cores = min(cores, math.ceil(quota))
    return max(cores, 1)


def default_max_workers() -> int:
    """Return the size of a pool that was given none.

    OFFLOOP_MAX_WORKERS if set; otherwise the usable cores less one, because the event
    loop needs one to stay responsive, and at least 1.
    """
    wanted = os.environ.get("OFFLOOP_MAX_WORKERS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return max(usable_cores() - 1, 1)


def cpu_quota(
    root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Return the CPUs that the control group may use, or None when it has no quota.

    Args:
        root: where the control groups are mounted.
        membership: the file that names this process's own group.
    """
    quotas = [
        quota
        for folder in _own_groups(root, membership)
        for quota in (_quota_v2(folder), _quota_v1(folder))
        if quota is not None
    ]
    return min(quotas, default=None)


def memory_allowance(
    root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")
) -> int:
    """Return the bytes of memory that this process and its children may use.

    Args:
        root: where the control groups are mounted.
        membership: the file that names this process's own group.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _own_groups(root, membership):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # "max", or not of this version
                continue
    return min(limits)


def _own_groups(root: Path, membership: Path) -> list[Path]:
    """Return the folders of the process's group and of all groups above it.

    A quota further up binds as well. In a container the path may be the host's and not
    exist below `root`; the root itself then is the container's own group.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    folders = [root, root / "cpu"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = root
        elif "cpu" in controllers.split(","):
            base = root / "cpu"
        else:
            continue
        group = base / path.strip("/")
        while group != base:
            folders.append(group)
            group = group.parent
    return folders


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or an empty file
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
