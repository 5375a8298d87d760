"""What this machine grants us: cores, after affinity and quota; and memory.

A container with a quota of 2 CPUs on a host of 160 still shows 160 to `os.cpu_count`;
pools sized by that number thrash. So the affinity mask and the quota of the process's
own control group (version 1 or 2) are asked as well.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from offloop.groups import MEMBERSHIP, ROOT, own_groups

_CGROUPS = Path(ROOT)
_MEMBERSHIP = Path(MEMBERSHIP)


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


def cpu_quota(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """Return the CPUs that the control group may use, or None when it has no quota.

    Args:
        root: where the control groups are mounted.
        membership: the file that names this process's own group.
    """
    quotas = [
        quota
        for folder in _own_groups(root, membership, "cpu")
        for quota in (_quota_v2(folder), _quota_v1(folder))
        if quota is not None
    ]
    return min(quotas, default=None)


class OomKills:
    """Notices that the kernel has killed a process for lack of memory.

    Args:
        root: where the control groups are mounted.
        membership: the file that names this process's own group.
        system: the file that counts for the whole machine, for lack of a better one.
    """

    def __init__(
        self,
        root: Path = _CGROUPS,
        membership: Path = _MEMBERSHIP,
        system: Path = Path("/proc/vmstat"),
    ) -> None:
        groups = _own_groups(root, membership, "memory")
        names = ("memory.events", "memory.oom_control")
        files = [folder / name for folder in reversed(groups) for name in names]
        #: the first of them that counts
        self._file = next(
            (file for file in [*files, system] if _oom_kills(file) is not None), None
        )
        #: kills that are accounted for
        self._seen = self._count()

    def one_more(self) -> bool:
        """Tell whether there was a kill that no call has told yet."""
        if self._count() <= self._seen:
            return False
        self._seen += 1
        return True

    def _count(self) -> int:
        return (_oom_kills(self._file) or 0) if self._file is not None else 0


def _oom_kills(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def memory_of_tree(pid: int) -> int:
    """Return the bytes that a process and its descendants hold for themselves.

    0 where the system does not tell (no /proc), or the process has gone.
    """
    total = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            total += int(status.partition("RssAnon:")[2].split(maxsplit=1)[0]) * 1024
            for thread in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except (OSError, ValueError, IndexError):  # it has ended, or is a zombie
            continue
    return total


def peak_memory(pid: int) -> int:
    """Return the largest resident memory that a process ever had, in bytes.

    0 where the system does not tell (no /proc), or the process has gone.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 0


def memory_held(pid: int) -> tuple[int, int]:
    """Return a process's resident memory in bytes, whole and as its share.

    The first counts each page that the process has; of pages that several share, the
    second counts each one's part, so that a sum over processes is what they take. It
    walks through all pages, which may take a millisecond. 0 and 0 where the system does
    not tell (no /proc), or the process has gone.
    """
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
        rss, pss = (
            int(told.partition(f"\n{word}:")[2].split(maxsplit=1)[0]) * 1024
            for word in ("Rss", "Pss")
        )
    except (OSError, ValueError, IndexError):
        return 0, 0
    return rss, pss


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes, as the kernel counts it already.

    0 where the system does not tell (no /proc), or the process has gone.
    """
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0.0 if nobody tells."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(told[11]) + int(told[12])
    except (OSError, ValueError, IndexError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_allowance(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the bytes of memory that this process and its children may use.

    Args:
        root: where the control groups are mounted.
        membership: the file that names this process's own group.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _own_groups(root, membership, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # "max", or not of this version
                continue
    return min(limits)


def _own_groups(root: Path, membership: Path, controller: str) -> list[Path]:
    return [Path(one) for one in own_groups(str(root), str(membership), controller)]


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
