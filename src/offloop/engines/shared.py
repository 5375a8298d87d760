"""On the workers of a coordinator: one pool for all processes of this user.

    submit ─▶ encode ─▶ relay ─▶ coordinator ═▶ worker      large arguments lie in
                                                  │         this client's memory,
    settle ◀─ decode ◀─ relay ◀─ coordinator ◀════╛         large results in the
                                                            worker's
Encoding, decoding and every job's one ending are this process's own business, as in a
private pool. Which worker runs a job, and when, is the coordinator's: it sees numbers,
limits and opaque bytes. If it dies, the jobs that it had end in `PoolLost`; jobs that
wait here, and new ones, go to its successor.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from offloop import messages, runtime
from offloop.core.commands import RecallJobs
from offloop.core.exits import ExitReason
from offloop.core.job import Ending
from offloop.core.quarantine import Refusal
from offloop.core.relay import PEER, Relay
from offloop.engines import endings, terms
from offloop.engines.figures import WorkerDump
from offloop.engines.lending import LendingEngine
from offloop.engines.memory import Exchange, Memory
from offloop.engines.uplink import Uplink
from offloop.errors import PoolClosed, PoolLost, UsageError
from offloop.handles import WorkerExit
from offloop.wire.arena import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from offloop.core.commands import Command
    from offloop.engines.call import Call
    from offloop.engines.figures import PoolStats
    from offloop.options import PoolOptions
    from offloop.telemetry.events import Listeners
    from offloop.wire.functions import Function
    from offloop.workspace import Place

# Seconds that a coordinator has for saying what its workers do.
_DUMP_TIME = 5.0

# Callables without a definition that get a number of their own; then all are dropped.
_APPLIED = 1024


class _Results:
    """The memory that one worker writes large results to, seen from here."""

    __slots__ = ("descriptor", "window")

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.window = Window(descriptor, size)

    def close(self) -> None:
        """Make no more views; those that exist stay as they are."""
        self.window.close()
        os.close(self.descriptor)


class SharedEngine(LendingEngine):
    """Runs jobs on the workers of a coordinator.

    Args:
        options: of the pool; those of its workers are the coordinator's.
        listeners: are told what happens to this program's jobs.

    Raises:
        UsageError: an option cannot hold in a pool that belongs to somebody else.
    """

    def __init__(self, options: PoolOptions, listeners: Listeners) -> None:
        terms.refuse_private(options)
        self._relay = Relay(
            max_pending=options.max_pending, max_pending_bytes=options.max_pending_bytes
        )
        memory = Memory(options.arena_limit, 1)
        super().__init__(
            options,
            listeners,
            memory,
            max_credit=1,
            scheduler=self._relay,
            first_put=terms.first_put(),
        )
        self._uplink = Uplink(
            self,
            runtime.door_of(options.engine),
            options.name,
            memory.arena.fileno(),
        )
        #: what the coordinator has of this client's memory
        self._lent = Exchange(-1, 0)
        #: what is seen of the workers' memory, by worker
        self._results: dict[int, _Results] = {}
        #: functions that the coordinator knows
        self._known: set[int] = set()
        #: numbers of callables that have no definition, by name and kind
        self._applied: dict[tuple[str, str], int] = {}
        #: workers that are ready, as far as the coordinator has told
        self._workers = 0
        #: jobs that the coordinator takes from one client at once; None: any number
        self._limit_there: int | None = None
        #: jobs to be cancelled with the next message
        self._cancelled: list[int] = []
        #: those who wait for the coordinator or for workers
        self._waiters: list[asyncio.Future[None]] = []
        #: questions that were asked, by number
        self._asked: dict[int, asyncio.Future[list[WorkerDump]]] = {}
        self._closing = False

    # The engine's face

    def begin(self) -> None:
        self._uplink.open()

    async def started(self) -> None:
        await self._wait(lambda: self._uplink.is_up)

    async def ready(self) -> None:
        await self._wait(lambda: self._uplink.is_up and self._workers > 0)

    async def close(self) -> None:
        self.cancel_all()
        self._failure = PoolClosed(f"pool {self._options.name!r} was closed")
        self._closing = True
        self._send_cancelled()
        self._stop_waiting(self._failure)
        self._disarm()
        self._uplink.close()
        self._drop_results()
        await self._close_memory()
        await self._logbook.close()

    def abandon(self) -> None:
        self._uplink.abandon()
        self._drop_results()
        self._memory.close()
        self._logbook.abandon()

    async def resize(self, max_workers: int) -> None:
        raise UsageError(
            "a shared pool has as many workers as its coordinator was told to have: "
            "use `offloop serve --compute N`"
        )

    async def reload(self, probe: Callable[[], object] | None) -> None:
        raise UsageError(
            "the workers of a shared pool are not this program's to reload: its "
            "coordinator does that"
        )

    async def dump(self) -> list[WorkerDump]:
        if not self._uplink.is_up:
            raise PoolLost("the coordinator is gone: nobody knows what its workers do")
        number = self._scheduler.next_id()
        answer: asyncio.Future[list[WorkerDump]] = self.loop.create_future()
        self._asked[number] = answer
        self._uplink.send((messages.ASK, number))
        try:
            return await asyncio.wait_for(answer, _DUMP_TIME)
        finally:
            del self._asked[number]

    def stats(self) -> PoolStats:
        return replace(super().stats(), workers=self._workers, busy=0, idle=0)

    # What the uplink tells

    def uplink_made(self, limit: int | None) -> None:
        self._limit_there = limit
        if not self._closing:
            self._failure = None
        self._known.clear()
        self._lent = Exchange(-1, 0)
        self._perform(self._relay.peer_ready(time.monotonic()))
        self._tell_waiters()

    def uplink_file(self, worker: int, size: int, descriptor: int) -> None:
        self._results[worker] = _Results(descriptor, size)

    def uplink_heard(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == messages.RESULTS:
            self._heard_results(message[1], message[2])
        elif kind == messages.FREED:
            self._lent.released(message[1])
            self._transfers.memory_freed()
        elif kind == messages.ENDINGS:
            self._heard_endings(message[1])
        elif kind == messages.PROGRESS:
            self._heard_progress(PEER, message[1], message[2])
        elif kind == messages.PARTS:
            self._carry_parts(*message[1:])
        elif kind == messages.RETURNED:
            self._heard_returned(message[1])
        elif kind == messages.ROOM:
            self._perform(self._relay.peer_ready(time.monotonic(), message[1]))
            if not self._relay.open:
                self._uplink.send((messages.WANT,))
            self._jobs_ended(0)
        elif kind == messages.SIZE:
            self._workers = message[1]
            self._tell_waiters()
        elif kind == messages.GONE:
            self._forget_workers(message[1])
        elif kind == messages.SAID:
            self._heard_said(*message[1:])
        elif kind == messages.DUMPED:
            self._heard_dump(message[1], message[2])

    def uplink_paused(self) -> None:
        self._arm()

    def uplink_lost(self, why: str) -> None:
        self._workers = 0
        self._drop_results()
        self._lent = Exchange(-1, 0)
        self._transfers.memory_freed()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(PoolLost(f"the coordinator is gone: {why}"))
        self._perform(self._relay.peer_lost(why, time.monotonic()))
        self._arm()

    def uplink_failed(self, error: Exception) -> None:
        self._failure = error
        self._stop_waiting(error)
        self._perform(self._scheduler.abandon_all(error, time.monotonic()))

    # Answers

    def _heard_results(self, rows: list[tuple[Any, ...]], frames: list[bytes]) -> None:
        answers = []
        rest = map(bytearray, frames)
        for job, body, run_time, worker, sent_at, places in rows:
            payload, started = body
            buffers: list[memoryview] = []
            if places:
                buffers = self._see(worker, places, rest)
                if payload is None:
                    payload = buffers.pop()
            call: Any = self._scheduler.held(PEER, job)
            if call is not None:
                call.worker = worker
                call.sent_at = sent_at
            answers.append((job, (payload, started, buffers), run_time))
        self._alone = len(rows) == 1 and self._scheduler.pending == 1
        now = time.monotonic()
        self._perform(self._scheduler.jobs_finished(PEER, answers, now))

    def _see(
        self, worker: int, places: Sequence[Place], frames: Iterator[bytearray]
    ) -> list[memoryview]:
        """Return the buffers that lie at these places, or come as frames."""
        views = []
        for place in places:
            if place is None:
                views.append(memoryview(next(frames)))
            else:
                token, offset, size, *_ = place
                window = self._results[worker].window
                views.append(window.lease(token, offset, size))
        self._mind_memory()
        return views

    def _heard_endings(self, rows: list[tuple[Any, ...]]) -> None:
        """Take jobs that ended without a result, as the coordinator tells it."""
        now = time.monotonic()
        for job, word, detail, worker, sent_at, run_time, retries in rows:
            call: Any = self._scheduler.held(PEER, job)
            if call is None:
                continue
            call.worker = worker
            call.sent_at = sent_at or call.sent_at
            call.retried = call.terms.retries - retries
            ending = Ending(word)
            if ending is Ending.ERROR:
                payload, started = detail
                self._heard_error(PEER, job, payload, started, run_time, now)
                continue
            if ending in (Ending.LOST, Ending.POISON):
                detail, call.kills = _read_loss(*detail)
            elif ending is Ending.QUARANTINED:
                *loss, deaths, retry_after = detail
                detail = Refusal(deaths, retry_after, _read_loss(*loss)[0])
            elif detail is not None:
                detail = endings.Scene(*detail)
            self._perform(self._relay.job_ended(job, ending, detail, now))
        self._arm()

    def _heard_returned(self, jobs: list[int]) -> None:
        """Keep jobs that the coordinator has no room for, if they may wait."""
        now = time.monotonic()
        self._perform(self._relay.jobs_returned(PEER, jobs, now))
        for job in jobs:
            call: Any = self._scheduler._jobs.get(job)
            if call is not None and call.options.on_full == "raise":
                self._perform(self._relay.job_refused(job, terms.full_there(), now))
        self._unasked = 0

    def _heard_dump(self, number: int, rows: list[tuple[Any, ...]]) -> None:
        answer = self._asked.get(number)
        if answer is not None and not answer.done():
            answer.set_result([WorkerDump(*row) for row in rows])

    def _heard_said(
        self, worker: int, rows: list[tuple[Any, ...]], dropped: int
    ) -> None:
        if self._options.forward_logs:
            find = partial(self._scheduler.held, PEER)
            self._logbook.take(worker, rows, dropped, find)

    def _settle(self, call: Call, ending: Ending, detail: Any) -> None:
        if ending is Ending.LOST and isinstance(detail, str):
            detail = PoolLost(
                f"job {call.id} ({call.function.name}) was with the coordinator of the "
                f"shared pool (pid {self._uplink.pid}) when that was lost: {detail}; "
                "whether the job has run is not known. Jobs are taken again as soon as "
                "there is a successor; submit it again if it may be run twice."
            )
        super()._settle(call, ending, detail)

    # Streams

    def _carry_parts(
        self,
        job: int,
        payloads: list[Any],
        size: int,
        places: Sequence[Place],
        worker: int,
        frames: list[bytes],
    ) -> None:
        buffers = None
        if places:
            buffers = self._see(worker, places, map(bytearray, frames))
            if payloads[0] is None:
                payloads[0] = buffers.pop()
        self._heard_parts(PEER, job, payloads, size, buffers)

    def let_on(self, call: Call, parts: int, size: int) -> None:
        self._uplink.send((messages.MORE, call.id, parts, size))

    def ask_for_parts(self, call: Call) -> None:
        self._uplink.send((messages.HURRY, call.id))

    # Sending

    def _send(self, number: int, calls: list[Call]) -> None:
        functions: list[tuple[Any, ...]] = []
        puts: list[Any] = []
        rows: list[tuple[Any, ...]] = []
        for call in calls:
            identity = self._introduce(call.function, functions)
            if call.stored:
                puts += self._lent.introduce(call.stored)
            if _is_simple(call):
                rows.append((call.id, identity, call.arguments))
            else:
                rows.append(self._full_row(call, identity))
        self._send_cancelled()
        self._send_forgotten()
        self._uplink.send((messages.CALLS, rows, functions, puts))

    def _introduce(self, function: Function, news: list[tuple[Any, ...]]) -> int:
        """Return the number of a function; it becomes one of the news if it is new."""
        identity = function.id
        if not identity:
            identity = self._number_applied((function.name, function.kind))
        if identity not in self._known:
            self._known.add(identity)
            news.append((identity, function.definition, function.name, function.kind))
        return identity

    def _number_applied(self, key: tuple[str, str]) -> int:
        """Return a number below 0 for a callable that travels in its arguments."""
        if key not in self._applied:
            if len(self._applied) >= _APPLIED:
                self._applied.clear()
                self._known = {one for one in self._known if one > 0}
            self._applied[key] = -1 - len(self._applied)
        return self._applied[key]

    def _full_row(self, call: Call, identity: int) -> tuple[Any, ...]:
        options = call.options
        retriable = call.retries > 0
        return (
            call.id,
            identity,
            call.arguments,
            None if call.deadline == inf else call.deadline,
            options.run_timeout,
            call.terms.priority,
            call.retries,
            call.terms.on_cancel,
            terms.plain_key(options.key),
            options.max_concurrency,
            call.many,
            call.attempts,
            call.carried,
            [self._lent.lend(large, retriable) for large in call.buffers],
            [stored.number for stored in call.stored],
        )

    def _perform_rare(self, command: Command) -> None:
        assert isinstance(command, RecallJobs)  # a relay asks for nothing else
        if not self._cancelled:
            self.loop.call_soon(self._send_cancelled)
        self._cancelled += command.jobs

    def _send_cancelled(self) -> None:
        if self._cancelled:
            cancelled, self._cancelled = self._cancelled, []
            self._uplink.send((messages.CANCEL, cancelled))

    def _send_forgotten(self) -> None:
        """Tell what the coordinator may forget, functions and objects that were put."""
        functions = [
            one for one in self._functions.drain_forgotten() if one in self._known
        ]
        self._known.difference_update(functions)
        puts, self._lent.forgotten = self._lent.forgotten, []
        if functions or puts:
            self._uplink.send((messages.FORGET, functions, puts))

    # Room

    def _count_room(self) -> int:
        if not self._relay.open and self._uplink.is_up:
            return 0
        room = super()._count_room()
        if self._limit_there is not None:
            pending = self._scheduler.pending + self._elsewhere()
            room = min(room, self._limit_there - pending)
        return room

    def _ask_room(self, now: float) -> None:
        super()._ask_room(now)
        if self._unasked < 0:
            self._unasked = 0
            raise terms.full_there()

    # Memory

    def _give_back(self, dropped: list[int]) -> bool:
        self._lent.forget(dropped)
        self._send_forgotten()
        for worker, results in self._results.items():
            tokens = results.window.drain_released()
            if tokens:
                self._uplink.send((messages.USED, worker, tokens))
        return bool(self._results)

    def _forget_workers(self, workers: list[int]) -> None:
        for worker in workers:
            results = self._results.pop(worker, None)
            if results is not None:
                results.close()

    def _drop_results(self) -> None:
        self._forget_workers(list(self._results))

    # Waiting

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while self._failure is None and not condition():
            waiter = self.loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self._failure is not None:
            raise self._failure

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _stop_waiting(self, error: Exception) -> None:
        super()._stop_waiting(error)
        self._tell_waiters()


def _is_simple(call: Call) -> bool:
    """Tell whether number, function and arguments say all of a call."""
    its = call.terms
    return call.plain and not (
        call.attempts
        or its.odd
        or its.priority
        or its.retries
        or its.run_timeout != inf
        or its.on_cancel != "stop"
    )


def _read_loss(
    worker: int, exit: tuple[Any, ...], ending: str, reason: str, kills: int
) -> tuple[Any, int]:
    """Return how a worker was lost, and how many of them the job has killed."""
    return endings.Loss(worker, WorkerExit(*exit), ending, ExitReason(reason)), kills
