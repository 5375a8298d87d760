"""The error that a job's ending becomes: what happened, to whom, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from offloop.core.exits import ExitReason
from offloop.core.job import Ending
from offloop.errors import (
    InternalError,
    JobError,
    JobTimeout,
    MemoryLimitExceeded,
    PoisonJob,
    Quarantined,
    RemoteError,
    WorkerLost,
)

if TYPE_CHECKING:
    from offloop.core.quarantine import Refusal
    from offloop.engines.call import Call
    from offloop.handles import WorkerExit

_CAUSES = {
    "SIGKILL": (
        "somebody killed the process; the kernel has counted no kill for lack of "
        "memory here, but where it counts elsewhere it says 'Out of memory' in its log"
    ),
    "SIGSEGV": (
        "a C extension used by the function crashed; the traceback below, if any, "
        "shows where"
    ),
    "SIGABRT": "a C library gave up (abort), often after printing why to stderr",
    "SIGBUS": "a memory-mapped file was cut short, or the disk or /dev/shm is full",
    "SIGTERM": "somebody asked the process to end",
    "SIGILL": "a C extension was built for another processor",
}


class Scene(NamedTuple):
    """Where a job was when its time was over.

    Attributes:
        worker: number of the worker that ran it.
        pid: its process id.
        peak_rss: its largest resident memory in bytes, 0 if that is not known.
        where: the job's frames; "" if they could not be had.
        output: last lines that the process has printed.
    """

    worker: int
    pid: int | None
    peak_rss: int
    where: str
    output: str


class Loss(NamedTuple):
    """How a worker was lost, as the scheduler hands it on.

    Attributes:
        worker: its number.
        exit: how its process ended.
        ending: why the pool itself ended it, in words; "" when it did not.
        reason: why it ended.
    """

    worker: int
    exit: WorkerExit
    ending: str
    reason: ExitReason


def error_of(call: Call, ending: Ending, detail: Any) -> BaseException:
    """Return the error for a job that ended by `ending`, which is not RESULT."""
    error = detail if isinstance(detail, BaseException) else _made(call, ending, detail)
    if isinstance(error, JobError) and not error.story:  # else it is another pool's
        error.story = call.story()
    return error


def _made(call: Call, ending: Ending, detail: Any) -> BaseException:
    if ending is Ending.LOST:
        if detail.ending and detail.reason is ExitReason.OUT_OF_MEMORY:
            return _over_limit(call, detail)
        return _worker_lost(call, detail)
    if ending is Ending.POISON:
        return _poison(call, detail)
    if ending is Ending.QUARANTINED:
        return _quarantined(call, detail)
    if ending in (Ending.TIMEOUT, Ending.RUN_TIMEOUT):
        return _timeout(call, ending, detail)
    return InternalError(f"{_name(call)} ended by {ending} without an error")


def undecodable(call: Call, error: BaseException) -> RemoteError:
    """Return the error for a result that arrived and cannot be rebuilt here."""
    failure = RemoteError(
        f"the result of {_name(call)} arrived but cannot be rebuilt in this process: "
        f"{type(error).__name__}: {error}; return plain data, or a class that this "
        "process can import",
        type_name=type(error).__qualname__,
        job_id=call.id,
        function=call.function.name,
    )
    failure.__cause__ = error
    return failure


def _over_limit(call: Call, loss: Loss) -> MemoryLimitExceeded:
    error = MemoryLimitExceeded(
        f"{_name(call)} took more memory than it may: {loss.ending}, and was killed; "
        "raise memory_limit, or give the job less at a time",
        job_id=call.id,
        function=call.function.name,
    )
    error.__cause__ = _worker_lost(call, loss)
    return error


def _worker_lost(call: Call, loss: Loss) -> WorkerLost:
    exit = loss.exit
    pid = f" (pid {exit.pid})" if exit.pid else ""
    what = f"worker {loss.worker}{pid} {exit} while it ran {_name(call)}"
    if loss.ending:
        what += f" ({loss.ending})"
    parts = [what, f"likely cause: {_cause(loss)}"]
    if exit.peak_rss:
        parts.append(f"the process held {exit.peak_rss / 2**20:,.0f} MiB at most")
    parts.append(
        "the other jobs go on and the worker is replaced; give retries=... if the "
        "function may be run again"
    )
    message = "; ".join(parts) + "."
    if exit.output:
        message += f"\n{exit.output.rstrip()}"
    return WorkerLost(
        message,
        job_id=call.id,
        function=call.function.name,
        worker=loss.worker,
        pid=exit.pid,
        exitcode=exit.exitcode,
        signal=exit.signal,
        peak_rss=exit.peak_rss or None,
        output=exit.output,
        reason=loss.reason.value,
        where=exit.words,
        story=call.story(),
    )


def _cause(loss: Loss) -> str:
    exit = loss.exit
    if loss.reason is ExitReason.OUT_OF_MEMORY:
        return (
            "the kernel killed it because memory ran out (it has counted an OOM kill); "
            "have fewer workers, set memory_limit, or give each job less at a time"
        )
    if exit.signal is not None:
        return _CAUSES.get(exit.signal, "a signal that nothing handled")
    if exit.code is not None:
        return f"the function, or a library that it uses, called os._exit({exit.code})"
    return "its forkserver was killed, and all workers with it"


def _poison(call: Call, loss: Loss) -> PoisonJob:
    error = PoisonJob(
        f"{_name(call)} killed {call.kills} workers, one after the other, and is "
        f"not tried again; the last one, worker {loss.worker}, {loss.exit}; run it "
        'alone with engine="inline" to see why',
        job_id=call.id,
        function=call.function.name,
    )
    error.__cause__ = _worker_lost(call, loss)
    return error


def _quarantined(call: Call, refusal: Refusal) -> Quarantined:
    loss, after = refusal.loss, refusal.retry_after
    when = (
        f"the first call of it in {after:.1f} s or later will be tried again"
        if after
        else "a call of it is being tried now, and its end decides"
    )
    error = Quarantined(
        f"{_name(call)} was not run: the function has killed {refusal.deaths} workers "
        f"in a row, the last of them, worker {loss.worker}, {loss.exit}; {when}; run "
        'it alone with engine="inline" to see why',
        job_id=call.id,
        function=call.function.name,
        retry_after=after,
    )
    error.__cause__ = _worker_lost(call, loss)
    return error


def _timeout(call: Call, ending: Ending, scene: Scene | None) -> JobTimeout:
    options = call.options
    kind = "timeout" if ending is Ending.TIMEOUT else "run_timeout"
    limit = getattr(options, kind)
    if ending is Ending.RUN_TIMEOUT:
        what = f"it ran for more than run_timeout={limit:g} s and was stopped"
    elif call.sent_at:
        what = f"it was sent to a worker, and stopped after timeout={limit:g} s"
    else:
        what = (
            f"it still waited for a worker after timeout={limit:g} s and was not run; "
            "the pool has more work than it can do in that time"
        )
    error = JobTimeout(
        f"{_name(call)} took too long: {what}",
        job_id=call.id,
        function=call.function.name,
        limit=limit,
        kind=kind,
    )
    if scene is not None:
        _describe(error, scene)
    return error


def _describe(error: JobTimeout, scene: Scene) -> None:
    """Say where a job was: in fields, and in notes, which a traceback shows.

    Not in the message: that may be shown to people who should not see any code.
    """
    error.worker, error.pid = scene.worker, scene.pid
    error.peak_rss = scene.peak_rss or None
    error.where, error.output = scene.where, scene.output
    place = f"worker {scene.worker} (pid {scene.pid})"
    if scene.where:
        error.add_note(f"{place} was here, the latest call first:\n{scene.where}")
    else:
        error.add_note(
            f"{place} did not say where it was: somebody has stopped it, it blocks all "
            "signals, or the machine is very busy"
        )
    if scene.output:
        error.add_note(f"it has printed last:\n{scene.output.rstrip()}")


def _name(call: Call) -> str:
    return f"job {call.id} ({call.function.name})"
