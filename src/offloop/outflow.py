"""What a generator yields, on its way out of a worker.

    generator ──▶ encode ──┬─ short parts, gathered for a moment ──▶ PARTS
        ▲                  └─ a large one: shared memory ──────────▶ PARTS
        │                                                             │
        └── runs on, or waits inside of its yield ◀───── MORE ────────┘

The generator runs as far ahead of its consumer as its allowance goes, then waits where
it is: suspended in its `yield`, a place where it can be closed without any harm. While
it waits its worker listens. An asynchronous generator waits in its own event loop,
whose other tasks go on.

Short parts that follow each other quickly share a message. What was gathered when the
generator turns slow would lie here until its next part: the status page says that there
is something, and a consumer that waits has it sent by a signal.

It decides nothing about the job, and never reads a message itself: its worker does.
"""

from __future__ import annotations

import contextlib
import time

from offloop import messages
from offloop.wire import codec
from offloop.wire.flow import Allowance, check, size_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any

    from offloop.wire.channel import Channel
    from offloop.wire.status import StatusPage
    from offloop.workspace import Workspace

# A part may wait this long for others, if the one before it was as quick.
_HOLD_NS = 100_000

# Bytes of short parts that make a message full.
_FULL = 32 * 1024


class Outflow:
    """One stream, at the end of its generator.

    Args:
        job: number of the job.
        name: of the function, for errors.
        ahead: parts that the generator may be ahead of its consumer.
        channel: where the parts go.
        workspace: where large ones go.
        page: where it is noted that some are held back.
        listen: takes the messages that have arrived; it calls `more` and `close_asked`.
        wait: waits for a message, for a while, and takes it.
        heed: does what a signal of the parent asks for; raises JobInterrupted if the
            job must stop.
    """

    def __init__(
        self,
        job: int,
        name: str,
        ahead: int,
        channel: Channel,
        workspace: Workspace,
        page: StatusPage,
        listen: Callable[[], None],
        wait: Callable[[], None],
        heed: Callable[[], None],
    ) -> None:
        self.job = job
        self._name = name
        self._allowance = Allowance(ahead)
        self._channel = channel
        self._workspace = workspace
        self._page = page
        self._listen = listen
        self._wait = wait
        self._heed = heed
        #: code of the user runs: a signal is obeyed at once
        self.inside = True
        #: a signal came while it did not
        self.alarmed = False
        #: nobody wants further parts
        self._closing = False
        #: encoded parts that were not sent, and their bytes
        self._parts: list[Any] = []
        self._size = 0
        #: when the first of them came, and when the last part did, in nanoseconds
        self._since_ns = self._last_ns = 0
        #: of an asynchronous generator: its loop, what runs it, and what it waits for
        self._loop: AbstractEventLoop | None = None
        self._task: Task[None] | None = None
        self._room: Future[None] | None = None

    def run(self, made: Any) -> Any:
        """Send all parts; returns the value that the generator returns.

        Args:
            made: what the function returned.

        Raises:
            TypeError: that is no iterator.
            ResultNotEncodable: a part cannot travel.
            JobInterrupted: the job must stop.
            BaseException: what the generator raises.
        """
        try:
            if hasattr(made, "__anext__"):
                return self._run_async(made)
            check(made, self._name)
            return self._run(made)
        finally:
            self.inside = False
            self.flush()

    # What the worker tells

    def more(self, parts: int, size: int) -> None:
        """Let the generator run on: the consumer has taken so much."""
        self._allowance.refill(parts, size)
        self._notify()

    def close_asked(self) -> None:
        """Let the generator end at its next yield."""
        self._closing = True
        self._notify()

    def nudged(self) -> None:
        """Send what was gathered, between two bytecodes of the generator."""
        self.inside = False  # or the next signal would send the same again
        self.flush()
        self.inside = True

    def flush(self) -> None:
        """Send the parts that were gathered."""
        parts = self._parts
        if parts:
            self._channel.send((messages.PARTS, self.job, parts, self._size))
            self._parts = []
            self._size = 0
            self._page.hold_parts(False)

    # Generators

    def _run(self, parts: Iterator[Any]) -> Any:
        step = parts.__next__
        allowance = self._allowance
        try:
            while not self._closing:
                self.inside = True
                if self.alarmed:
                    self._look()
                try:
                    value = step()
                except StopIteration as end:
                    return end.value
                self.inside = False
                self._emit(value)
                while allowance.spent and not self._closing:
                    self._wait()
                    if self.alarmed:
                        self._look()
        except BaseException:
            self.inside = True
            with contextlib.suppress(Exception):  # the first error is what counts
                _close(parts)
            raise
        self.inside = True
        _close(parts)
        return None

    def _look(self) -> None:
        """Do what the handler of a signal would have done."""
        self.alarmed = False
        self._heed()
        self._listen()

    # Asynchronous generators

    def _run_async(self, parts: AsyncIterator[Any]) -> None:
        import asyncio

        asyncio.run(self._drive(parts))

    async def _drive(self, parts: AsyncIterator[Any]) -> None:
        import asyncio

        loop = self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        loop.add_reader(self._channel.fd, self._hear)
        loop.call_soon(self._hear)  # the descriptor tells of what is new only
        try:
            await self._emit_all(parts, loop)
        except asyncio.CancelledError:
            if not self._closing:
                raise
        except BaseException:
            self.inside = True
            with contextlib.suppress(Exception):  # the first error is what counts
                await _close_async(parts)
            raise
        finally:
            loop.remove_reader(self._channel.fd)
            self._task = None
        await _close_async(parts)

    async def _emit_all(
        self, parts: AsyncIterator[Any], loop: AbstractEventLoop
    ) -> None:
        allowance = self._allowance
        if self._closing:
            return
        async for value in parts:
            self.inside = False
            self._emit(value)
            self.inside = True
            if self.alarmed:
                self._look()
            while allowance.spent and not self._closing:
                self._room = loop.create_future()
                await self._room
            if self._closing:
                return

    def _hear(self) -> None:
        """Take messages between two steps of the generator's loop.

        A signal that comes meanwhile waits for the next part: an exception in here
        would end in the loop's hands.
        """
        self.inside = False
        self._listen()
        self.inside = True

    def _notify(self) -> None:
        """Have it noticed; this may be a signal's handler, anywhere in the loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._notice)

    def _notice(self) -> None:
        """End the generator's wait: for its consumer, or, closing, for anything."""
        room = self._room
        if room is not None and not room.done():
            if self._closing or not self._allowance.spent:
                room.set_result(None)
        elif self._closing and self._task is not None:
            task, self._task = self._task, None
            task.cancel()

    # Parts

    def _emit(self, value: Any) -> None:
        """Send a part, soon; what it is made of may change after this."""
        payload, buffers = codec.encode_result(value, self._name)
        if buffers or (type(payload) is bytes and len(payload) >= codec.OUT_OF_BAND):
            self._send_large(payload, buffers)
            return
        now_ns = time.monotonic_ns()
        size = size_of(payload)
        self._allowance.spend(size)
        parts = self._parts
        if not parts:
            self._since_ns = now_ns
        parts.append(payload)
        self._size += size
        quick = now_ns - self._last_ns < _HOLD_NS and now_ns - self._since_ns < _HOLD_NS
        self._last_ns = now_ns
        if not quick or self._size >= _FULL or self._allowance.spent:
            self.flush()
            self._listen()  # the consumer's word may be here already
        elif len(parts) == 1:
            self._page.hold_parts(True)

    def _send_large(self, payload: Any, buffers: list[Any]) -> None:
        self.flush()
        self._listen()  # it may tell of memory that is free again
        size = len(payload) + sum(memoryview(buffer).nbytes for buffer in buffers)
        payload, places, frames = self._workspace.place(payload, buffers)
        self._allowance.spend(size)
        message = (messages.PARTS, self.job, [payload], size, places)
        self._channel.send(message, frames)
        self._last_ns = time.monotonic_ns()
        self._listen()


def _close(parts: Iterator[Any]) -> None:
    """End a generator where it rests; other iterators have nothing to end."""
    close = getattr(parts, "close", None)
    if close is not None:
        close()


async def _close_async(parts: AsyncIterator[Any]) -> None:
    close = getattr(parts, "aclose", None)
    if close is not None:
        await close()
