"""Starts, watches and stops worker processes, as `core.supervision` decides.

    conductor ◀─ worker_made, _employ, _retire, _ended, _gone, ... ─┐
        │                                                            │
        └─ scale, worker_ready, _used, _done, kill, learn ──────▶ Supervisor
                                                                 │    ▲
                                                       lifeline  ▼    │
                                                              forkserver

This is the shell of the supervision machine: it performs its commands through
`forkservers` and tells it what became of them. It has no opinion on restarts, and knows
nothing of jobs.

Nothing here holds the event loop: the forkserver is spawned by a thread of its own, and
orders to it are small writes to a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from offloop import machine, messages
from offloop.core.children import SupervisionState
from offloop.core.commands import (
    EmployChild,
    GiveUp,
    KillChild,
    RetireChild,
    StartChild,
    TerminateChild,
)
from offloop.core.exits import Exit, ExitReason
from offloop.core.supervision import Supervision
from offloop.errors import StartError
from offloop.folders import Folder
from offloop.forkservers import Forkservers
from offloop.handles import WorkerExit, WorkerHandle
from offloop.memory_watch import MemoryWatch
from offloop.telemetry import events
from offloop.wire import arena
from offloop.wire.channel import Channel, make_context
from offloop.wire.status import create_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from offloop.handles import ForkserverHandle
    from offloop.options import PoolOptions
    from offloop.telemetry.events import Listeners

_log = logging.getLogger("offloop")

# Signals that processes hardly ever send to themselves: somebody wanted its end.
_DEADLY = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")

# Seconds that a worker which hangs gets to say where.
_SPEAK_TIME = 0.02


class Conductor(Protocol):
    """What a supervisor needs of the one that it works for."""

    def worker_made(self, worker: WorkerHandle) -> None:
        """Listen to the channel of a worker that is about to start."""

    def worker_employ(self, worker: WorkerHandle) -> None:
        """Give jobs to a worker that is ready."""

    def worker_retire(self, worker: WorkerHandle) -> None:
        """Give the worker no more jobs; send it away when it has none."""

    def worker_ended(self, worker: WorkerHandle) -> None:
        """Take what a worker has said before its process ended."""

    def worker_gone(
        self, worker: WorkerHandle, exit: WorkerExit, reason: ExitReason
    ) -> bool:
        """Take leave of a worker; True when a job is to blame for its death."""

    def gave_up(self, error: StartError) -> None:
        """No worker can be had for now."""


class Supervisor:
    """Keeps the wanted number of workers alive for one conductor.

    Args:
        conductor: is told what happens.
        options: of the pool.
        listeners: are told what happens.
        setup: what each worker gets first: the encoded initializer, or None.
        memory: descriptor of the file that workers read large arguments from, and bytes
            of the file that each writes its large results to.
    """

    def __init__(
        self,
        conductor: Conductor,
        options: PoolOptions,
        listeners: Listeners,
        setup: bytes | None,
        memory: tuple[int, int],
    ) -> None:
        self._conductor = conductor
        self._options = options
        self._listeners = listeners
        self._requests, self._results_size = memory
        self._supervision = Supervision(
            recycle=options.recycle, spares=options.spare_workers
        )
        self._context = make_context()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        #: processes that are starting or running, by number
        self._workers: dict[int, WorkerHandle] = {}
        #: of the sockets; None before the start
        self._folder: Folder | None = None
        self._forkservers = Forkservers(options, setup, self._workers, self._hear)
        self._closing = False
        #: the last thing that kept a worker or forkserver from starting
        self._failure = ""
        #: notices kills for lack of memory
        self._oom_kills = machine.OomKills()
        #: kills those that hold too much
        self._memory_watch = MemoryWatch(options.memory_limit, self._workers, self.kill)
        #: workers that were tried outside of the pool; they have negative numbers
        self._trials = 0
        #: those who wait for a change
        self._watchers: list[asyncio.Future[None]] = []
        #: why no worker can be had; "" while they can
        self.gave_up = ""
        #: it was told that none can be had, and not yet that there is one again
        self._gave_up_told = False
        #: when the latest job of a worker that has ended began, in monotonic seconds
        self._last_job = 0.0
        #: workers started since the beginning
        self.started = 0
        #: workers that have ended, by reason
        self.exits: Counter[ExitReason] = Counter()

    @property
    def folder(self) -> str:
        """Directory of the sockets; its forkserver removes it if this process dies."""
        return "" if self._folder is None else self._folder.path

    @property
    def workers(self) -> Iterable[WorkerHandle]:
        """The workers that are starting or running."""
        return self._workers.values()

    @property
    def ready_workers(self) -> list[WorkerHandle]:
        """The workers that have been ready and have not ended."""
        return [worker for worker in self._workers.values() if worker.ready]

    @property
    def starting(self) -> int:
        """Number of workers that are not ready yet, or that wait to be started."""
        seen = self._supervision.stats()
        return seen.starting + seen.waiting

    def last_job_began(self, number: int) -> float:
        """Return when the last job of a worker began, in monotonic seconds."""
        return self._workers[number].page.since()

    def start(self, workers: int) -> None:
        """Begin to start so many workers; even for none there will be a forkserver."""
        self._folder = Folder()
        self._forkservers.begin(self._folder.path)
        self.scale(workers)
        self._memory_watch.start()

    def scale(self, workers: int, first: Sequence[int] = ()) -> None:
        """Want so many workers from now on.

        Args:
            workers: that there should be.
            first: numbers of those that go first, if there are too many.
        """
        now = time.monotonic()
        self._perform(self._supervision.scale_asked(workers, now, first))

    def dismiss(self, deadline: float) -> None:
        """Want no worker any more; those still there at `deadline` are killed."""
        for worker in self._workers.values():
            if worker.number < 0:
                self.end_trial(worker)
        self._perform(self._supervision.stop_asked(deadline, time.monotonic()))

    def worker_ready(self, worker: WorkerHandle, pid: int) -> None:
        """Note that a worker is ready; nobody else can reach its socket any more."""
        worker.channel.seal()
        worker.ready_at = time.monotonic()
        worker.pid = pid  # the forkserver may tell it a moment later
        self._failure = ""
        if worker.number > 0:
            self.gave_up = ""
            now = time.monotonic()
            who, took = worker.identity(), now - worker.made_at
            self._listeners.tell(events.WorkerReady, **who, seconds=took)
            if self._gave_up_told:
                self._gave_up_told = False
                self._listeners.tell(events.PoolRecovered)
            self._perform(self._supervision.child_ready(worker.number, now))
        else:
            self._tell_watchers()

    def worker_broken(self, worker: WorkerHandle, report: str) -> None:
        """Note that a worker's set-up failed; its end follows."""
        worker.broken = report

    def worker_used(self, worker: WorkerHandle) -> None:
        """Look what a worker has used up of what it may use."""
        jobs, memory = worker.page.used()
        now = time.monotonic()
        self._perform(self._supervision.child_used(worker.number, jobs, memory, now))

    def worker_done(self, worker: WorkerHandle, reason: ExitReason) -> None:
        """Replace a worker that begins nothing more."""
        if worker.number < 0:
            return
        now = time.monotonic()
        self._perform(self._supervision.child_spent(worker.number, reason, now))

    def worker_leaving(
        self, worker: WorkerHandle, why: str, reason: ExitReason
    ) -> None:
        """Note that a worker leaves because it should: its end is not a failure.

        Args:
            worker: that leaves.
            why: in words.
            reason: counted, unless there was an earlier one.
        """
        worker.ending = why
        worker.reason = worker.reason or reason

    def kill(self, worker: WorkerHandle, why: str, reason: ExitReason) -> None:
        """End a worker at once; its end comes back as `worker_gone`."""
        self.worker_leaving(worker, why, reason)
        worker.send_signal(signal.SIGKILL)

    def kill_hung(self, worker: WorkerHandle, why: str, reason: ExitReason) -> None:
        """Let a worker say where it hangs, then end it."""
        self.worker_leaving(worker, why, reason)
        worker.hearing.ask(partial(self._kill_heard, worker), _SPEAK_TIME)

    def _kill_heard(self, worker: WorkerHandle, said: str) -> None:
        if worker.exit is None:
            said = said.rstrip()
            where = f"it was here:\n{said}" if said else "it did not say where it was"
            # Who ends a program, by Ctrl-C perhaps, knows that jobs end with it.
            _log.log(
                logging.INFO if self.closing else logging.WARNING,
                "worker %d (pid %s) is killed: %s; %s",
                worker.number,
                worker.pid,
                worker.ending,
                where,
            )
            worker.send_signal(signal.SIGKILL)

    def learn(self, module: str) -> None:
        """Let later workers find a module imported that a worker saw to be harmless."""
        self._forkservers.learn(module)

    # Another generation of workers, for `renewal`

    @property
    def closing(self) -> bool:
        """True once the end has begun."""
        return self._closing or self._supervision.state is SupervisionState.STOPPING

    async def changed(self) -> None:
        """Wait until a worker is ready, retired or gone, or the end begins."""
        watcher = self._loop.create_future()
        self._watchers.append(watcher)
        await watcher

    def make_forkserver(self) -> ForkserverHandle:
        """Return a new forkserver beside the one that makes the pool's workers."""
        return self._forkservers.make_trial()

    def try_worker(self, forkserver: ForkserverHandle) -> WorkerHandle:
        """Return a worker of that forkserver that is not one of the pool."""
        self._trials += 1
        return self._make_worker(StartChild(-1, -self._trials), forkserver)

    def end_trial(self, worker: WorkerHandle) -> None:
        """End a worker that was tried."""
        if worker.exit is None:
            self.kill(worker, "its trial is over", ExitReason.RELOADED)

    def trouble_of(self, forkserver: ForkserverHandle) -> str:
        """Return why a forkserver that was made to be tried is no good; "" if it is."""
        return self._forkservers.trouble_of(forkserver)

    def use_forkserver(self, forkserver: ForkserverHandle) -> None:
        """Let this one make all further workers."""
        self._forkservers.use(forkserver)
        now = time.monotonic()
        self._perform(self._supervision.spares_outdated(ExitReason.RELOADED, now))
        self._perform(self._supervision.cause_removed(now))
        self.gave_up = ""

    def drop_forkserver(self, forkserver: ForkserverHandle) -> None:
        """Forget a forkserver that was made to be tried."""
        self._forkservers.drop(forkserver)

    def workers_of_others(self, forkserver: ForkserverHandle) -> list[WorkerHandle]:
        """Return the workers of other forkservers that are not about to go."""
        return [
            worker
            for worker in self._workers.values()
            if worker.forkserver is not forkserver and worker.reason is None
        ]

    @property
    def is_short(self) -> bool:
        """True while there should be workers and none works."""
        seen = self._supervision.stats()
        return seen.target > 0 and not seen.ready

    def works(self, worker: WorkerHandle) -> bool:
        """Tell whether a worker has a place in the pool, and may get jobs."""
        return self._supervision.works(worker.number)

    def state_of(self, worker: WorkerHandle) -> str:
        """Return where a worker stands in its life, as a word of `ChildState`."""
        return self._supervision.state_of(worker.number).value

    def replace(self, worker: WorkerHandle, reason: ExitReason) -> None:
        """Have a worker that works replaced, unless that is under way."""
        now, number = time.monotonic(), worker.number
        self._perform(self._supervision.child_retire_asked(number, reason, now))

    def _tell_watchers(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def close(self) -> None:
        """End everything at once and leave nothing; running workers are killed."""
        self._closing = True
        self._memory_watch.close()
        if self._timer is not None:
            self._timer.cancel()
        self._forkservers.hang_up()
        await self._forkservers.gone()
        for worker in list(self._workers.values()):
            self._end(worker, WorkerExit(worker.pid, None, 0, time.monotonic()))
        self._tell_watchers()
        self._leave()

    def abandon(self) -> None:
        """End everything, though the loop is closed: nobody is waited for."""
        self._forkservers.hang_up()
        for worker in self._workers.values():
            worker.close()
        self._leave()

    def _leave(self) -> None:
        self._context.destroy(linger=0)
        if self._folder is not None:
            self._folder.remove()

    # Performing what the machine asks for

    def _perform(self, commands: Sequence[Any]) -> None:
        for command in commands:
            match command:
                case StartChild():
                    self._start_worker(command)
                case EmployChild(child=child):
                    worker = self._workers[child]
                    worker.slot = self._supervision.slot_of(child)  # a spare had none
                    self._conductor.worker_employ(worker)
                case RetireChild(child=child, reason=reason):
                    worker = self._workers[child]
                    self.worker_leaving(worker, reason.value, reason)
                    self._conductor.worker_retire(worker)
                    reason = worker.reason or reason
                    what = worker.identity() | {"reason": reason.value}
                    self._listeners.tell(events.WorkerRetiring, **what)
                case (
                    TerminateChild(child=child, reason=reason)
                    | KillChild(child=child, reason=reason)
                ):
                    if child in self._workers:  # else it could not be made
                        self.kill(self._workers[child], "asked to end", reason)
                case GiveUp(reason=text):
                    self._give_up(text)
        self._tell_watchers()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._supervision.next_due()
        if due is not None and not self._closing:
            delay = max(due - time.monotonic(), 0.0)
            self._timer = self._loop.call_later(delay, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self._perform(self._supervision.time_passed(time.monotonic()))

    def _give_up(self, reason: str) -> None:
        self.gave_up = reason
        output = self._failure.rstrip()
        message = f"the workers of pool {self._options.name!r} cannot start: {reason}"
        if output:
            message += f"\n{output}"
        self._gave_up_told = True
        self._listeners.tell(events.PoolGaveUp, reason=reason, output=output)
        self._conductor.gave_up(StartError(message, output=output))

    def _start_worker(self, order: StartChild) -> None:
        """Have a worker made; if this process has no room for it, its start failed."""
        try:
            self._make_worker(order, self._forkservers.present())
        except OSError as error:
            self._failure = f"this process has no room for another worker: {error}"
            _log.warning("worker %d was not started: %s", order.child, self._failure)
            # What else was decided together with the start is performed first.
            self._loop.call_soon(self._could_not_make, order.child)

    def _could_not_make(self, child: int) -> None:
        self.exits[ExitReason.START_FAILED] += 1
        if not self._closing:
            now = time.monotonic()
            self._perform(
                self._supervision.child_exited(child, Exit.UNASKED, self._failure, now)
            )

    def _make_worker(
        self, order: StartChild, forkserver: ForkserverHandle
    ) -> WorkerHandle:
        """Order a worker.

        Raises:
            OSError: this process may open no more files, or has no memory left.
        """
        self.started += 1
        number = order.child
        path = self._forkservers.path_of(number)
        slot = self._supervision.slot_of(number)
        with contextlib.ExitStack() as undo:
            channel = Channel(self._context)
            undo.callback(channel.close)
            channel.bind(path)
            files = []
            for make in (create_file, partial(arena.create_file, self._results_size)):
                files.append(make())
                undo.callback(os.close, files[-1])
            page, results = files
            worker = WorkerHandle(number, slot, forkserver, channel, page, results)
            self._conductor.worker_made(worker)
            undo.pop_all()
        worker.page.allow(order.max_jobs, order.max_rss)
        worker.page.limit_memory(self._options.memory_limit or 0)
        if self._options.sandbox:
            worker.page.put_in_sandbox()
        self._workers[number] = worker
        if number > 0:
            who = {"worker": number, "slot": slot}
            self._listeners.tell(events.WorkerStarted, **who)
        forkserver.order((messages.FORK, number, path), page, self._requests, results)
        return worker

    def _end(self, worker: WorkerHandle, exit: WorkerExit) -> None:
        self._conductor.worker_ended(worker)  # its last word may tell why it left
        worker.exit = exit
        wanted = worker.reason is not None or self._closing
        reason = self._reason(worker, exit)
        self.exits[reason] += 1
        blamed = self._conductor.worker_gone(worker, exit, reason)
        if worker.number > 0:
            explained = worker.reason is ExitReason.OUT_OF_MEMORY  # by its job's error
            self._tell_ended(worker, exit, reason, blamed or explained)
        del self._workers[worker.number]
        self._last_job = max(self._last_job, worker.page.since())
        if not wanted and exit.output:
            self._failure = exit.output
        worker.close()
        self._forkservers.let_go(worker.forkserver)
        if worker.number < 0:
            self._tell_watchers()
        elif not self._closing:
            if blamed or wanted:
                kind = Exit.BLAMED if blamed else Exit.WANTED
            else:
                kind = self._unasked(worker, exit, reason)
            now, text, number = time.monotonic(), str(exit), worker.number
            ended = exit.ended_at
            self._perform(
                self._supervision.child_exited(number, kind, text, now, ended)
            )

    def _tell_ended(
        self, worker: WorkerHandle, exit: WorkerExit, reason: ExitReason, blamed: bool
    ) -> None:
        self._listeners.tell(
            events.WorkerEnded,
            **worker.identity(),
            reason=reason.value,
            exitcode=exit.exitcode,
            signal=exit.signal,
            seconds=max(exit.ended_at - worker.ready_at, 0.0),
            peak_rss=exit.peak_rss,
            blamed=blamed,
            output=exit.output,
        )

    def _unasked(
        self, worker: WorkerHandle, exit: WorkerExit, reason: ExitReason
    ) -> Exit:
        """Return what an end counts for that neither we nor a job has caused."""
        forkserver = worker.forkserver
        if forkserver.lost:
            if forkserver.was_counted:
                return Exit.WANTED  # one cause, one death: another worker's was counted
            forkserver.was_counted = True
        # Somebody may kill workers as often as he likes, if the pool gets something
        # done meanwhile. Otherwise it looks like a fault, by whomever.
        killed = reason is ExitReason.CRASHED and exit.signal in _DEADLY
        progress = self._last_job >= worker.ready_at or any(
            one.page.since() >= worker.ready_at for one in self._workers.values()
        )
        return Exit.WANTED if killed and progress else Exit.UNASKED

    def _reason(self, worker: WorkerHandle, exit: WorkerExit) -> ExitReason:
        """Return why a worker ended."""
        if worker.reason is not None:
            return worker.reason
        if self._closing:
            return ExitReason.SHUTDOWN
        if not worker.ready:
            return ExitReason.START_FAILED
        if exit.code is None:
            return ExitReason.FORKSERVER_LOST
        if exit.signal == "SIGKILL" and self._oom_kills.one_more():
            return ExitReason.OUT_OF_MEMORY
        return ExitReason.CRASHED

    # What forkservers say

    def _hear(
        self, forkserver: ForkserverHandle, message: tuple[Any, ...] | None
    ) -> None:
        if message is None:
            self._lost_forkserver(forkserver)
            return
        kind, *details = message
        if kind == messages.STARTED:
            number, pid, has_pidfd = details
            pidfd = forkserver.take_descriptor() if has_pidfd else None
            self._workers[number].started(pid, pidfd)
        elif kind == messages.EXITED:
            self._heard_exited(*details)
        elif kind == messages.FAILED:
            module, text = details
            self._failure = f"preload of {module} failed:\n{text}"

    def _heard_exited(
        self, number: int, pid: int, code: int | None, peak: int, ended: float | str
    ) -> None:
        worker = self._workers[number]
        if isinstance(ended, str):  # it never was a process
            self._end(worker, WorkerExit(None, None, 0, time.monotonic(), ended))
        else:
            left = worker.last_words(), worker.page.printed()
            self._end(worker, WorkerExit(pid, code, peak, ended, *left))

    def _lost_forkserver(self, forkserver: ForkserverHandle) -> None:
        """Take leave of a forkserver that ended; its workers have died with it."""
        output = forkserver.failure or self._failure or "its forkserver ended"
        for worker in list(self._workers.values()):
            if worker.forkserver is forkserver:
                self._end(
                    worker, WorkerExit(worker.pid, None, 0, time.monotonic(), output)
                )
