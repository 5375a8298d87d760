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
        "_next_report",
        "_tell",
        "_unsent",
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
        tell: Callable[[int, Report], float | None] = lambda job, report: 0.0,
    ) -> None:
        self._allocate = allocate
        self._tell = tell
        #: the last report, if it was not told yet
        self._unsent: Report | None = None
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

        Call it as often as you like: a worker tells it every 50 ms at most, and the
        last one always.

        Args:
            done: how much is done, in any unit.
            total: how much there is to do, in the same unit; None: nobody knows.
            message: for people.
        """
        self._unsent = (
            done if type(done) is int else float(done),
            total if total is None or type(total) is int else float(total),
            str(message),
        )
        if monotonic() >= self._next_report:
            self.tell_report()

    def tell_report(self) -> None:
        """Tell the last report now, if there is one that was not told."""
        report = self._unsent
        if report is None:
            return
        pause = self._tell(self.id, report)
        if pause is not None:  # else it cannot be told here and now
            self._unsent = None
            self._next_report = monotonic() + pause


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
