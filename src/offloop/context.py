"""What a running job can ask about itself, in whatever process it runs.

The process that runs jobs (a worker, or the inline engine) calls `enter` before each
job and `leave` after it; user code calls `current_job`.
"""

from __future__ import annotations

from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Token

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

    __slots__ = ("attempt", "cancelled", "deadline", "id", "worker")

    def __init__(
        self, id: int, attempt: int, deadline: float | None, worker: int
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.deadline = deadline
        self.worker = worker
        self.cancelled = False


_current: ContextVar[JobContext] = ContextVar("offloop.current_job")


def current_job() -> JobContext:
    """Return the context of the job that is running this code.

    Raises:
        RuntimeError: when no job is running here.
    """
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError(
            "current_job() was called outside a job: it works only in code that a pool "
            "or an @offload function runs"
        ) from None


def in_job() -> bool:
    """Tell whether this code runs inside a job."""
    return _current.get(None) is not None


def enter(context: JobContext) -> Token[JobContext]:
    """Make `context` the current job; hand the token to `leave` afterwards."""
    return _current.set(context)


def leave(token: Token[JobContext]) -> None:
    """Forget the current job."""
    _current.reset(token)
