"""Owns one pool and runs the jobs of all clients on it.

    client ═ CALLS ═▶ ┐                             ┌ ═▶ worker
    client ═ CALLS ═▶ ┤ one queue, fair shares      ├ ═▶ worker
    client ═ CALLS ═▶ ┘ (scheduler)                 └ ═▶ worker
          ◀═ RESULTS, ENDINGS ═══════════════════════════╛

It is the local engine with clients in the place of futures. Arguments, functions,
results and exceptions pass through as the bytes that they are: it never unpickles
anything that a client or a worker has written. Large ones do not even pass: workers
read them in the client's memory, and clients in the worker's.

A job without a key has its client's, so that clients get equal shares of the workers'
time; a job with a key shares by that, whichever client it came from.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import astuple
from math import inf
from typing import TYPE_CHECKING, Any

from offloop import messages
from offloop.cluster.clients import Registry, Ticket
from offloop.cluster.transit import Passing, Transit
from offloop.core.job import Ending, JobState
from offloop.core.policies import OwnRun, RunTime
from offloop.core.quarantine import Refusal
from offloop.engines import endings
from offloop.engines.call import Call, CallTerms
from offloop.engines.local import LocalEngine
from offloop.options import JobOptions
from offloop.telemetry.events import Listeners
from offloop.wire import failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from offloop.cluster.clients import Client
    from offloop.core.exits import ExitReason
    from offloop.engines.memory import Exchange
    from offloop.handles import WorkerExit, WorkerHandle
    from offloop.options import PoolOptions
    from offloop.wire.functions import Function

_log = logging.getLogger("offloop")

_PLAIN = JobOptions()

# What a short call leaves unsaid.
_DEFAULTS = (None, None, 0, 0, "stop", None, None, False, 0, None, (), ())


class _Raised:
    """What a function raised, as its worker has encoded it."""

    __slots__ = ("payload", "started")

    def __init__(self, payload: bytes, started: float) -> None:
        self.payload = payload
        self.started = started


class Coordinator(LocalEngine):
    """Runs the jobs of clients.

    Args:
        options: of the pool.
    """

    def __init__(self, options: PoolOptions) -> None:
        self.listeners = Listeners(options.name)
        super().__init__(options, self.listeners)
        self._registry = Registry()
        self._functions: Any = self._registry
        #: clients that are connected, by number
        self.clients: dict[int, Client] = {}
        #: clients that have more jobs than there was room for, in order
        self._wanting: deque[Client] = deque()
        #: clients to be told of memory at the end of this turn
        self._to_tell: list[Client] = []
        self._dumps: set[asyncio.Task[None]] = set()
        #: sends a client away; set by the door that it came through
        self.dismiss: Callable[[Client], object] = self.client_went

    async def close(self) -> None:
        for task in self._dumps:
            task.cancel()
        await super().close()

    def about(self) -> dict[str, Any]:
        """Tell operators what only a shared pool has: its name, and its clients."""
        clients = [
            {"pid": one.pid, "name": one.name, "pending": len(one.pending)}
            for one in self.clients.values()
        ]
        return {"clients": clients}

    # Clients

    def client_came(self, client: Client) -> None:
        """Listen to a client."""
        self.clients[client.number] = client
        self.loop.add_reader(client.line.fileno(), self._read_client, client)
        client.send((messages.SIZE, self._sizing.ready))

    def client_went(self, client: Client) -> None:
        """Cancel the jobs of a client that has gone, and let go of its memory."""
        if self.clients.pop(client.number, None) is None:
            return
        self._cancel(client, list(client.pending))
        self._registry.forget(client, list(client.functions))
        for line in self._lines.values():
            line.exchange.forget(client.puts)
            line.exchange.clients_gone.append(client.number)
        if client in self._wanting:
            self._wanting.remove(client)
        client.close()
        self._mind_memory()  # tells the workers
        self._give_room()

    def wake(self, client: Client) -> None:
        """See to it that a client is told of memory that it has again."""
        if not self._to_tell:
            self.loop.call_soon(self._tell_freed)
        self._to_tell.append(client)

    def _tell_freed(self) -> None:
        clients, self._to_tell = self._to_tell, []
        for client in clients:
            client.tell_freed()

    def _tell_size(self) -> None:
        for client in self.clients.values():
            client.send((messages.SIZE, self._sizing.ready))

    # What clients say

    def _read_client(self, client: Client) -> None:
        """Take what a client sent, some at a time: others are to have their turn."""
        try:
            for message in client.line.receive():
                self._hear_client(client, message)
        except Exception:
            _log.exception("%r is sent away: what it says cannot be understood", client)
            self.dismiss(client)
        else:
            if client.line.ended:
                self.dismiss(client)
        self._arm()

    def _hear_client(self, client: Client, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == messages.CALLS:
            self._registry.learn(client, message[2])
            client.learn_puts(message[3])
            self._heard_calls(client, message[1])
        elif kind == messages.CANCEL:
            self._cancel(client, message[1])
        elif kind == messages.USED:
            client.used(message[1], message[2])
            self._mind_memory()
        elif kind == messages.FORGET:
            self._heard_forget(client, message[1], message[2])
        elif kind == messages.WANT:
            self._want(client)
        elif kind == messages.MORE:
            call = self._call_of(client, message[1])
            if call is not None:
                self.let_on(call, message[2], message[3])
        elif kind == messages.HURRY:
            call = self._call_of(client, message[1])
            if call is not None:
                self.ask_for_parts(call)
        elif kind == messages.ASK:
            task = asyncio.ensure_future(self._answer_dump(client, message[1]))
            self._dumps.add(task)
            task.add_done_callback(self._dumps.discard)

    def _heard_calls(self, client: Client, rows: list[tuple[Any, ...]]) -> None:
        now = time.monotonic()
        if self._failure is not None:
            self._refuse(client, rows, self._failure)
            return
        room = max(self._count_room(), 0)
        for row in rows[:room]:
            call = self._make_call(client, *row)
            client.pending[row[0]] = call.id
            self._scheduler.job_held(call, now)
        if room:
            self._release(now)
        if room < len(rows):
            client.send((messages.RETURNED, [row[0] for row in rows[room:]]))
            self._want(client)
            self._give_room()

    def _make_call(
        self, client: Client, job: int, function: int, payload: Any, *more: Any
    ) -> Call:
        (
            deadline,
            run_timeout,
            priority,
            retries,
            on_cancel,
            key,
            most,
            many,
            attempts,
            carried,
            places,
            puts,
        ) = more or _DEFAULTS
        # Alone, a client need not be told apart.
        if key is None and len(self.clients) > 1:
            key = client
        terms = client.terms.get(function)
        if more or terms is None or terms.key is not key:
            named = client.functions[function]
            terms = CallTerms(
                _cost_of(named, many),
                priority=priority,
                run_timeout=inf if run_timeout is None else run_timeout,
                retries=retries,
                on_cancel=on_cancel,
                key=key,
                limit=None if most is None else self._limit(named.name, most),
            )
            terms.function = named
            terms.tally = self._accounts.of(named.name)
            terms.many = many
            terms.options = _PLAIN
            terms.timeout = inf
            if not more:
                client.terms[function] = terms
        ticket = Ticket(client, job)
        until = inf if deadline is None else deadline
        call = Call(self._scheduler.next_id(), terms, ticket, until)
        call.arguments = payload
        call.plain = not more
        call.buffers = [client.large(place) for place in places]
        call.stored = [client.puts[number] for number in puts]
        call.carried = carried
        call.attempts = attempts
        call.started_at = 0.0
        if self._counts_bytes:
            call.size = sum(place[2] for place in places)
        return call

    def _call_of(self, client: Client, job: int) -> Call | None:
        """Return a call of a client's that a worker has."""
        number = client.pending.get(job)
        call: Any = None if number is None else self._scheduler._jobs[number]
        return call if call is not None and call.worker is not None else None

    def _cancel(self, client: Client, jobs: Iterable[int]) -> None:
        now = time.monotonic()
        for job in jobs:
            number = client.pending.get(job)
            if number is not None:
                self._perform(self._scheduler.job_cancelled(number, now))
        self._arm()

    def _heard_forget(
        self, client: Client, functions: list[int], puts: list[int]
    ) -> None:
        self._registry.forget(client, functions)
        for number in puts:
            client.puts.pop(number, None)
        for line in self._lines.values():
            line.exchange.forget(puts)
        self._mind_memory()

    def _refuse(
        self, client: Client, rows: list[tuple[Any, ...]], error: Exception
    ) -> None:
        """End jobs that nobody can run."""
        payload = failures.encode_error(error, job_id=None, function="")
        detail = (payload, 0.0)
        ends = [(row[0], "error", detail, None, 0.0, 0.0, 0) for row in rows]
        client.send((messages.ENDINGS, ends))

    # Room

    def _want(self, client: Client) -> None:
        if client not in self._wanting:
            self._wanting.append(client)

    def _give_room(self) -> None:
        """Let clients send jobs that they had to take back, each an equal share."""
        while self._wanting and (room := self._count_room()) > 0:
            share = max(room // len(self._wanting), 1)
            for _ in range(min(len(self._wanting), room)):
                self._wanting.popleft().send((messages.ROOM, share))
            return  # what comes of it is seen first

    def _jobs_ended(self, count: int) -> None:
        super()._jobs_ended(count)
        if self._wanting:
            self._give_room()

    async def _answer_dump(self, client: Client, number: int) -> None:
        rows = [astuple(dump) for dump in await self.dump()]
        client.send((messages.DUMPED, number, rows))

    # Endings

    def _heard_error(
        self,
        number: int,
        job: int,
        payload: bytes,
        started: float,
        run_time: float,
        now: float,
    ) -> None:
        # Whether it is tried again is the client's to decide: it can read the error.
        raised = _Raised(payload, started)
        self._perform(
            self._scheduler.job_failed(number, job, raised, run_time, False, now)
        )

    def _heard_progress(self, number: int, job: int, report: Any) -> None:
        call: Any = self._scheduler.held(number, job)
        if call is not None:
            client, job = call.handle
            client.send((messages.PROGRESS, job, report))

    def _heard_parts(
        self, number: int, job: int, payloads: list[Any], size: int, buffers: Any
    ) -> None:
        """Pass on parts of a stream."""
        call: Any = self._scheduler.held(number, job)
        if call is None or call.state is not JobState.SENT:
            return
        self._perform(self._scheduler.job_yielded(number, job, time.monotonic()))
        client, job = call.handle
        frames: list[Any] = []
        places: Any = ()
        if buffers is not None:
            if isinstance(payloads[0], Passing | memoryview):
                buffers.append(payloads[0])
                payloads[0] = None
            places = [self._forward(client, part, frames) for part in buffers]
        parts = (messages.PARTS, job, payloads, size, places, number, frames)
        client.send(parts)

    def _settle_results(self, results: list[tuple[Any, Any]]) -> None:
        """Send results to those whose jobs they are, together if they came together."""
        outgoing: dict[Client, tuple[list[tuple[Any, ...]], list[Any]]] = {}
        for call, (payload, started, *buffers) in results:
            client, job = call.handle
            call.buffers = call.stored = ()
            del client.pending[job]
            if client not in outgoing:
                outgoing[client] = [], []
            rows, frames = outgoing[client]
            places = None
            if buffers:
                parts = buffers[0]
                if isinstance(payload, Passing | memoryview):
                    parts.append(payload)
                    payload = None
                places = [self._forward(client, part, frames) for part in parts]
            rows.append(
                (
                    job,
                    (payload, started),
                    call.run_time,
                    call.worker,
                    call.sent_at,
                    places,
                )
            )
        for client, (rows, frames) in outgoing.items():
            client.tell_freed()
            client.send((messages.RESULTS, rows, frames))
        self._accounts.finished(results)
        self._jobs_ended(len(results))

    def _forward(self, client: Client, part: Any, frames: list[Any]) -> Any:
        """Let a client have a part of a result; returns its place."""
        if not isinstance(part, Passing):
            frames.append(part)
            return None
        transit: Any = self._lines[part.worker].exchange
        return client.look(part, transit)

    def _settle_now(self, call: Call, ending: Ending, detail: Any) -> None:
        client, job = call.handle
        call.buffers = call.stored = ()
        del client.pending[job]
        if isinstance(detail, _Raised):
            told: Any = (detail.payload, detail.started)
        elif isinstance(detail, endings.Loss):
            told = _told_loss(detail, call.kills)
        elif isinstance(detail, Refusal):
            loss = _told_loss(detail.loss, call.kills)
            told = (*loss, detail.deaths, detail.retry_after)
        elif isinstance(detail, endings.Scene):
            told = tuple(detail)
        elif detail is not None:
            told = (failures.encode_error(detail, job_id=None, function=""), 0.0)
            ending = Ending.ERROR
        else:
            told = None
        worker, sent_at, run_time = call.worker, call.sent_at, call.run_time
        row = (job, ending.value, told, worker, sent_at, run_time, call.retries)
        client.tell_freed()
        client.send((messages.ENDINGS, [row]))
        self._accounts.ended(call, ending)
        self._jobs_ended(1)

    def _heard_said(
        self, worker: int, rows: list[tuple[Any, ...]], dropped: int
    ) -> None:
        """Pass on what jobs have logged to those whose jobs they are."""
        theirs: dict[Client, list[tuple[Any, ...]]] = {}
        own = []
        for row in rows:
            call: Any = self._scheduler.held(worker, row[-2])
            if call is None:
                own.append(row)
            else:
                client, job = call.handle
                theirs.setdefault(client, []).append((*row[:-2], job, row[-1]))
        for client, said in theirs.items():
            client.send((messages.SAID, worker, said, dropped))
            dropped = 0  # told once
        if own or dropped:
            super()._heard_said(worker, own, dropped)

    # Workers

    def _log_levels(self) -> dict[str, int]:
        return {"": logging.INFO}  # clients have their own

    def _make_exchange(self, worker: WorkerHandle) -> Exchange:
        size = self._memory.results_size
        return Transit(worker.number, worker.results, size)

    def worker_employ(self, worker: WorkerHandle) -> None:
        super().worker_employ(worker)
        self._tell_size()

    def worker_gone(
        self, worker: WorkerHandle, exit: WorkerExit, reason: ExitReason
    ) -> bool:
        blamed = super().worker_gone(worker, exit, reason)
        for client in self.clients.values():
            if worker.number in client.workers:
                client.workers.discard(worker.number)
                client.send((messages.GONE, [worker.number]))
        self._tell_size()
        return blamed


def _cost_of(function: Function, many: bool | int) -> RunTime:
    """Return what is known of the run time of a function, called so."""
    if function.extra is None:
        function.extra = RunTime()
    cost: RunTime = function.extra
    if many is True:
        cost = cost.chunks = cost.chunks or RunTime(cost)
    elif many:
        cost = cost.streams = cost.streams or OwnRun(cost)
    return cost


def _told_loss(loss: endings.Loss, kills: int) -> tuple[Any, ...]:
    """Return in plain values how a worker was lost."""
    exit, reason = astuple(loss.exit), loss.reason.value
    return (loss.worker, exit, loss.ending, reason, kills)
