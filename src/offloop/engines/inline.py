"""In this process, on the loop's own thread: for debugging and tests.

The same scheduler, options and errors as the local engine, and the same encoding and
decoding of arguments, results and exceptions, so what cannot travel fails here too.
Only the process border is missing: `breakpoint()` works, and the loop stands still
while a job runs. A plain function can therefore not be interrupted: its `run_timeout`
and `timeout` are noticed when it returns. `async def` functions run as tasks of the
loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextvars import Context
from math import inf
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from offloop import arrays, context
from offloop.core.commands import CloseJob, InterruptJob, KillWorker, RecallJobs
from offloop.engines.base import Ref
from offloop.engines.scheduled import ScheduledEngine, snapshot
from offloop.errors import PoolClosed
from offloop.wire import carried, chunks, codec, failures, flow, puts
from offloop.wire.functions import FunctionCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.core.commands import Command
    from offloop.engines.call import Call
    from offloop.engines.figures import WorkerDump
    from offloop.options import PoolOptions
    from offloop.telemetry.events import Listeners
    from offloop.wire.codec import Payload

# The scheduler's only worker: this process.
_HERE = 0


class InlineEngine(ScheduledEngine):
    """Runs jobs here, one after the other.

    Args:
        options: of the pool; those about processes have no effect.
        listeners: are told what happens.
    """

    def __init__(self, options: PoolOptions, listeners: Listeners) -> None:
        super().__init__(options, listeners, max_credit=1)
        self._cache = FunctionCache()
        self._known: set[int] = set()
        #: what jobs see of context variables before their callers': not those of here
        self._base = Context()
        #: objects that were put
        self._puts = 0
        #: the `async def` job that runs now; one that was given up is not it any more
        self._task: asyncio.Task[None] | None = None
        #: of the stream that runs now, and what its generator waits for
        self._allowance = flow.Allowance(0)
        self._let_on: asyncio.Future[None] | None = None

    def begin(self) -> None:
        if self._options.initializer is not None:
            self._base.run(self._options.initializer, *self._options.initargs)
        self._perform(self._scheduler.worker_ready(_HERE, time.monotonic()))

    async def started(self) -> None:
        """Return at once: this process is there."""

    async def ready(self) -> None:
        """Return at once: this process is there."""

    async def close(self) -> None:
        self.cancel_all()
        self._failure = PoolClosed(f"pool {self._options.name!r} was closed")
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._options.grace)
        self._disarm()

    def abandon(self) -> None:
        """Do nothing: there are no processes."""

    async def resize(self, max_workers: int) -> None:
        """Change nothing: there is one process, this one."""

    async def dump(self) -> list[WorkerDump]:
        """Return nothing: there are no workers."""
        return []

    async def reload(self, probe: Callable[[], object] | None) -> None:
        """Change nothing: what this process has imported stays."""

    def empty(self, shape: Any, dtype: Any, *, zero: bool = False) -> Any:
        return arrays.empty(lambda size: None, shape, dtype, zero=zero)

    async def put(self, obj: object) -> Ref:
        kind = type(obj).__qualname__
        payload, views = codec.encode(obj, describe=f"put({kind})", slowly=True)
        buffers = [bytes(view) for view in views]  # nobody can change these
        self._puts += 1
        stored = puts.Stored(self, self._puts, kind, lambda number: None)
        stored.load = _Loaded(payload, buffers)
        return Ref(stored)

    def _encode(
        self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        with puts.collecting(self) as call.stored:
            return super()._encode(call, args, kwargs)

    async def _wait_memory(self) -> None:
        raise AssertionError("unreachable: memory has no limit here")

    def _send(self, number: int, calls: list[Call]) -> None:
        for call in calls:
            self.loop.call_soon(self._run, call)
        self._arm()

    def _perform_rare(self, command: Command) -> None:
        match command:
            case InterruptJob() | CloseJob():
                if self._task is not None:
                    self._task.cancel()
            case KillWorker():
                if self._task is not None:
                    self._task.cancel()
                    self._task = None
                self.loop.call_soon(self._start_over)
            case RecallJobs():
                raise AssertionError("unreachable: with credit 1, nothing waits here")

    def _tell_progress(self, job: int, report: context.Report) -> None:
        if asyncio._get_running_loop() is self.loop:
            self._heard_progress(_HERE, job, report)
            return
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self.loop.call_soon_threadsafe(self._heard_progress, _HERE, job, report)

    def _start_over(self) -> None:
        """Do as if a worker had been killed and replaced: give up what it ran.

        A coroutine that swallows its cancellation goes on, but nobody waits for it.
        """
        now = time.monotonic()
        self._perform(self._scheduler.worker_lost(_HERE, None, None, now))
        self._perform(self._scheduler.worker_ready(_HERE, now))

    def _run(self, call: Call) -> None:
        """Run the job that was sent, unless it was cancelled before it began."""
        now = time.monotonic()
        if call.handle.done():
            self._perform(self._scheduler.jobs_returned(_HERE, [call.id], now))
            return
        deadline = None if call.deadline == inf else call.deadline
        attempt = call.attempts + 1
        told = context.JobContext(
            call.id, attempt, deadline, _HERE, tell=self._tell_progress
        )
        own = self._base.run(carried.restored, call.carried or ())
        own.run(context.enter, told)
        try:
            function = self._resolve(call)
            assert call.arguments is not None  # what is here is never elsewhere
            args, kwargs = codec.decode_call(call.arguments, call.buffers)
            value: Any
            if call.many is not True:
                value = own.run(function, *args, **kwargs)
                if call.closes:
                    value = self._emit_all(call, value)
            elif call.function.kind == "async":
                name = call.function.name
                value = chunks.run_async(function, args, job_id=call.id, name=name)
            else:
                value = own.run(self._run_chunk, call, function, args)
            if type(value) is CoroutineType or call.function.kind == "async":
                finish = self._finish(call, now, value)
                self._task = self.loop.create_task(finish, context=own)
                return
            self._reply(call, now, *_encode(call, value))
        except BaseException as error:  # whatever it is, it is the job's ending
            self._fail(call, now, error)

    async def _finish(self, call: Call, began: float, value: Any) -> None:
        """Await what an `async def` function gave, or a chunk of its calls."""
        failure: BaseException | None = None
        answer: tuple[Payload, list[Any]] = b"", []
        try:
            answer = _encode(call, await value)
        except BaseException as error:
            if asyncio._get_running_loop() is None:
                raise  # GeneratorExit: the loop was closed with this task pending
            failure = error
        if self._task is not asyncio.current_task():
            return  # given up
        self._task = None
        if failure is None or call.handle.done():  # of the latter, nobody hears
            self._reply(call, began, *answer)
        else:
            self._fail(call, began, failure)

    async def _emit_all(self, call: Call, made: Any) -> Any:
        """Run a generator as its parts are taken; returns the value that it returns."""
        self._allowance = flow.Allowance(call.many)
        try:
            if hasattr(made, "__anext__"):
                async for part in made:
                    await self._emit(call, part)
                return None
            flow.check(made, call.function.name)
            while True:
                try:
                    part = next(made)
                except StopIteration as end:
                    return end.value
                await self._emit(call, part)
        finally:
            if hasattr(made, "aclose"):
                await made.aclose()
            elif hasattr(made, "close"):
                made.close()

    async def _emit(self, call: Call, part: Any) -> None:
        payload, views = codec.encode_result(part, call.function.name)
        buffers = [snapshot(view) for view in views]  # the generator may change them
        size = flow.size_of(payload) + sum(map(len, buffers))
        self._allowance.spend(size)
        self._heard_parts(_HERE, call.id, [payload], size, buffers or None)
        await asyncio.sleep(0)
        while self._allowance.spent:
            self._let_on = self.loop.create_future()
            await self._let_on

    def let_on(self, call: Call, parts: int, size: int) -> None:
        self._allowance.refill(parts, size)
        if self._let_on is not None and not self._let_on.done():
            self._let_on.set_result(None)

    def _run_chunk(self, call: Call, function: Any, args: Any) -> Any:
        def refuse(coroutine: Any) -> Any:
            coroutine.close()
            raise TypeError(
                f"{call.function.name} gave a coroutine but is no `async def` function;"
                ' with engine="inline", `map` cannot await it'
            )

        name = call.function.name
        return chunks.run(function, args, finish=refuse, job_id=call.id, name=name)

    def _resolve(self, call: Call) -> Any:
        function = call.function
        if function.id and function.id not in self._known:
            self._known.add(function.id)
            self._cache.learn(function.id, function.definition)
        forgotten = self._functions.drain_forgotten()
        self._known.difference_update(forgotten)
        self._cache.forget(forgotten)
        return self._cache.get(function.id)

    def _reply(
        self, call: Call, began: float, payload: Payload, buffers: list[Any]
    ) -> None:
        now = time.monotonic()
        answer = (call.id, (payload, began, buffers), now - began)
        self._perform(self._scheduler.jobs_finished(_HERE, [answer], now))

    def _fail(self, call: Call, began: float, error: BaseException) -> None:
        name = call.function.name
        payload = failures.encode_error(error, job_id=call.id, function=name)
        now = time.monotonic()
        self._heard_error(_HERE, call.id, payload, began, now - began, now)
        self._arm()  # it may be tried again, in a moment


class _Loaded:
    """Returns what was put, anew at each call; it travels with each of them."""

    def __init__(self, payload: bytes | bytearray, buffers: list[bytes]) -> None:
        self._stored = payload, buffers

    def __call__(self) -> Any:
        return codec.decode(*self._stored)


def _encode(call: Call, value: Any) -> tuple[Payload, list[Any]]:
    encode = chunks.encode if call.many is True else codec.encode_result
    return encode(value, call.function.name)
