"""On this machine's cores: the one conductor of core, wire and supervisor.

    SendJobs ──────────────▶ send ═▶ worker     many jobs in one message
                                       │
    answered ◀─ receive ◀══════════════╛        in slices: a burst cannot hold the loop

All of it runs on the event loop's thread, a few microseconds at a time: no thread is
crossed and nothing waits. What was decided comes from `scheduled`; this file carries
jobs to workers and brings back what became of them.
"""

from __future__ import annotations

import asyncio
import marshal
import signal
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from offloop import messages, meter
from offloop.core.commands import (
    CloseJob,
    InterruptJob,
    KillWorker,
    RecallJobs,
    StopWorker,
)
from offloop.core.exits import ExitReason
from offloop.core.job import Ending, JobState
from offloop.engines import dumps, endings, logbook
from offloop.engines.call import check_sandbox, encode_setup
from offloop.engines.late import LateJobs
from offloop.engines.lending import LendingEngine
from offloop.engines.line import Line
from offloop.engines.memory import Exchange, Memory
from offloop.engines.sizing import Sizing
from offloop.engines.trial import Trial
from offloop.errors import PoolClosed, StartError
from offloop.renewal import Renewal
from offloop.supervisor import Supervisor
from offloop.wire import status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from offloop.core.commands import Command
    from offloop.engines.call import Call
    from offloop.engines.figures import PoolStats, WorkerDump, WorkerInfo
    from offloop.handles import WorkerExit, WorkerHandle
    from offloop.options import PoolOptions
    from offloop.telemetry.events import Listeners

# Messages taken from one worker before the loop gets its turn.
_SLICE = 4

# Why a worker leaves that says it is used up.
_USED_UP = {
    meter.JOBS: ExitReason.RECYCLED_JOBS,
    meter.MEMORY: ExitReason.RECYCLED_MEMORY,
    meter.LIMIT: ExitReason.OUT_OF_MEMORY,
}

# A job that ends so may be running still.
_LATE = (Ending.TIMEOUT, Ending.RUN_TIMEOUT)

# Seconds after which a worker would have told the next report of its job by itself.
_REPORT_TIME = 1.2 * messages.REPORT_PAUSE

# Seconds that workers get to leave after STOP before they are killed.
_LEAVE_TIME = 2.0


class LocalEngine(LendingEngine):
    """Runs jobs in worker processes on this machine.

    Args:
        options: of the pool.
        listeners: are told what happens.
    """

    def __init__(self, options: PoolOptions, listeners: Listeners) -> None:
        check_sandbox(options)
        memory = Memory(options.arena_limit, options.max_workers)
        super().__init__(options, listeners, memory, max_credit=status.SLOTS)
        self._supervisor = Supervisor(
            self,
            options,
            listeners,
            encode_setup(options),
            (memory.arena.fileno(), memory.results_size),
        )
        self._lines: dict[int, Line] = {}
        #: lines whose jobs are to be asked back
        self._recalling: set[Line] = set()
        self._sizing = Sizing(options, self._scheduler, self._supervisor, listeners)
        self._late = LateJobs(self._settle_now)
        self._workers_lost = 0
        #: why nobody is started for now; those workers that live go on
        self._gave_up: StartError | None = None
        self._closing = False
        #: nobody gets time to end: workers are killed
        self._killing = False
        #: workers count what they use, for the supervisor to look at
        self._metered = options.recycle is not None
        #: one reload at a time
        self._reloading = asyncio.Lock()
        #: done when the last worker has left; None unless closing
        self._all_gone: asyncio.Future[None] | None = None

    # The engine's face

    def begin(self) -> None:
        self._supervisor.start(self._sizing.target)

    async def started(self) -> None:
        await self._wait_ready(min(self._sizing.target, 1))

    async def ready(self) -> None:
        await self._wait_ready(self._sizing.target)

    async def close(self) -> None:
        self.cancel_all()
        self._failure = PoolClosed(f"pool {self._options.name!r} was closed")
        self._closing = True
        self._stop_waiting(self._failure)
        self._sizing.close()
        self._late.end_all()
        await self._dismiss_workers()
        self._disarm()
        await self._close_memory()
        await self._supervisor.close()
        await self._logbook.close()

    def kill(self) -> None:
        super().kill()
        self._killing = True
        if self._all_gone is not None:
            self._supervisor.dismiss(time.monotonic())
            if not self._all_gone.done():
                self._all_gone.set_result(None)

    def abandon(self) -> None:
        self._supervisor.abandon()
        self._memory.close()
        self._logbook.abandon()

    async def resize(self, max_workers: int) -> None:
        self._sizing.bound(max_workers)
        await self._wait_ready(self._sizing.target)

    def stats(self) -> PoolStats:
        return replace(
            super().stats(),
            workers_lost=self._workers_lost,
            workers_started=self._supervisor.started,
            exits={why.value: n for why, n in self._supervisor.exits.items()},
            failure=self._supervisor.gave_up,
        )

    async def reload(self, probe: Callable[[], object] | None) -> None:
        trial = None if probe is None else Trial(probe, self._functions)
        async with self._reloading:
            ask = None if trial is None else partial(self._try, trial)
            await Renewal(self._supervisor, ask, self._listeners).run()

    async def _try(self, trial: Trial, worker: WorkerHandle) -> None:
        """Have a worker tried that the scheduler does not know.

        Raises:
            Exception: what is wrong with it.
        """
        line = self._lines[worker.number]
        line.trial = trial
        message = trial.begin(self._scheduler.next_id(), self.loop.create_future())
        line.send(message)
        await trial.result()

    def workers(self) -> list[WorkerInfo]:
        return dumps.look(self._supervisor, self._scheduler)

    async def dump(self) -> list[WorkerDump]:
        return await dumps.take(self._supervisor.ready_workers, self._scheduler)

    @property
    def home(self) -> str:
        return self._supervisor.folder

    @property
    def wanted(self) -> int:
        return self._sizing.target

    def kill_worker(self, number: int) -> int | None:
        line = self._lines.get(number)
        if line is None:
            return super().kill_worker(number)
        line.worker.send_signal(signal.SIGKILL)
        return line.worker.pid

    # What the supervisor tells

    def worker_made(self, worker: WorkerHandle) -> None:
        exchange = self._make_exchange(worker)
        line = self._lines[worker.number] = Line(worker, exchange, self._read_soon)
        self.loop.add_reader(worker.channel.fd, self._noticed, line)

    def _make_exchange(self, worker: WorkerHandle) -> Exchange:
        return Exchange(worker.results, self._memory.results_size)

    def worker_employ(self, worker: WorkerHandle) -> None:
        number, now = worker.number, time.monotonic()
        options = self._options
        if options.forward_logs or options.capture_output:
            levels = self._log_levels() if options.forward_logs else None
            self._lines[number].send((messages.LOGS, levels, options.capture_output))
        self._perform(self._scheduler.worker_ready(number, now))
        self._sizing.worker_ready()

    def _log_levels(self) -> dict[str, int]:
        return logbook.levels()

    def worker_retire(self, worker: WorkerHandle) -> None:
        number = worker.number
        if self._scheduler.knows(number):
            self._perform(self._scheduler.worker_retiring(number, time.monotonic()))
        else:  # it stood by, and has never had a job
            self._lines[number].send((messages.STOP,))

    def worker_ended(self, worker: WorkerHandle) -> None:
        line = self._lines[worker.number]
        line.gone = True
        self.loop.remove_reader(worker.channel.fd)
        self._read_all(line)
        if self._scheduler.knows(worker.number):
            self._rescue(line)

    def worker_gone(
        self, worker: WorkerHandle, exit: WorkerExit, reason: ExitReason
    ) -> bool:
        """Take leave of a worker, once everything that it has finished is delivered."""
        number = worker.number
        line = self._lines[number]
        blamed = False
        if self._scheduler.knows(number):
            if not worker.ending and self._all_gone is None:
                self._workers_lost += 1
            call: Any = self._scheduler.held(number, worker.page.running())
            blamed = call is not None
            running, now = (call.id if blamed else None), time.monotonic()
            detail = endings.Loss(number, exit, worker.ending, reason)
            self._perform(self._scheduler.worker_lost(number, running, detail, now))
            self._sizing.worker_gone()
            if blamed:
                self._tell_retried(call, f"its worker {exit}")
        elif line.trial is not None:
            line.trial.ended(exit)
        del self._lines[number]
        self._transfers.let_go(line.exchange.close())
        self._transfers.memory_freed()
        self._recalling.discard(line)
        if self._gave_up is not None and not self._sizing.ready:
            self._fail(self._gave_up)
        self._arm()
        self._sizing.mind()
        if self._all_gone is not None and not self._lines and not self._all_gone.done():
            self._all_gone.set_result(None)
        return blamed

    def gave_up(self, error: StartError) -> None:
        self._gave_up = error
        self._sizing.stop_waiting(error)
        if not self._sizing.ready:
            self._fail(error)

    def _fail(self, error: StartError) -> None:
        """Refuse jobs, and end those that wait: nobody is there to run them."""
        self._failure = error
        self._stop_waiting(error)
        self._perform(self._scheduler.abandon_all(error, time.monotonic()))

    def _release(self, now: float) -> None:
        super()._release(now)
        if self._sizing.is_elastic and self._scheduler.waiting:
            self._sizing.mind()

    # Receiving

    def _noticed(self, line: Line) -> None:
        """Read, as there is something, unless that is going to happen anyway."""
        if not line.looks:
            self._read(line)

    def _read(self, line: Line) -> None:
        """Take what a worker sent, in slices; the descriptor is edge-triggered."""
        receive = line.worker.channel.receive_nowait
        line.looks = True
        try:
            for _ in range(_SLICE):
                message = receive()
                if message is None:
                    break
                self._hear(line, message)
            more = message is not None
        finally:
            line.looks = False
        if more:
            line.look_soon()
        self._arm()

    def _read_soon(self, line: Line) -> None:
        self.loop.call_soon(self._read_again, line)

    def _read_again(self, line: Line) -> None:
        if line.worker.number in self._lines:  # it may have gone meanwhile
            self._read(line)

    def _read_all(self, line: Line) -> None:
        while (message := line.worker.channel.receive_nowait()) is not None:
            self._hear(line, message)

    def _hear(self, line: Line, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if line.trial is not None and kind in (messages.RESULTS, messages.ANSWERS):
            line.trial.answered(message[1])
        elif kind == messages.RESULTS:
            self._heard_results(line, message[1])
        elif kind == messages.ANSWERS:
            if message[3]:
                line.exchange.released(message[3])
            self._heard_answers(line, message[1])
            if message[3]:
                self._transfers.memory_freed()
            for module in message[2]:
                self._supervisor.learn(module)
        elif kind == messages.RETURNED:
            line.recalls -= 1
            if not line.recalls:
                line.worker.page.ask_attention(False)
            self._heard_returned(line, message[1])
        elif kind == messages.DECLINED:
            self._heard_returned(line, message[1])
        elif kind == messages.READY:
            self._heard_ready(line, message[1])
        elif kind == messages.PARTS:
            self._carry_parts(line, *message[1:])
        elif kind == messages.PROGRESS:
            self._heard_progress(line.worker.number, message[1], message[2])
            self.loop.call_later(_REPORT_TIME, line.ask_for_report)
        elif kind == messages.SAID:
            self._heard_said(line.worker.number, message[1], message[2])
        elif kind == messages.SPENT:
            self._supervisor.worker_done(line.worker, _USED_UP[message[1]])
        elif kind == messages.BROKEN:
            self._supervisor.worker_broken(line.worker, message[1])

    def _heard_returned(self, line: Line, jobs: list[int]) -> None:
        line.unanswered -= len(jobs)
        now = time.monotonic()
        self._perform(self._scheduler.jobs_returned(line.worker.number, jobs, now))

    def _heard_ready(self, line: Line, pid: int) -> None:
        if line.worker.number > 0 and not self._closing:  # not one that is only tried
            self._failure = self._gave_up = None
        self._supervisor.worker_ready(line.worker, pid)

    def _heard_results(self, line: Line, results: list[tuple[Any, ...]]) -> None:
        """Tell the scheduler of results that need no further look."""
        self._answered(line, results)
        number, now = line.worker.number, time.monotonic()
        self._perform(self._scheduler.jobs_finished(number, results, now))

    def _heard_answers(self, line: Line, answers: list[tuple[Any, ...]]) -> None:
        """Tell the scheduler of answers, some of which are more than results."""
        if not answers:
            return
        self._answered(line, answers)
        worker = line.worker
        number, now = worker.number, time.monotonic()
        finished: list[tuple[Any, ...]] = []
        for answer in answers:
            status, places = answer[3:] or (messages.OK, ())
            if status == messages.OK:
                finished.append(self._received(line, answer, places))
                continue
            if finished:  # facts are told in the order in which they happened
                self._perform(self._scheduler.jobs_finished(number, finished, now))
                finished = []
            job, (payload, started), run_time = answer[:3]
            if status == messages.ERROR:
                self._heard_error(number, job, payload, started, run_time, now)
            else:
                self._heard_interrupted(worker, job, now)
        if finished:
            self._perform(self._scheduler.jobs_finished(number, finished, now))

    def _received(
        self, line: Line, answer: tuple[Any, ...], places: Sequence[Any]
    ) -> tuple[Any, ...]:
        """Return a result with the buffers that lie at `places`."""
        if not places:
            return answer
        job, (payload, started), run_time = answer[:3]
        payload, buffers = self._see(line, payload, places)
        return job, (payload, started, buffers), run_time

    def _see(
        self, line: Line, payload: Any, places: Sequence[Any]
    ) -> tuple[Any, list[memoryview]]:
        """Return a payload and its buffers, some of which lie at `places`."""
        frames = line.worker.channel.receive_buffers(places.count(None))
        buffers = line.exchange.see(places, frames)
        self._mind_memory()
        if payload is None:
            payload = buffers.pop()
        return payload, buffers

    def _answered(self, line: Line, answers: list[tuple[Any, ...]]) -> None:
        line.unanswered -= len(answers)
        self._alone = not line.unanswered and len(answers) == 1
        # Before new jobs go out: a worker may wait for this word, and send them back.
        line.worker.page.note_heard(answers[-1][0])
        if self._metered:
            self._supervisor.worker_used(line.worker)

    def _heard_interrupted(self, worker: WorkerHandle, job: int, now: float) -> None:
        """Let a worker go that has stopped a job, and have it replaced."""
        call = self._scheduler.held(worker.number, job)
        timed_out = call is not None and call.state is JobState.FAILED
        reason = ExitReason.TIMED_OUT if timed_out else ExitReason.CANCELLED
        self._perform(self._scheduler.job_interrupted(worker.number, job, now))
        self._supervisor.worker_leaving(worker, "left after an interrupt", reason)
        self._supervisor.worker_done(worker, reason)

    def _rescue(self, line: Line) -> None:
        """Deliver kept answers that had not left; one may tell why the worker left.

        The scheduler still counts on the worker and may give it jobs meanwhile; they go
        nowhere, and `worker_lost` brings them back.
        """
        number = line.worker.number
        for kept in line.worker.page.kept():
            answer = marshal.loads(kept)
            # What travelled as frames was not kept.
            if self._scheduler.held(number, answer[0]) is not None:
                self._heard_answers(line, [answer])

    # Performing what the scheduler asks for

    def _send(self, number: int, calls: list[Call]) -> None:
        line = self._lines[number]
        forgotten = self._functions.drain_forgotten()
        if forgotten:
            for one in self._lines.values():
                one.forget(forgotten)
        line.send_jobs(calls)

    def _perform_rare(self, command: Command) -> None:
        match command:
            case RecallJobs(worker=number, jobs=jobs):
                self._recall(self._lines[number], jobs)
            case CloseJob(worker=number, job=job):
                self._recall(self._lines[number], [job])
            case InterruptJob(worker=number, job=job):
                line = self._lines[number]
                line.worker.page.interrupt(job)
                self._recall(line, [job])
            case KillWorker(worker=number, why=why, reason=reason, hung=hung):
                kill = self._supervisor.kill_hung if hung else self._supervisor.kill
                kill(self._lines[number].worker, why, reason)
            case StopWorker(worker=number):
                self._lines[number].send((messages.STOP,))

    def _recall(self, line: Line, jobs: list[int]) -> None:
        """Ask jobs back with the next flush: many cancellations become one message."""
        line.recalled += jobs
        if not self._recalling:
            self.loop.call_soon(self._send_recalls)
        self._recalling.add(line)

    def _send_recalls(self) -> None:
        recalling, self._recalling = self._recalling, set()
        for line in recalling:
            line.send_recall()

    # Streams

    def _carry_parts(
        self,
        line: Line,
        job: int,
        payloads: list[Any],
        size: int,
        places: Sequence[Any] = (),
    ) -> None:
        buffers = None
        if places:
            payloads[0], buffers = self._see(line, payloads[0], places)
        self._heard_parts(line.worker.number, job, payloads, size, buffers)

    def let_on(self, call: Call, parts: int, size: int) -> None:
        line = self._lines.get(call.worker or 0)
        if line is not None:
            if line.exchange.seen:  # memory that it may use for what comes now
                line.send_news()
            line.send((messages.MORE, call.id, parts, size))

    def ask_for_parts(self, call: Call) -> None:
        line = self._lines.get(call.worker or 0)
        if line is not None and line.worker.page.holds_parts():
            line.worker.send_signal(messages.WAKE_SIGNAL)

    # Endings

    def _settle_now(self, call: Call, ending: Ending, detail: Any) -> None:
        super()._settle(call, ending, detail)

    def _settle(self, call: Call, ending: Ending, detail: Any) -> None:
        line = self._lines.get(call.worker or 0) if ending in _LATE else None
        if line is None or line.worker.page.running() != call.id or self._closing:
            self._settle_now(call, ending, detail)
        else:
            self._late.ask(call, ending, line.worker)

    def _idle(self) -> bool:
        return super()._idle() and not self._late.busy

    # Memory

    def _give_back(self, dropped: list[int]) -> bool:
        sees_others = False
        for line in self._lines.values():
            line.exchange.forget(dropped)
            line.send_news()
            sees_others = sees_others or line.exchange.seen > 0
        return sees_others

    # Waiting and closing

    async def _wait_ready(self, wanted: int) -> None:
        if self._failure is not None:
            raise self._failure
        if self._sizing.ready < wanted and self._gave_up is not None:
            raise self._gave_up
        await self._sizing.wait_ready(wanted)

    def _stop_waiting(self, error: Exception) -> None:
        """Let everything that waits for workers or for room fail with `error`."""
        super()._stop_waiting(error)
        self._sizing.stop_waiting(error)

    async def _dismiss_workers(self) -> None:
        """Send all workers away, and wait until they are gone."""
        if self._lines:
            self._all_gone = self.loop.create_future()
            if self._killing:
                self._supervisor.dismiss(time.monotonic())
                return  # the end of the forkserver is the end of them all
            deadline = time.monotonic() + self._options.grace + _LEAVE_TIME
            self._supervisor.dismiss(deadline)
            # Killed at the deadline, they are gone a moment later; only a forkserver
            # that somebody has stopped does not tell.
            limit = self._options.grace + _LEAVE_TIME + 1.0
            await asyncio.wait([self._all_gone], timeout=limit)
