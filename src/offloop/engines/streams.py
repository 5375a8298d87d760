"""Streams at the end of their consumer: parts come in, word of what was taken goes out.

    PARTS ──▶ feed ──▶ arrived ──▶ next_batch ──▶ decode ──▶ the consumer
                                        │
    MORE  ◀── when half the allowance has been taken

A message is a batch: it is decoded when the consumer asks for it, and counts as taken
when the consumer asks for the next one. So a generator is never further ahead than its
allowance, and the event loop gets its turn between two batches.

The end of a stream is that of its job, after all parts that have arrived before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from offloop.engines import endings
from offloop.engines.base import Inflow, Job
from offloop.errors import NotOffloadable, PoolFull
from offloop.wire import codec, flow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from offloop.engines.call import Call
    from offloop.errors import PoolClosed
    from offloop.options import JobOptions
    from offloop.wire.carried import Carried
    from offloop.wire.codec import Buffer, Payload
    from offloop.wire.functions import Function

# A consumer that waits this many seconds has sent what a worker holds back for company.
_PATIENCE = 0.001


class Host(Protocol):
    """What a stream needs of its engine, beside what every engine does."""

    def let_on(self, call: Call, parts: int, size: int) -> None:
        """Let the generator run on: so much was taken."""

    def ask_for_parts(self, call: Call) -> None:
        """Have it sent what the worker holds back, if it does."""

    async def read_part(self, payload: Any, buffers: Sequence[Buffer]) -> Any:
        """Decode a large part."""

    def closed_by(self) -> PoolClosed | None:
        """Return the error of those who use the engine after its end."""

    def capture(self) -> Carried | None:
        """Return what a job sees of the current context; None if it is nothing."""


class Parts(Inflow):
    """The parts of one stream.

    Args:
        engine: where the generator runs.
        open_streams: those of the engine; this one is among them while its job is.
        call: function, positional and keyword arguments, and options.
    """

    def __init__(
        self,
        engine: Host,
        open_streams: Streams,
        call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], JobOptions],
    ) -> None:
        self._engine = engine
        self._open_streams = open_streams
        self._called = call
        #: what the generator sees of the context of the caller
        self._carried = engine.capture() or ()
        #: parts that the generator may be ahead
        self._ahead = call[3].buffersize or flow.PARTS_AHEAD
        self.job = None
        self._takings = flow.Takings(self._ahead)
        #: batches that were not asked for: payloads, bytes, and the buffers of a large
        #: part, which comes alone
        self._arrived: deque[tuple[list[Payload | None], int, Any]] = deque()
        #: parts and bytes of the batch that the consumer is at
        self._given = 0, 0
        #: why the rest of a batch could not be read
        self._trouble: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        #: the consumer wants no more, or has had the end
        self._closed = False
        #: what iterates, as far as anybody can know
        self.consumer: asyncio.Task[Any] | None = None

    async def next_batch(self) -> list[Any]:
        self.consumer = asyncio.current_task()
        if self._trouble is not None:
            raise self._trouble
        if self.job is None:
            await self._begin()
        else:
            self._tell_taken()
            if self._arrived:  # else it waits anyway: the loop gets its turn
                await asyncio.sleep(0)
        while not self._arrived:
            if self._closed:
                return []
            if self.job is not None and self.job.done():
                return self._end(self.job)
            await self._wait()
        payloads, size, buffers = self._arrived.popleft()
        self._given = len(payloads), size
        return await self._decode(payloads, buffers)

    def close(self) -> None:
        self._closed = True
        self._arrived.clear()
        self._wake()
        job = self.job
        if job is not None and not job.done():
            call = job._call
            if call.terms.on_cancel == "finish":  # it must not wait for anybody
                self._engine.let_on(call, *flow.endless())
            job.cancel()

    def feed(self, payloads: list[Payload | None], size: int, buffers: Any) -> None:
        """Take the parts of a message."""
        self._arrived.append((payloads, size, buffers))
        self._wake()

    def abandon(self) -> None:
        """Close the stream if nobody is left to ask for its parts: its pool drains."""
        task = self.consumer
        if task is None or task is asyncio.current_task() or task.done():
            self.close()
        else:
            task.add_done_callback(self._consumer_ended)

    def _consumer_ended(self, task: asyncio.Task[Any]) -> None:
        if task is self.consumer:  # else it was handed to another one
            self.close()

    async def _begin(self) -> None:
        if self._closed:
            return
        engine: Any = self._engine
        job: Job[Any] = Job(engine)
        how = {"many": self._ahead, "carried": self._carried}
        start = partial(engine.start, *self._called, job, **how)
        if self._called[3].on_full == "wait":
            await engine.in_turn(start)
        else:
            try:
                start()
            except PoolFull as full:
                engine.tell_refused(self._called[0], full)
                raise
        self.job = job
        self._open_streams.add(self, job)
        job.add_done_callback(self._job_ended)
        if self._closed:  # by another task, while this one waited for room
            self.close()

    def _job_ended(self, job: asyncio.Future[Any]) -> None:
        if not job.cancelled():
            job.exception()  # it is raised here: nobody need await the job as well
        self._wake()

    def _end(self, job: Job[Any]) -> list[Any]:
        """Return nothing, or raise why the stream ended."""
        self._closed = True
        if job.cancelled():
            closed = self._engine.closed_by()
            if closed is not None:
                raise closed
        job.result()
        return []

    def _tell_taken(self) -> None:
        taken = self._takings.take(*self._given)
        self._given = 0, 0
        if taken is not None and self.job is not None and not self.job.done():
            self._engine.let_on(self.job._call, *taken)

    async def _wait(self) -> None:
        """Wait for parts, or for the end."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        assert self.job is not None  # it waits for nothing else
        asking = loop.call_later(_PATIENCE, self._engine.ask_for_parts, self.job._call)
        try:
            await self._waiter
        finally:
            asking.cancel()
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _decode(self, payloads: list[Any], buffers: Any) -> list[Any]:
        """Decode a batch; what cannot be read ends the stream, after what can."""
        parts: list[Any] = []
        try:
            if buffers is not None:
                parts.append(await self._engine.read_part(payloads[0], buffers))
                return parts
            parts.extend(map(codec.decode, payloads))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # it may run code that exits
            assert self.job is not None  # its parts have come
            trouble = endings.undecodable(self.job._call, error)
            self.close()
            if not parts:
                raise trouble from error
            self._trouble = trouble
        return parts


class Streams:
    """The streams of one engine that are open."""

    def __init__(self) -> None:
        #: by the number of their job
        self._open: dict[int, Parts] = {}

    def add(self, stream: Parts, job: Job[Any]) -> None:
        """Take a stream whose job has been submitted."""
        number = job.id
        self._open[number] = stream
        job.add_done_callback(lambda _: self._open.pop(number))

    def get(self, job: int) -> Parts | None:
        """Return the stream of a job, if it is open."""
        return self._open.get(job)

    def abandon(self) -> None:
        """Close those that nobody iterates any more, now or when that is so."""
        for stream in list(self._open.values()):
            stream.abandon()


def check_streams(function: Function) -> None:
    """Refuse a function that gives one result, before anything is sent.

    Raises:
        NotOffloadable: it is a coroutine function.
    """
    if function.kind == "async":
        raise NotOffloadable(
            f"{function.name} is a coroutine function, which gives one result: use run "
            "or submit; stream takes generator functions, `async def` with yield too"
        )
