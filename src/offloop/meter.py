"""What a worker has used up of what its parent allows it: jobs, and memory.

A worker counts by itself and stops at a limit by itself, so that no message can be too
late: the job after which it is over its limit is the last one. What that leads to is
the parent's business.

Resident memory is read after a job, by one system call on an open file (1.5 us), and
not again within 100 us: in that time no process can take more than a fraction of a
megabyte. Only a reading above the limit is looked into: freed memory goes back to the
system, and what processes share (large arguments and results) is not counted.
"""

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.wire.status import StatusPage

_PAUSE_NS = 100_000
_PAGE = os.sysconf("SC_PAGE_SIZE")

#: what is used up; 0 stands for nothing
JOBS = 1
MEMORY = 2


class Meter:
    """Counts what one worker uses.

    Args:
        page: names the limits, and is told the figures.
        give_back: gives freed memory back to the system.
    """

    __slots__ = (
        "_file",
        "_give_back",
        "_jobs",
        "_looked",
        "_max_jobs",
        "_max_rss",
        "_page",
        "_rss",
    )

    def __init__(self, page: StatusPage, give_back: Callable[[], None]) -> None:
        self._page = page
        self._give_back = give_back
        #: 0: no limit
        self._max_jobs, self._max_rss = page.allowance()
        self._jobs = 0
        #: bytes when last looked, and when that was in monotonic nanoseconds
        self._rss = 0
        self._looked = 0
        #: /proc/self/statm; None while it is not open
        self._file: int | None = None

    @property
    def needed(self) -> bool:
        """True if there is a limit."""
        return bool(self._max_jobs or self._max_rss)

    def job_ended(self) -> int:
        """Count a job and look at the memory; returns what is used up, if anything."""
        self._jobs += 1
        over = False
        if self._max_rss:
            now = time.monotonic_ns()
            if now - self._looked >= _PAUSE_NS:
                self._looked = now
                over = self._look()
        self._page.note_used(self._jobs, self._rss)
        if over:
            return MEMORY
        return JOBS if self._max_jobs and self._jobs >= self._max_jobs else 0

    def _look(self) -> bool:
        self._rss = self._resident()
        if self._rss <= self._max_rss:
            return False
        self._give_back()
        self._rss = own_memory()
        return self._rss > self._max_rss

    def _resident(self) -> int:
        """Return the resident bytes, shared ones included: a quick upper bound."""
        try:
            if self._file is None:
                self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            return int(os.pread(self._file, 64, 0).split()[1]) * _PAGE
        except FileNotFoundError:  # no /proc here
            return own_memory()
        except (OSError, ValueError, IndexError):
            # A job has closed all files, and perhaps opened others: look anew.
            self._file = None
            return own_memory()


def own_memory() -> int:
    """Return the resident bytes of this process without memory that others share.

    Where there is no /proc (macOS), the largest value that they ever had.
    """
    fields = {"RssAnon:": 0, "RssFile:": 0}
    with contextlib.suppress(FileNotFoundError), open("/proc/self/status") as file:
        for line in file:
            name, _, rest = line.partition("\t")
            if name in fields:
                fields[name] = int(rest.split()[0]) * 1024
        return sum(fields.values())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
