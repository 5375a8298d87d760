"""What engines with a scheduler of their own have in common.

    submit ─▶ encode ─▶ hold ─▶ decide ─▶ perform       perform ─▶ settle ─▶ the future
              codec             scheduler               ▲
                                         a subclass: an answer, a death, a moment

Everything that happens becomes one fact for the scheduler, and its commands are
performed at once, in order. A call is encoded *before* anything is decided, so what
cannot travel is an error at the caller's own line and costs no worker. Calls that are
made in one turn of the loop are decided about together, at its end. `_settle` and
`_settle_results` are the only places where a job's future ends.
"""

from __future__ import annotations

import abc
import asyncio
import time
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from offloop.core.commands import SendJobs, Settle, SettleResults
from offloop.core.job import Ending, JobState
from offloop.core.limits import ConcurrencyLimit
from offloop.core.policies import OwnRun, RunTime
from offloop.core.scheduler import Scheduler
from offloop.engines import endings
from offloop.engines.accounts import Accounts
from offloop.engines.base import Engine, Job, Progress
from offloop.engines.call import ENDED, Call, CallTerms
from offloop.engines.figures import PoolStats
from offloop.engines.streams import Parts, Streams, check_streams
from offloop.engines.turns import Turns
from offloop.errors import NotOffloadable, PoolClosed, PoolFull
from offloop.wire import codec, failures
from offloop.wire.functions import FunctionTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from offloop.core.commands import Command
    from offloop.options import JobOptions, PoolOptions
    from offloop.telemetry.events import Listeners
    from offloop.wire.carried import Carried
    from offloop.wire.functions import Function

T = TypeVar("T")

# New jobs that make a message full: they leave at once. Otherwise a burst would leave
# as a whole at the end of the turn, its answers come back as a whole, and worker and
# loop would take turns instead of working at the same time.
_FULL = 32


class ScheduledEngine(Engine):
    """Drives a scheduler; a subclass carries jobs to where they run.

    Args:
        options: of the pool.
        listeners: are told what happens.
        max_credit: jobs that one worker may hold.
        scheduler: decides about the jobs; None: one for workers of this engine.
    """

    def __init__(
        self,
        options: PoolOptions,
        listeners: Listeners,
        *,
        max_credit: int,
        scheduler: Scheduler | None = None,
    ) -> None:
        super().__init__()
        self._options = options
        self._listeners = listeners
        self._accounts = Accounts(options.name, listeners, options.slow_job)
        self._scheduler = scheduler or Scheduler(
            max_pending=options.max_pending,
            max_pending_bytes=options.max_pending_bytes,
            grace=options.grace,
            max_credit=max_credit,
        )
        self._counts_bytes = options.max_pending_bytes is not None
        self._next_id = self._scheduler.next_id
        self._functions = FunctionTable()
        #: calls that are accepted before the next look at how much room there is
        self._unasked = 0
        #: jobs come one at a time: the next one is sent at once, without company
        self._alone = True
        #: new jobs that are held back until the end of this turn of the loop
        self._held = 0
        #: why jobs cannot run now; None while they can
        self._failure: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: when `_timer` fires; inf while there is none
        self._timer_at = inf
        #: those who wait for room
        self._turns = Turns(self._has_room)
        #: limits by function's name and number; each lives as long as its jobs
        self._limits: WeakValueDictionary[tuple[str, int], ConcurrencyLimit] = (
            WeakValueDictionary()
        )
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._streams = Streams()

    # What a subclass does

    @abc.abstractmethod
    def _send(self, number: int, calls: list[Call]) -> None:
        """Put jobs into a worker's inbox."""

    @abc.abstractmethod
    def _perform_rare(self, command: Command) -> None:
        """Perform a command that neither sends jobs nor settles them."""

    # The engine's face

    def start_at_once(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
        future: asyncio.Future[Any],
    ) -> int | None:
        waits = options.on_full == "wait"
        if waits and self._turns.waiting and self._turns.closed:
            return None
        try:
            return self.start(function, args, kwargs, options, future)
        except PoolFull as full:
            if not waits or full.never:
                self.tell_refused(function, full)
                raise
            return None

    async def in_turn(self, start: Callable[[], T]) -> T:
        turns = self._turns
        async with turns:
            while True:
                await turns.room()
                turns.wants_memory = False
                try:
                    return start()
                except PoolFull as full:
                    if full.never:
                        raise
                turns.wants_memory = True
                await self._wait_memory()

    def cancel(self, job: int) -> None:
        self._perform(self._scheduler.job_cancelled(job, time.monotonic()))
        self._arm()

    def start(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
        future: asyncio.Future[Any],
        *,
        many: bool | int = False,
        carried: Carried | None = None,
    ) -> int:
        if self._failure is not None:
            raise self._failure
        now = time.monotonic()
        self._unasked -= 1
        if self._unasked < 0:
            self._ask_room(now)
        named, args = self._functions.prepare(function, args)
        terms = named.terms
        if terms is None or terms.options is not options or terms.many is not many:
            terms = self._terms(named, options, many)
        deadline = now + terms.timeout
        call = Call(self._next_id(), terms, future, deadline)
        call.carried = carried = self.capture() if carried is None else carried
        call.buffers = call.stored = ()
        call.started_at = 0.0
        if type(future) is Job:
            future._call = call
        if kwargs or many or not named.id or not codec.are_plain(args):
            call.plain = False
            if self._encode(call, args, kwargs):
                return call.id
        else:
            call.arguments = args
            call.plain = not carried and deadline == inf
        self._enter(call, now)
        return call.id

    def _terms(
        self, named: Function, options: JobOptions, many: bool | int
    ) -> CallTerms:
        """Return what calls of a function with these options have in common.

        Those of its latest call are kept, as the next one is likely to have the same;
        a key or a limit lives only as long as its jobs.

        Raises:
            NotOffloadable: the function cannot be called so.
        """
        if named.kind == "generator" and type(many) is bool:
            raise NotOffloadable(
                f"{named.name} is a generator function: its results come one by one, "
                "which submit, run and map cannot deliver; use stream, or return a list"
            )
        if named.extra is None:
            named.extra = RunTime()
        cost: RunTime = named.extra
        if many is True:
            cost = cost.chunks = cost.chunks or RunTime(cost)
        elif many:
            check_streams(named)
            cost = cost.streams = cost.streams or OwnRun(cost)
        most = options.max_concurrency
        terms = CallTerms(
            cost,
            priority=options.priority,
            run_timeout=inf if options.run_timeout is None else options.run_timeout,
            retries=options.retries,
            on_cancel=options.on_cancel,
            key=options.key,
            limit=None if most is None else self._limit(named.name, most),
        )
        terms.function = named
        terms.tally = self._accounts.of(named.name)
        terms.many = many
        terms.options = options
        terms.timeout = inf if options.timeout is None else options.timeout
        named.terms = None if terms.odd else terms
        return terms

    def _ask_room(self, now: float) -> None:
        """Find out how many calls there is room for: so many need not ask again.

        Raises:
            PoolFull: for none.
        """
        self._scheduler.check_room(now, self._elsewhere())
        self._unasked = self._count_room() - 1

    def _encode(
        self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Encode a call; True if it enters later, because that takes a while.

        Raises:
            NotOffloadable: the arguments cannot travel.
            PoolFull: there is no room for them.
        """
        named = call.function
        call.arguments, views = codec.encode_call(
            args,
            kwargs,
            named.name,
            applied=not named.id,
            many=call.many is True,
            slowly=True,
        )
        # Views on the caller's objects, which may change from now on.
        call.buffers = [snapshot(view) for view in views] if views else ()
        return False

    def _enter(self, call: Call, now: float) -> None:
        """Let the scheduler have an encoded call."""
        if self._counts_bytes:
            call.size = self._size_of(call)
        self._scheduler.job_held(call, now)
        if self._alone:
            self._alone = False
            self._release(now)
        else:
            self._held += 1
            if self._held == 1:
                self.loop.call_soon(self._turn_ended)
            elif self._held == _FULL:
                self._release(now)

    def _size_of(self, call: Call) -> int:
        """Return the bytes that the arguments of a call take, wherever they are."""
        arguments: Any = call.arguments
        size = 0
        if type(arguments) is tuple:  # plain values, which travel without a pickle
            for value in arguments:
                size += len(value) if isinstance(value, str | bytes) else 8
        elif arguments is not None:
            size = len(arguments)
        buffers: Any = call.buffers  # bytes, or places in shared memory
        return size + sum(getattr(one, "size", None) or len(one) for one in buffers)

    @abc.abstractmethod
    async def _wait_memory(self) -> None:
        """Wait until there may be room for what did not fit."""

    def _turn_ended(self) -> None:
        if self._held:
            self._release(time.monotonic())

    def _release(self, now: float) -> None:
        """Let the scheduler send the new jobs that were held back."""
        self._held = 0
        self._perform(self._scheduler.held_released(now))
        self._arm()

    def _limit(self, name: str, most: int) -> ConcurrencyLimit:
        """Return the limit that the jobs of a function share."""
        limit = self._limits.get((name, most))
        if limit is None:
            limit = self._limits[name, most] = ConcurrencyLimit(most)
        return limit

    async def drain(self) -> None:
        self._streams.abandon()
        if not self._idle():
            waiter = self.loop.create_future()
            self._drain_waiters.append(waiter)
            await waiter

    def _has_room(self) -> bool:
        """Tell whether one more job would be accepted."""
        return self._count_room() > 0

    def _count_room(self) -> int:
        """Return how many more jobs would be accepted."""
        return self._scheduler.room - self._elsewhere()

    def _elsewhere(self) -> int:
        """Return how many pending jobs the scheduler does not know yet."""
        return 0

    def _idle(self) -> bool:
        """Tell whether no job is pending, wherever it is."""
        return self._scheduler.idle

    # Streams

    def stream(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
    ) -> Parts:
        return Parts(self, self._streams, (function, args, kwargs, options))

    @abc.abstractmethod
    def let_on(self, call: Call, parts: int, size: int) -> None:
        """Let the generator of a stream run on: so much was taken."""

    def ask_for_parts(self, call: Call) -> None:
        """Have it sent what a worker holds back of a stream; here nothing is."""

    async def read_part(self, payload: Any, buffers: Sequence[Any]) -> Any:
        return codec.decode(payload, buffers)

    def closed_by(self) -> PoolClosed | None:
        failure = self._failure
        return failure if isinstance(failure, PoolClosed) else None

    def cancel_all(self) -> None:
        self._perform(self._scheduler.cancel_all(time.monotonic()))
        self._arm()

    def stats(self) -> PoolStats:
        seen = self._scheduler.stats()
        return PoolStats(
            workers=seen.workers,
            busy=seen.workers - seen.idle_workers,
            idle=seen.idle_workers,
            queued=seen.queued + seen.delayed,
            pending_bytes=seen.size,
            in_flight=seen.sent,
            pending=self._scheduler.pending,
            submitted=seen.submitted,
            completed=seen.completed,
            failed=seen.failed,
            cancelled=seen.cancelled,
            timed_out=seen.timed_out,
            lost=seen.lost + seen.poisoned,
            retried=seen.retried,
            refused=self._accounts.refused,
            functions=self._accounts.stats(),
        )

    def story(self, job: Job[Any]) -> str:
        return self._scheduler.story(job.id)

    # Facts and commands

    def _heard_error(
        self,
        number: int,
        job: int,
        payload: bytes,
        started: float,
        run_time: float,
        now: float,
    ) -> None:
        """Tell the scheduler that a job's function raised, elsewhere."""
        error = failures.decode_error(payload)
        self._note_error(number, job, error, started, run_time, now)

    def _note_error(
        self,
        number: int,
        job: int,
        error: BaseException,
        started: float,
        run_time: float,
        now: float,
    ) -> None:
        """Tell the scheduler that a job's function raised this."""
        call: Any = self._scheduler.held(number, job)
        retryable = False
        if call is not None:
            call.started_at = started
            retryable = isinstance(error, call.options.retry_on)
        self._perform(
            self._scheduler.job_failed(number, job, error, run_time, retryable, now)
        )
        if retryable:
            self._tell_retried(call, f"{type(error).__name__}: {error}")

    def _heard_parts(
        self, number: int, job: int, payloads: list[Any], size: int, buffers: Any
    ) -> None:
        """Pass on parts of a stream, if it is still wanted."""
        call = self._scheduler.held(number, job)
        stream = self._streams.get(job)
        if stream is None or call is None or call.state is not JobState.SENT:
            return
        if call.retries:
            now = time.monotonic()
            self._perform(self._scheduler.job_yielded(number, job, now))
        stream.feed(payloads, size, buffers)

    def _heard_progress(self, number: int, job: int, report: Any) -> None:
        """Pass on what a job says of its progress, if somebody can ask for it."""
        call: Any = self._scheduler.held(number, job)
        if call is not None and isinstance(call.handle, Job):
            call.handle._note_progress(Progress(*report))

    def _perform(self, commands: Iterable[Command]) -> None:
        calls: Any  # every record that the scheduler has is a Call
        for command in commands:
            if isinstance(command, SettleResults):
                self._settle_results(command.results)
            elif isinstance(command, SendJobs):
                calls = command.jobs
                self._send(command.worker, calls)
            elif isinstance(command, Settle):
                calls = command.job
                self._settle(calls, command.ending, command.detail)
            else:
                self._perform_rare(command)

    def _settle_results(self, results: list[tuple[Any, Any]]) -> None:
        """Give each future its result."""
        for call, detail in results:
            payload = detail[0]
            call.started_at = detail[1]
            if not call.plain:
                call.buffers = call.stored = ()
            future = call.handle
            if future.done():
                continue
            if type(payload) is tuple:  # as `codec.decode` does
                future.set_result(payload[0])
            else:
                self._deliver(call, payload, detail[2] if len(detail) > 2 else ())
        self._accounts.finished(results)
        self._jobs_ended(len(results))

    def _deliver(self, call: Call, payload: Any, buffers: Sequence[Any]) -> None:
        """Decode a result for its future."""
        try:
            value = codec.decode(payload, buffers)
        except BaseException as error:  # it may run code that exits
            call.handle.set_exception(endings.undecodable(call, error))
        else:
            call.handle.set_result(value)
        call.handle = ENDED

    def _settle(self, call: Call, ending: Ending, detail: Any) -> None:
        """Give the future of a job without a result its one ending."""
        call.buffers = call.stored = ()
        future = call.handle
        error = None
        if ending is Ending.CANCELLED:
            asyncio.Future.cancel(future)
        elif not future.done() or self._accounts.wants_error(ending):
            error = endings.error_of(call, ending, detail)
            if not future.done():
                future.set_exception(error)
        self._accounts.ended(call, ending, error)
        call.handle = ENDED
        self._jobs_ended(1)

    def _jobs_ended(self, count: int) -> None:
        """Wake those who wait for room, or for the last job to end."""
        if self._turns.waiting:
            self._turns.jobs_ended()
        if self._drain_waiters and self._idle():
            for waiter in self._drain_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._drain_waiters.clear()

    def _tell_retried(self, call: Call, reason: str) -> None:
        """Tell that a job whose run has failed goes on, unless it has ended."""
        if call.id in self._scheduler:
            self._accounts.retried(call, reason)

    def tell_refused(self, function: Callable[..., Any], full: PoolFull) -> None:
        self._accounts.refused_call(function, full)

    def _stop_waiting(self, error: Exception) -> None:
        """Let everything that waits for room fail with `error`."""
        self._failure = error  # for those whose turn comes later
        self._turns.fail(error)

    # Time

    def _arm(self) -> None:
        """See to it that the scheduler is woken when something falls due."""
        due = self._scheduler.next_due()
        if due is None or due >= self._timer_at:
            return
        self._disarm()
        self._timer_at = due
        delay = max(due - time.monotonic(), 0.0)
        self._timer = self.loop.call_later(delay, self._time_passed)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_at = inf

    def _time_passed(self) -> None:
        self._disarm()
        self._perform(self._scheduler.time_passed(time.monotonic()))
        self._arm()


def snapshot(buffer: bytes | bytearray | memoryview) -> bytes | bytearray:
    """Return a copy of a buffer that nobody else can change."""
    view = memoryview(buffer)
    return bytes(view) if view.readonly else bytearray(view)
