"""What a worker has used up of what its parent allows it: jobs, and memory.

    Meter         counts, and tells after a job that it was the last one
    MemoryLimit   makes an allocation fail within a job

A worker counts by itself and stops at a limit by itself, so that no message can be too
late: the job after which it is over its limit is the last one. What that leads to is
the parent's business.

Resident memory is read after a job, by one system call on an open file (1.5 us), and
not again within 100 us: in that time no process can take more than a fraction of a
megabyte. Only a reading above the limit is looked into: what processes share (large
arguments and results) is not counted, and freed memory goes back to the system.
"""

from __future__ import annotations

import contextlib
import os
import time

from offloop.errors import MemoryLimitExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.wire.status import StatusPage

_PAUSE_NS = 100_000

# What is shared is told apart from the rest after so many looks, if that matters: it
# takes 40 us.
_THOROUGH = 16
_PAGE = os.sysconf("SC_PAGE_SIZE")

#: what is used up; 0 stands for nothing
JOBS = 1
MEMORY = 2
LIMIT = 3


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
        "_shared",
        "_until_thorough",
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
        #: bytes of the resident ones that others share, when they were last told apart
        self._shared = 0
        #: looks until they are told apart again
        self._until_thorough = 0
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
        resident = self._resident()
        self._until_thorough -= 1
        if self._until_thorough <= 0:
            self._shared = 0
        self._rss = resident - self._shared
        if self._rss <= self._max_rss:
            return False
        self._rss = own_memory()
        self._shared = max(resident - self._rss, 0)
        self._until_thorough = _THOROUGH
        if self._rss > self._max_rss:
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


class MemoryLimit:
    """Keeps jobs from making this process larger than it may be.

    The kernel counts what the process can write to and shares with nobody (RLIMIT_DATA,
    Linux 4.7), and refuses more; Python raises MemoryError then. It counts what was
    asked for, not only what is resident, so an allocation fails before memory is short.
    Between jobs nothing is limited: what the worker itself does must not fail.
    """

    __slots__ = ("_hard", "_kind", "_limit", "_set", "was_exceeded")

    def __init__(self, limit: int) -> None:
        import resource

        self._set = resource.setrlimit
        self._kind = resource.RLIMIT_DATA
        _, self._hard = resource.getrlimit(self._kind)
        #: bytes; never above what this process may set
        self._limit = limit if self._hard < 0 else min(limit, self._hard)
        #: a job has met the limit
        self.was_exceeded = False

    def impose(self) -> None:
        """Limit what follows."""
        self._set(self._kind, (self._limit, self._hard))

    def lift(self) -> None:
        """Limit nothing any more."""
        self._set(self._kind, (self._hard, self._hard))

    def named(self, error: BaseException, job: int, function: str) -> BaseException:
        """Return the error that a job ends with: one for lack of memory says so."""
        if not isinstance(error, MemoryError):
            return error
        self.was_exceeded = True
        named = MemoryLimitExceeded(
            f"job {job} ({function}) asked for more memory than memory_limit="
            f"{self._limit / 2**20:,.0f} MiB leaves it: {str(error) or 'MemoryError'}; "
            f"the process held {own_memory() / 2**20:,.0f} MiB after that, and is "
            "replaced; raise memory_limit, or give the job less at a time",
            job_id=job,
            function=function,
        )
        named.__cause__ = error
        named.__traceback__ = error.__traceback__
        return named


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
