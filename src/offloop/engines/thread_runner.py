"""One thread that runs jobs: take, run, tell.

    send ──▶ inbox ──▶ run ──▶ tell ──▶ the loop
               ▲
    recall ────┘ what was not begun

It decides nothing: which jobs it gets is its engine's business. Arguments and results
are handed over as they are.

A thread cannot be killed. A job that must stop is asked to: a coroutine is cancelled,
`current_job().cancelled` becomes true, and `JobInterrupted` is raised in the job's own
code, at the next bytecode. Never inside of a library: this process lives on, and a lock
that logging or the import system holds in that moment would be held for ever. So it is
raised only while the innermost frame belongs to the package of the job's function; as
long as it does not, the engine asks again.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from offloop import context
from offloop.errors import JobInterrupted
from offloop.wire import chunks, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from offloop.engines.call import Call
    from offloop.engines.thread_flow import ThreadFlow

# What a thread tells, each with the runner, and what stands behind it.
READY = "ready"  # jobs can run
BROKEN = "broken"  # the error for which they cannot
DONE = "done"  # call, its result, when it began, seconds that it ran
FAILED = "failed"  # the same with an exception
STOPPED = "stopped"  # the same, nothing: it was interrupted
PARTS = "parts"  # the call of a stream that has given parts away
PROGRESS = "progress"  # the run that has a report
GONE = "gone"  # the thread ends

# Files whose frames lead from a thread to the job's own.
_LEADING = ("/offloop/engines/", "/offloop/wire/", "/asyncio/")

# Without the lock of the interpreter, a thread goes on while another one looks at it.
_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()

_set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_exception.argtypes = (ctypes.c_ulong, ctypes.py_object)
_NOTHING = ctypes.py_object()  # NULL: what was set, and not raised yet, is not to be


class _Run:
    """A job while its function runs."""

    __slots__ = (
        "asked",
        "began",
        "call",
        "flow",
        "loop",
        "raised",
        "report",
        "task",
        "told",
    )

    def __init__(self, call: Call, flow: ThreadFlow | None) -> None:
        self.call = call
        self.flow = flow
        self.began = time.monotonic()
        #: what it can ask about itself
        self.told: context.JobContext
        #: of a coroutine: its loop, and what runs it there
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[Any] | None = None
        #: what it last said of its progress, until the loop has heard it
        self.report: context.Report | None = None
        #: it was asked to stop
        self.asked = False
        #: an exception was, or is about to be, raised in it
        self.raised = False


class ThreadRunner:
    """A thread of one pool, as its engine sees it.

    Args:
        number: of this worker in its pool.
        pool: name of the pool, for people who look at threads.
        tell: takes what the thread has to say; called in the thread.
        preload: modules that are imported before the first job.
        initializer: called before the first job, with `initargs`; None: nothing is.
        initargs: its arguments.
    """

    def __init__(
        self,
        number: int,
        pool: str,
        tell: Callable[..., None],
        preload: Sequence[str],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self.number = number
        self._tell_engine = tell
        self._set_up = partial(_set_up, preload, initializer, initargs)
        self.made_at = time.monotonic()
        self.ready = False
        #: calls that were not begun, each in a list of its own: whoever takes it out
        #: first, the thread or `recall`, has it
        self._inbox: SimpleQueue[list[tuple[Call, ThreadFlow | None]] | None]
        self._inbox = SimpleQueue()
        self._waiting: dict[int, list[tuple[Call, ThreadFlow | None]]] = {}
        # A plain lock, as an interrupt may come wherever Python code begins.
        self._lock = threading.Lock()
        #: the job whose function runs now
        self._run: _Run | None = None
        name = f"offloop {pool} {number}"
        # A job that does not stop must not keep the program from ending.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    # In the loop

    def start(self) -> None:
        """Begin; the thread tells when it is ready."""
        self._thread.start()

    def send(self, call: Call, flow: ThreadFlow | None) -> None:
        """Have a call run after those that were sent before it."""
        entry = self._waiting[call.id] = [(call, flow)]
        self._inbox.put(entry)

    def recall(self, jobs: Sequence[int]) -> list[int]:
        """Take calls back; returns the numbers of those that had not begun."""
        back = []
        for job in jobs:
            entry = self._waiting.get(job)
            if entry is not None and _take(entry) is not None:
                del self._waiting[job]
                back.append(job)
        return back

    def recall_all(self) -> list[int]:
        """Take all calls back that have not begun."""
        return self.recall(list(self._waiting))

    def answered(self, job: int) -> None:
        """Note that the thread has answered for a job."""
        self._waiting.pop(job, None)

    def stop(self) -> None:
        """End the thread, after all that was sent."""
        self._inbox.put(None)

    def is_alive(self) -> bool:
        """Tell whether the thread has not ended."""
        return self._thread.is_alive()

    def run_now(self) -> tuple[Call, float] | None:
        """Return the call whose function runs now, and when it began."""
        run = self._run
        return None if run is None else (run.call, run.began)

    def interrupt(self, job: int, *, again: bool = False) -> bool:
        """Ask the job to stop; False: that must be tried again.

        Args:
            job: its number; it was sent and has not been answered for.
            again: it was asked before, and has swallowed that.
        """
        with self._lock:
            run = self._run
            if run is None or run.call.id != job:
                return False  # it is about to begin, or has just ended
            if not run.asked:
                run.asked = run.told.cancelled = True
                if run.loop is not None and run.task is not None:
                    run.loop.call_soon_threadsafe(run.task.cancel)
            if not _HAS_GIL or (run.task is not None and not again):
                return True
            if not run.raised or again:
                run.raised = self._raise_in(run)
            return run.raised

    def _raise_in(self, run: _Run) -> bool:
        """Raise JobInterrupted where the job is, if that is its own code."""
        thread = self._thread.ident
        assert thread is not None  # it runs a job
        frame = sys._current_frames().get(thread)
        if frame is None or not _is_own(frame, run.call):
            return False
        _set_exception(thread, JobInterrupted)
        return True

    def where(self, job: int | None = None) -> str:
        """Return the frames of the thread, the latest call first.

        Args:
            job: only the frames of this job; "" if it does not run.
        """
        run = self._run
        if job is not None and (run is None or run.call.id != job):
            return ""
        frame = sys._current_frames().get(self._thread.ident or 0)
        lines = []
        while frame is not None:
            code = frame.f_code
            if job is not None and code.co_filename == __file__:
                break
            place = f'  File "{code.co_filename}", line {frame.f_lineno}'
            lines.append(f"{place} in {code.co_name}")
            frame = frame.f_back
        while job is not None and len(lines) > 1 and _leads(lines[-1]):
            lines.pop()
        return "\n".join(lines)

    # In the thread

    def _main(self) -> None:
        try:
            self._set_up()
        except BaseException as error:  # whatever it is, there are no jobs here
            self._tell_engine(BROKEN, self, error)
            return
        self._tell_engine(READY, self)
        while (entry := self._inbox.get()) is not None:
            taken = _take(entry)
            if taken is not None:  # else it was recalled
                run = _Run(*taken)
                self._tell_engine(*self._answer(run), urgent=run.asked)
                del run
            del entry, taken  # what a job has had is not kept until the next one
        self._tell_engine(GONE, self)

    def _answer(self, run: _Run) -> tuple[Any, ...]:
        """Run a job; returns what is to be told of it.

        An interrupt may come until `_end` is through, once; never after that.
        """
        try:
            kind, what = self._outcome(run)
            self._end()
        except JobInterrupted:
            self._end()
            kind, what = STOPPED, None
        return kind, self, run.call, what, run.began, time.monotonic() - run.began

    def _outcome(self, run: _Run) -> tuple[str, Any]:
        try:
            return DONE, self._call(run)
        except JobInterrupted:
            return STOPPED, None
        except BaseException as error:  # whatever it is, it is the job's ending
            if run.asked and isinstance(error, asyncio.CancelledError):
                return STOPPED, None
            call = run.call
            name = call.function.name
            return FAILED, failures.deliverable(error, job_id=call.id, function=name)

    def _end(self) -> None:
        """See to it that no interrupt comes any more."""
        with self._lock:
            run, self._run = self._run, None
            if run is not None and run.raised:
                _set_exception(self._thread.ident or 0, _NOTHING)

    def _call(self, run: _Run) -> Any:
        call = run.call
        deadline = None if call.deadline == float("inf") else call.deadline
        attempt = call.attempts + 1
        run.told = context.JobContext(
            call.id,
            attempt,
            deadline,
            self.number,
            tell=partial(self._tell_progress, run),
        )
        with self._lock:
            self._run = run
        carried: Any = call.carried
        own = carried[0].copy()  # each attempt, and each chunk of a map, has its own
        own.run(context.enter, run.told)
        return own.run(self._work, run, *_arguments(call))

    def _work(self, run: _Run, fn: Any, args: Any, kwargs: Any) -> Any:
        call = run.call
        if call.many is True:
            return chunks.run(
                fn,
                args,
                finish=partial(self._await, run),
                job_id=call.id,
                name=call.function.name,
                keep=failures.deliverable,
            )
        value = fn(*args, **kwargs)
        if run.flow is not None:
            return run.flow.run(value)
        return self._await(run, value) if type(value) is CoroutineType else value

    def _await(self, run: _Run, coroutine: CoroutineType[Any, Any, Any]) -> Any:
        """Run a coroutine in an event loop of its own; returns its result."""

        async def main() -> Any:
            with self._lock:
                asked = run.asked
                run.task = asyncio.current_task()
                run.loop = asyncio.get_running_loop()
            try:
                if asked:  # a moment ago
                    coroutine.close()
                    raise JobInterrupted
                return await coroutine
            finally:
                with self._lock:
                    run.task = run.loop = None

        try:
            return asyncio.run(main())
        except asyncio.CancelledError:
            if run.asked:
                raise JobInterrupted from None
            raise

    def _tell_progress(self, run: _Run, job: int, report: context.Report) -> None:
        """Tell of a job's progress, where it may also be stopped without any harm."""
        before, run.report = run.report, report
        if before is None:  # else the loop is about to look
            self._tell_engine(PROGRESS, self, run)
        if run.asked and not run.raised and threading.current_thread() is self._thread:
            with self._lock:
                stop, run.raised = not run.raised and self._run is run, True
            if stop:
                raise JobInterrupted


def _set_up(
    preload: Sequence[str],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    for module in preload:
        import_module(module)
    if initializer is not None:
        initializer(*initargs)


def _take(entry: list[Any]) -> Any:
    """Take what is in a list out of it, None if somebody else has."""
    try:
        return entry.pop()
    except IndexError:
        return None


def _arguments(call: Call) -> tuple[Any, Any, Any]:
    """Return the function of a call and its arguments, none if they were dropped."""
    found: Any = call.arguments
    if found is None:  # nobody wants it any more
        raise JobInterrupted
    fn, args, kwargs = found
    return fn, args, kwargs


def _leads(line: str) -> bool:
    """Tell whether a frame only leads to the job's own ones."""
    return (
        "/offloop/engines/" in line or "/offloop/wire/" in line or "/asyncio/" in line
    )


def _is_own(frame: FrameType, call: Call) -> bool:
    """Tell whether a frame belongs to the package of a job's function."""
    module = frame.f_globals.get("__name__", "")
    root = (call.function.module or "").partition(".")[0]
    return bool(module.partition(".")[0] == root)
