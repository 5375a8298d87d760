"""Why a process ended: as a word for people and programs, and as what it counts for.

    ExitReason   one word for each cause; in errors, figures and logs
    Exit         what it means for restarts: counted, or explained

Both machines and their shells share these words; nothing is decided here.
"""

from __future__ import annotations

import enum


class Exit(enum.Enum):
    """What the end of a child counts for, as far as its shell knows."""

    #: nobody asked for it: a crash
    UNASKED = "unasked"
    #: somebody asked for its end, or for that of its job, inside the pool or outside
    WANTED = "wanted"
    #: it died of the job that it ran
    BLAMED = "blamed"


class ExitReason(enum.Enum):
    """Why a process ended."""

    #: it ended unasked while it worked, or was killed from outside
    CRASHED = "crashed"
    #: the kernel, or its own limit, ended it for lack of memory
    OUT_OF_MEMORY = "out-of-memory"
    #: it ended before it was ready, or was not ready in time
    START_FAILED = "start-failed"
    #: the process that it was forked from ended, and took it along
    FORKSERVER_LOST = "forkserver-lost"
    #: a job of its ran out of time
    TIMED_OUT = "timed-out"
    #: a job of its was cancelled
    CANCELLED = "cancelled"
    #: it had run `Recycle.max_jobs` jobs
    RECYCLED_JOBS = "recycled-jobs"
    #: it had lived for `Recycle.max_age`
    RECYCLED_AGE = "recycled-age"
    #: it held `Recycle.max_rss` bytes
    RECYCLED_MEMORY = "recycled-memory"
    #: it ran code of before a reload
    RELOADED = "reloaded"
    #: fewer were wanted
    SCALED_DOWN = "scaled-down"
    #: the pool ended
    SHUTDOWN = "shutdown"
