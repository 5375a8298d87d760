"""Every exception that offloop raises, in one tree, split by who is at fault.

    OffloopError
    ├── UsageError              the caller; raised at the call, nothing was queued
    │   ├── NotOffloadable        (TypeError)     function or arguments cannot travel
    │   ├── PoolClosed            (RuntimeError)  the pool is not open (any more)
    │   ├── PoolFull                              max_pending reached; has retry_after
    │   └── WrongLoop             (RuntimeError)  another event loop, thread or process
    ├── JobError                the job
    │   ├── JobTimeout            (TimeoutError)  timeout or run_timeout passed
    │   ├── PoisonJob                             it killed worker after worker
    │   │   └── Quarantined                         its function did, and is not run now
    │   ├── ResultNotEncodable    (TypeError)     it ran, but its result cannot travel
    │   ├── MemoryLimitExceeded   (MemoryError)   it went over memory_limit
    │   └── RemoteError                           its exception cannot be rebuilt here
    │       └── ControlFlowError                    it raised SystemExit or the like
    ├── WorkerLost              the process that ran the job ended unasked
    ├── PoolLost                the coordinator or the remote engine is gone
    ├── StartError              a child process could not start; carries its output
    └── InternalError           our bug; carries the story of the job

An exception raised by the offloaded function arrives as itself; the worker's own
traceback is its ``__cause__``, a `RemoteTraceback`, which is shown and never raised.

Inside a job, `JobInterrupted` asks the function to stop. It is a BaseException, so that
``except Exception`` in user code does not swallow it.

Every error survives pickling with all its fields.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "ControlFlowError",
    "InternalError",
    "JobError",
    "JobInterrupted",
    "JobTimeout",
    "MemoryLimitExceeded",
    "NotOffloadable",
    "OffloopError",
    "PoisonJob",
    "PoolClosed",
    "PoolFull",
    "PoolLost",
    "Quarantined",
    "RemoteError",
    "RemoteTraceback",
    "ResultNotEncodable",
    "StartError",
    "UsageError",
    "WorkerLost",
    "WrongLoop",
]


def _rebuild(
    cls: type[OffloopError], message: str, fields: dict[str, Any]
) -> OffloopError:
    # Not `cls.__new__`: Python refuses it for one whose built-in base is MemoryError.
    error = cls(message)
    error.__dict__.update(fields)
    return error


class OffloopError(Exception):
    """Root of everything that offloop raises by itself."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __reduce__(self) -> tuple[Callable[..., OffloopError], tuple[Any, ...]]:
        message = str(self.args[0]) if self.args else ""
        return _rebuild, (type(self), message, dict(self.__dict__))


class UsageError(OffloopError):
    """The caller's mistake, raised at the call; no job was queued."""


class NotOffloadable(UsageError, TypeError):
    """The function or an argument cannot be sent to another process."""


class PoolClosed(UsageError, RuntimeError):
    """The pool was not started yet, or is closing or closed."""


class WrongLoop(UsageError, RuntimeError):
    """The pool belongs to another event loop, thread or process."""


class PoolFull(UsageError):
    """The pool holds `max_pending` jobs or bytes already; the job was not queued.

    Attributes:
        pending: jobs waiting or running now.
        limit: the limit that was reached (jobs, or bytes).
        retry_after: seconds until room is likely, or None while nothing is known.
        never: there cannot be room: the job is larger than the limit.
    """

    def __init__(
        self,
        message: str = "",
        *,
        pending: int = 0,
        limit: int = 0,
        retry_after: float | None = None,
        never: bool = False,
    ) -> None:
        super().__init__(message)
        self.pending = pending
        self.limit = limit
        self.retry_after = retry_after
        self.never = never


class JobError(OffloopError):
    """The job itself is to blame.

    Attributes:
        job_id: number of the job in its pool.
        function: name of the function.
        story: what happened to the job, in one line.
    """

    def __init__(
        self,
        message: str = "",
        *,
        job_id: int | None = None,
        function: str = "",
        story: str = "",
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.function = function
        self.story = story


class JobTimeout(JobError, TimeoutError):
    """`timeout` or `run_timeout` passed; the work was stopped.

    Attributes:
        limit: seconds that were allowed.
        kind: "timeout" (since submission) or "run_timeout" (since the run began).
        where: the job's frames when its time was over, the latest call first; "" if
            it had not begun, or its process could not say (somebody has stopped it).
        worker, pid: number and process id of the worker that ran it; None: none did.
        peak_rss: largest resident memory of that process in bytes, or None.
        output: last lines that the process has printed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        job_id: int | None = None,
        function: str = "",
        limit: float | None = None,
        kind: str = "timeout",
        where: str = "",
        worker: int | None = None,
        pid: int | None = None,
        peak_rss: int | None = None,
        output: str = "",
        story: str = "",
    ) -> None:
        super().__init__(message, job_id=job_id, function=function, story=story)
        self.limit = limit
        self.kind = kind
        self.where = where
        self.worker = worker
        self.pid = pid
        self.peak_rss = peak_rss
        self.output = output


class PoisonJob(JobError):
    """The job killed several workers, one after the other; it is not tried again."""


class Quarantined(PoisonJob):
    """The job was not run: its function has killed worker after worker.

    Attributes:
        retry_after: seconds after which a job of the function is run again; 0.0 while
            one is, whose end decides.
    """

    def __init__(
        self,
        message: str = "",
        *,
        job_id: int | None = None,
        function: str = "",
        story: str = "",
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message, job_id=job_id, function=function, story=story)
        self.retry_after = retry_after


class ResultNotEncodable(JobError, TypeError):
    """The function ran to its end, but what it returned cannot be sent back."""


class MemoryLimitExceeded(JobError, MemoryError):
    """The job used more memory than `memory_limit` allows."""


class RemoteError(JobError):
    """Stands for an exception that cannot be rebuilt in this process.

    Attributes:
        type_name: qualified name of the exception's type in the worker.
        remote_traceback: the worker's formatted traceback.
    """

    def __init__(
        self,
        message: str = "",
        *,
        type_name: str = "",
        remote_traceback: str = "",
        job_id: int | None = None,
        function: str = "",
        story: str = "",
    ) -> None:
        super().__init__(message, job_id=job_id, function=function, story=story)
        self.type_name = type_name
        self.remote_traceback = remote_traceback


class ControlFlowError(RemoteError):
    """The function raised what steers a program: the original is the ``__cause__``.

    That is SystemExit, KeyboardInterrupt, GeneratorExit, `asyncio.CancelledError`,
    StopIteration, or any other BaseException that is not an Exception. Raised as itself
    by an await, it would end or confuse the caller's event loop.
    """


class WorkerLost(OffloopError):
    """The worker process ended while it ran the job.

    Attributes:
        job_id, function: the job that it ran.
        worker, pid: number of the worker in its pool, and its process id.
        exitcode: exit code, or None when a signal ended it.
        signal: name of the signal ("SIGKILL"), or None.
        peak_rss: largest resident memory of the process in bytes, or None.
        output: last lines that the process has printed, and the report of a crash.
        where: its last traceback, if one could be had: that of a crash, or what it said
            before the pool had to kill it. A kill from outside leaves no time for one.
        story: what happened to the job, in one line.
        reason: why it ended: "crashed", "out-of-memory", "forkserver-lost", or another
            key of `PoolStats.exits`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        job_id: int | None = None,
        function: str = "",
        worker: int | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
        signal: str | None = None,
        peak_rss: int | None = None,
        output: str = "",
        reason: str = "",
        where: str = "",
        story: str = "",
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.function = function
        self.worker = worker
        self.reason = reason
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal
        self.peak_rss = peak_rss
        self.output = output
        self.where = where
        self.story = story


class PoolLost(OffloopError):
    """The process or cluster that owns the pool is gone."""


class StartError(OffloopError):
    """A child process could not start.

    Attributes:
        output: what the child said before it ended (a traceback, usually).
    """

    def __init__(self, message: str = "", *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class InternalError(OffloopError):
    """A bug in offloop. Please report it together with the story it carries.

    Attributes:
        story: the last moves of the job or worker concerned.
    """

    def __init__(self, message: str = "", *, story: str = "") -> None:
        super().__init__(f"{message}\nstory: {story}" if story else message)
        self.story = story


class RemoteTraceback(Exception):
    """The traceback as the worker saw it; shown as the cause of the real exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class JobInterrupted(BaseException):
    """Raised inside a running job that must stop: cancelled, or out of time."""
