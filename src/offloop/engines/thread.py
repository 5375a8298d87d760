"""In threads of this process: for work that lets go of the interpreter's lock.

    SendJobs ──▶ runner ──▶ inbox ═▶ thread       nothing is encoded, nothing copied
                                       │
    listen ◀── told ◀── call_soon ◀════╛          many answers, one wake-up

The same scheduler, options, limits and errors as the local engine. What differs is that
a thread is no process: it cannot be killed, shares all memory, and has no environment
and no limits of its own. What follows from that is refused, here, at the call.

A job that is out of time or cancelled ends at once for whoever waits, and is asked to
stop (see `thread_runner`). If it does not, its thread counts as busy until it does:
there are never more threads than `max_workers`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from offloop import arrays
from offloop.core.commands import (
    CloseJob,
    InterruptJob,
    KillWorker,
    RecallJobs,
    StopWorker,
)
from offloop.core.job import Ending, JobState
from offloop.engines import endings, terms, thread_runner
from offloop.engines.base import Ref
from offloop.engines.figures import WorkerDump, WorkerInfo
from offloop.engines.scheduled import ScheduledEngine
from offloop.engines.thread_flow import ThreadFlow, size_of
from offloop.engines.thread_runner import ThreadRunner
from offloop.errors import (
    JobInterrupted,
    NotOffloadable,
    PoolClosed,
    StartError,
    UsageError,
)
from offloop.wire import puts, tracing
from offloop.wire.functions import OwnFunctions

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.core.commands import Command
    from offloop.engines.call import Call, CallTerms
    from offloop.engines.figures import PoolStats
    from offloop.options import JobOptions, PoolOptions
    from offloop.telemetry.events import Listeners
    from offloop.wire.functions import Function

_log = logging.getLogger("offloop")

# Calls that wait in a thread's inbox behind short ones, so that it need not be woken
# for each.
_MAX_CREDIT = 64

# What threads have told is heard in slices: a burst cannot hold the loop.
_SLICE = 256

# Seconds until a job that could not be interrupted is looked at again: in library code
# it usually is for an instant only, and sometimes for ever.
_AGAIN = 0.001
_AGAIN_AT_MOST = 0.05

# Seconds beyond `grace` that threads have to end when the pool is closed.
_LEAVE_TIME = 0.5

_LATE = (Ending.TIMEOUT, Ending.RUN_TIMEOUT)


class ThreadEngine(ScheduledEngine):
    """Runs jobs in threads.

    Args:
        options: of the pool.
        listeners: are told what happens.
    """

    def __init__(self, options: PoolOptions, listeners: Listeners) -> None:
        super().__init__(options, listeners, max_credit=_MAX_CREDIT)
        self._functions = OwnFunctions()
        self._runners: dict[int, ThreadRunner] = {}
        #: what threads have told and the loop has not heard
        self._told: deque[tuple[Any, ...]] = deque()
        #: the loop was asked to listen
        self._noticed = False
        #: streams that threads have, by job
        self._flows: dict[int, ThreadFlow] = {}
        #: objects that were put, and are referred to
        self._puts: WeakSet[puts.Stored] = WeakSet()
        self._last_put = 0
        #: threads that there should be, and numbers that were given
        self._target = options.max_workers
        self._started = 0
        #: runners that should have been killed: they are lost when their job ends
        self._killed: set[int] = set()
        #: those who wait for so many threads
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._closed = False
        #: done when the last thread has gone; None unless closing
        self._all_gone: asyncio.Future[None] | None = None
        #: seconds that threads have to go
        self._patience = options.grace + _LEAVE_TIME

    @classmethod
    def check(cls, options: PoolOptions) -> None:
        terms.refuse_processes(options)

    # The engine's face

    def begin(self) -> None:
        self._grow()

    def _grow(self) -> None:
        """Start the threads that are missing, one in each turn of the loop."""
        if self._closed or self._failure or len(self._runners) >= self._target:
            return
        self._started += 1
        number = self._started
        options = self._options
        runner = ThreadRunner(
            number,
            options.name,
            self._tell,
            options.preload,
            options.initializer,
            options.initargs,
        )
        self._runners[number] = runner
        runner.start()
        self.loop.call_soon(self._grow)

    async def started(self) -> None:
        await self._wait_ready(1)

    async def ready(self) -> None:
        await self._wait_ready(self._target)

    async def _wait_ready(self, wanted: int) -> None:
        if self._failure is not None:
            raise self._failure
        if self._ready() < wanted:
            waiter = self.loop.create_future()
            self._waiters.append((wanted, waiter))
            await waiter

    def _ready(self) -> int:
        return sum(runner.ready for runner in self._runners.values())

    async def resize(self, max_workers: int) -> None:
        self._target = max_workers
        now = time.monotonic()
        for number in list(self._runners)[max_workers:]:
            if self._scheduler.knows(number):
                self._perform(self._scheduler.worker_retiring(number, now))
        self._grow()
        await self._wait_ready(max_workers)

    async def reload(self, probe: Callable[[], object] | None) -> None:
        """Refuse: what this process has imported stays.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            'threads run the code of their own process, so a pool with engine="thread" '
            "has nothing to reload: restart the program, or use processes"
        )

    async def close(self) -> None:
        self.cancel_all()
        self._failure = closed = PoolClosed(f"pool {self._options.name!r} was closed")
        self._stop_waiting(closed)
        self._closed = True
        for runner in self._runners.values():
            runner.stop()
        if self._runners:
            self._all_gone = self.loop.create_future()
            await asyncio.wait([self._all_gone], timeout=self._patience)
        for runner in self._runners.values():
            run = runner.run_now()
            what = "" if run is None else f", which runs {run[0].function.name},"
            _log.warning(
                "thread %d of pool %r%s does not stop, and cannot be killed; it goes "
                "on until its job ends",
                runner.number,
                self._options.name,
                what,
            )
        self._disarm()

    def kill(self) -> None:
        super().kill()
        self._patience = 0.0
        if self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    def abandon(self) -> None:
        for runner in self._runners.values():
            runner.stop()

    @property
    def wanted(self) -> int:
        return self._target

    def stats(self) -> PoolStats:
        return replace(super().stats(), workers_started=self._started)

    def workers(self) -> list[WorkerInfo]:
        idle = set(self._scheduler.idle_workers())
        now = time.monotonic()
        return [
            WorkerInfo(
                number,
                place,
                os.getpid(),
                _state_of(runner, number in idle),
                now - runner.made_at,
                self._scheduler.jobs_of(number),
                *_run_of(runner, now),
                0,
            )
            for place, (number, runner) in enumerate(self._runners.items())
        ]

    async def dump(self) -> list[WorkerDump]:
        now = time.monotonic()
        return [
            WorkerDump(
                number, os.getpid(), *_run_of(runner, now), f"{runner.where()}\n"
            )
            for number, runner in self._runners.items()
        ]

    def empty(self, shape: Any, dtype: Any, *, zero: bool = False) -> Any:
        return arrays.empty(lambda size: None, shape, dtype, zero=zero)

    async def put(self, obj: object) -> Ref:
        self._last_put += 1
        kind = type(obj).__qualname__
        stored = puts.Stored(self, self._last_put, kind, lambda number: None)
        stored.load = lambda: obj
        self._puts.add(stored)
        return Ref(stored)

    def capture(self) -> Any:
        """Return all of the current context: nothing of it need travel."""
        return copy_context(), tracing.capture()

    # In and out

    def _terms(
        self, named: Function, options: JobOptions, many: bool | int
    ) -> CallTerms:
        if options.on_cancel == "kill":
            raise UsageError(
                'on_cancel="kill" needs a process: a thread cannot be killed. With '
                '"stop" the job is interrupted at the next bytecode of its own code'
            )
        return super()._terms(named, options, many)

    def _encode(
        self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        function, *rest = args
        if self._puts or any(type(one) is Ref for one in (*rest, *kwargs.values())):
            rest, kwargs = self._without_refs(rest), self._without_refs(kwargs)
        call.arguments = function, tuple(rest), kwargs
        return False

    def _without_refs(self, value: Any) -> Any:
        """Return a value with the objects that its `Ref`s stand for, at any depth."""
        kind = type(value)
        if kind is Ref:
            stored = value._stored
            if stored.owner is not self or stored.load is None:
                raise NotOffloadable(
                    f"a Ref to {stored.what} can only be an argument of jobs of the "
                    "pool whose put() made it"
                )
            return stored.load()
        if kind is dict:
            return {key: self._without_refs(one) for key, one in value.items()}
        if kind in (list, tuple, set, frozenset):
            return kind(self._without_refs(one) for one in value)
        return value

    def _size_of(self, call: Call) -> int:
        arguments: Any = call.arguments
        _, args, kwargs = arguments
        return sum(map(size_of, args)) + sum(map(size_of, kwargs.values()))

    async def _wait_memory(self) -> None:
        raise AssertionError("unreachable: memory has no limit here")

    def _send(self, number: int, calls: list[Call]) -> None:
        runner = self._runners[number]
        for call in calls:
            flow = None
            if call.closes:
                notice = partial(self._tell, thread_runner.PARTS, runner, call)
                flow = ThreadFlow(call.function.name, call.many, notice)
                self._flows[call.id] = flow
            runner.send(call, flow)

    def let_on(self, call: Call, parts: int, size: int) -> None:
        flow = self._flows.get(call.id)
        if flow is not None:
            flow.more(parts, size)

    # What threads tell

    def _tell(self, *told: Any, urgent: bool = False) -> None:
        """Note what a thread has to say, and wake the loop; called in any thread.

        Args:
            told: what it says.
            urgent: wake it in any case; an interrupt may have hit the last waking.
        """
        self._told.append(told)
        if urgent or not self._noticed:
            self._noticed = True
            with suppress(RuntimeError):  # the loop is closed: nobody hears any more
                self.loop.call_soon_threadsafe(self._listen)

    def _listen(self) -> None:
        self._noticed = False  # first: what is told from now on wakes the loop again
        told = self._told
        finished: dict[ThreadRunner, list[Any]] = {}
        for _ in range(_SLICE):
            if not told:
                break
            kind, runner, *what = told.popleft()
            if kind is thread_runner.DONE:
                finished.setdefault(runner, []).append(what)
                continue
            if finished:  # facts are told in the order in which they happened
                self._heard_results(finished)
                finished = {}
            self._heard(kind, runner, *what)
        if finished:
            self._heard_results(finished)
        if told:
            self.loop.call_soon(self._listen)
        self._arm()

    def _heard_results(self, finished: dict[ThreadRunner, list[Any]]) -> None:
        self._alone = len(finished) == 1
        for runner, answers in finished.items():
            number, now = runner.number, time.monotonic()
            rows = []
            for call, value, began, run_time in answers:
                self._answered(runner, call)
                rows.append((call.id, ((value,), began), run_time))
                call.arguments = None
            self._alone = (
                self._alone and len(rows) == 1 and self._scheduler.jobs_of(number) == 1
            )
            self._perform(self._scheduler.jobs_finished(number, rows, now))
            self._revive(runner)

    def _heard(self, kind: str, runner: ThreadRunner, *what: Any) -> None:
        number, now = runner.number, time.monotonic()
        match kind:
            case thread_runner.FAILED | thread_runner.STOPPED:
                call, error, began, run_time = what
                self._answered(runner, call)
                if kind is thread_runner.FAILED or call.state is not JobState.SENT:
                    error = error or JobInterrupted()
                    self._note_error(number, call.id, error, began, run_time, now)
                else:  # it has raised JobInterrupted by itself
                    facts = self._scheduler.job_interrupted(number, call.id, now)
                    self._killed.add(number)
                    self._perform(facts)
                if call.id not in self._scheduler:
                    call.arguments = None
                self._revive(runner)
            case thread_runner.PARTS:
                self._take_parts(number, *what)
            case thread_runner.PROGRESS:
                (run,) = what
                report, run.report = run.report, None  # what comes now is told anew
                self._heard_progress(number, run.call.id, report)
            case thread_runner.READY:
                if len(self._runners) > self._target:
                    runner.stop()
                elif not self._closed:
                    runner.ready = True
                    self._perform(self._scheduler.worker_ready(number, now))
                    self._wake()
            case thread_runner.BROKEN:
                self._broken(runner, *what)
            case thread_runner.GONE:
                self._gone(runner)

    def _answered(self, runner: ThreadRunner, call: Call) -> None:
        runner.answered(call.id)
        if call.closes:
            self._take_parts(runner.number, call)
            self._flows.pop(call.id, None)

    def _take_parts(self, number: int, call: Call) -> None:
        flow = self._flows.get(call.id)
        parts, size = ([], 0) if flow is None else flow.take()
        if parts:
            self._heard_parts(number, call.id, parts, size, None)

    def _broken(self, runner: ThreadRunner, error: BaseException) -> None:
        """Refuse jobs: a thread could not be set up, and the next one will not be."""
        failure = StartError(
            f"a thread of pool {self._options.name!r} could not be set up: "
            f"{type(error).__name__}: {error}; see its cause for where"
        )
        failure.__cause__ = error
        self._failure = self._failure or failure
        self._stop_waiting(self._failure)
        self._gone(runner)
        now = time.monotonic()
        self._perform(self._scheduler.abandon_all(self._failure, now))

    def _gone(self, runner: ThreadRunner) -> None:
        number = runner.number
        self._runners.pop(number, None)
        self._killed.discard(number)
        if self._scheduler.knows(number):
            now = time.monotonic()
            self._perform(self._scheduler.worker_lost(number, None, None, now))
        if self._all_gone is not None and not self._runners:
            if not self._all_gone.done():
                self._all_gone.set_result(None)
        else:
            self._grow()

    def _revive(self, runner: ThreadRunner) -> None:
        """Let a thread get jobs again that counts as killed: its job has ended."""
        number = runner.number
        if number not in self._killed:
            return
        self._killed.discard(number)
        for job in runner.recall_all():
            self._flows.pop(job, None)
        now = time.monotonic()
        self._perform(self._scheduler.worker_lost(number, None, None, now))
        if not self._closed:
            self._perform(self._scheduler.worker_ready(number, now))

    # Performing what the scheduler asks for

    def _perform_rare(self, command: Command) -> None:
        match command:
            case RecallJobs(worker=number, jobs=jobs):
                self._recall(self._runners[number], jobs)
            case CloseJob(worker=number, job=job):
                if not self._recall(self._runners[number], [job]):
                    self._flows[job].close_asked()
            case InterruptJob(worker=number, job=job):
                if not self._recall(self._runners[number], [job]):
                    self._interrupt(self._runners[number], job)
            case KillWorker(worker=number):
                self._killed.add(number)
                run = self._runners[number].run_now()
                if run is not None:
                    self._interrupt(self._runners[number], run[0].id, again=True)
            case StopWorker(worker=number):
                self._runners[number].stop()

    def _recall(self, runner: ThreadRunner, jobs: list[int]) -> bool:
        """Take jobs back that have not begun; True if there were any."""
        back = runner.recall(jobs)
        for job in back:
            self._flows.pop(job, None)
        if back:  # not now: other commands of the same moment come first
            self.loop.call_soon(self._returned, runner.number, back)
        return bool(back)

    def _returned(self, number: int, jobs: list[int]) -> None:
        if self._scheduler.knows(number):
            now = time.monotonic()
            self._perform(self._scheduler.jobs_returned(number, jobs, now))
            self._arm()

    def _interrupt(
        self,
        runner: ThreadRunner,
        job: int,
        pause: float = _AGAIN,
        *,
        again: bool = False,
    ) -> None:
        """Ask a job to stop, now and until it can be."""
        if self._scheduler.held(runner.number, job) is None:
            return  # it has ended
        if not runner.interrupt(job, again=again):
            longer = min(2 * pause, _AGAIN_AT_MOST)
            ask = partial(self._interrupt, runner, job, longer, again=again)
            self.loop.call_later(pause, ask)

    # Endings

    def _settle(self, call: Call, ending: Ending, detail: Any) -> None:
        runner = self._runners.get(call.worker or 0)
        if ending in _LATE and runner is not None:
            where = runner.where(call.id)
            if where:
                detail = endings.Scene(runner.number, os.getpid(), 0, where, "")
        super()._settle(call, ending, detail)
        call.arguments = None

    def _wake(self) -> None:
        ready = self._ready()
        for waiting in list(self._waiters):
            wanted, waiter = waiting
            if ready >= min(wanted, self._target):
                self._waiters.remove(waiting)
                if not waiter.done():
                    waiter.set_result(None)

    def _stop_waiting(self, error: Exception) -> None:
        """Let everything that waits for threads or for room fail with `error`."""
        super()._stop_waiting(error)
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()


def _state_of(runner: ThreadRunner, idle: bool) -> str:
    if not runner.ready:
        return "starting"
    return "idle" if idle else "busy"


def _run_of(runner: ThreadRunner, now: float) -> tuple[int | None, str, float]:
    """Return the job that a thread runs, its function, and for how long."""
    run = runner.run_now()
    if run is None:
        return None, "", 0.0
    call, began = run
    return call.id, call.function.name, now - began
