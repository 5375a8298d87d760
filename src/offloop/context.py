"""What a running job can ask about itself, in whatever process it runs.

User code calls `current_job`. A worker, which runs one job at a time, names its source
once and is asked only when somebody wants to know; the inline engine, which shares its
process with others, gives each job a `contextvars.Context` and calls `enter` in it.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic

from offloop import arrays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    #: done, total and message
    Report: TypeAlias = tuple[float, float | None, str]

__all__ = ["JobContext", "current_job"]


class JobContext:
    """The job that runs now, as its own code sees it.

    Attributes:
        id: number of the job in its pool.
        attempt: 1 for the first run, 2 for the first retry, and so on.
        deadline: seconds on this process's monotonic clock (`time.monotonic`) by which
            the job must have ended, or None. All processes of a machine share that
            clock.
        worker: number of the worker in its pool; 0 when the job runs inline.
        cancelled: True once the job was asked to stop.
    """

    __slots__ = (
        "_allocate",
        "_here",
        "_hold",
        "_holds",
        "_last",
        "_next_report",
        "_pause",
        "_tell",
        "_told",
        "attempt",
        "cancelled",
        "deadline",
        "id",
        "worker",
    )

    def __init__(
        self,
        id: int,
        attempt: int,
        deadline: float | None,
        worker: int,
        allocate: Callable[[int], memoryview | None] = lambda size: None,
        tell: Callable[[int, Report], object] = lambda job, report: None,
        here: Callable[[], bool] = lambda: True,
        hold: Callable[[bool], object] = lambda held: None,
        pause: float = 0.0,
    ) -> None:
        self._allocate = allocate
        self._tell = tell
        #: True in the thread that may tell; elsewhere that one is sent to `tell_report`
        self._here = here
        #: notes whether a report waits until it may be told
        self._hold = hold
        self._holds = False
        #: seconds that must pass between two that are told
        self._pause = pause
        #: the last report, and the last that was told
        self._last: Report | None = None
        self._told: Report | None = None
        #: when the next one may be told
        self._next_report = 0.0
        self.id = id
        self.attempt = attempt
        self.deadline = deadline
        self.worker = worker
        self.cancelled = False

    def empty(self, shape: Any, dtype: Any = "float64") -> Any:
        """Return a new numpy array that the job can return without a copy.

        Its content is arbitrary. Where there is no room for it in shared memory it is
        an ordinary array, which is copied.

        Args:
            shape: an int or a tuple of ints.
            dtype: anything that `numpy.dtype` takes.

        Raises:
            TypeError: the dtype holds Python objects.
        """
        return arrays.empty(self._allocate, shape, dtype)

    def report(
        self, done: float, total: float | None = None, message: object = ""
    ) -> None:
        """Say how far the job is: whoever holds it sees `progress` and `updates`.

        Call it as often as you like, from any thread of the job: a worker tells it
        every 50 ms at most, and the last one always.

        Args:
            done: how much is done, in any unit.
            total: how much there is to do, in the same unit; None: nobody knows.
            message: for people.
        """
        self._last = (
            done if type(done) is int else float(done),
            total if total is None or type(total) is int else float(total),
            str(message),
        )
        if monotonic() >= self._next_report:
            self.tell_report()
        elif not self._holds:
            self._holds = True
            self._hold(True)

    def tell_report(self) -> None:
        """Tell the last report now, if there is one that was not told.

        Another thread may report meanwhile, and a signal's handler may come here at
        each call below: so the last report is looked at when all of them are done.
        """
        if self._last is self._told:
            return
        self._next_report = monotonic() + self._pause
        if not self._here():
            return
        if self._holds:
            self._holds = False
            self._hold(False)
        report = self._last
        if report is self._told or report is None:
            return
        self._told = report
        self._tell(self.id, report)


_current: ContextVar[JobContext] = ContextVar("offloop.current_job")

#: tells the job of this process, None outside of one; a worker sets it
_source: Callable[[], JobContext | None] | None = None


def current_job() -> JobContext:
    """Return the context of the job that is running this code.

    Raises:
        RuntimeError: when no job is running here.
    """
    found = _find()
    if found is None:
        raise RuntimeError(
            "current_job() was called outside a job: it works only in code that a pool "
            "or an @offload function runs"
        )
    return found


def in_job() -> bool:
    """Tell whether this code runs inside a job."""
    return _find() is not None


def _find() -> JobContext | None:
    return _current.get(None) if _source is None else _source()


def in_worker() -> bool:
    """Tell whether this process runs jobs, or is one that workers are made of."""
    return _source is not None


def set_source(source: Callable[[], JobContext | None]) -> None:
    """Name who knows the job of this process, from now on."""
    global _source
    _source = source


def enter(context: JobContext) -> None:
    """Make `context` the current job of the code that runs in this `Context`."""
    _current.set(context)
