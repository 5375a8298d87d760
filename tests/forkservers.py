"""A real forkserver for tests to talk to: what it says is awaited, never polled."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from offloop import messages
from offloop.handles import ForkserverHandle, WorkerHandle
from offloop.wire import arena, codec
from offloop.wire.channel import Channel, make_context
from offloop.wire.functions import APPLY
from offloop.wire.status import create_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

# Bytes of the files for large arguments and results.
_MEMORY = 1 << 20

# Nothing that is waited for in a test takes so long, unless it never comes.
_PATIENCE = 60


class Forkserver:
    """A forkserver, the workers that were hired from it, and all that it has said."""

    def __init__(
        self, folder: str, preload: Sequence[str], environment: dict[str, str]
    ) -> None:
        self.folder = folder
        self.workers: dict[int, WorkerHandle] = {}
        self._requests = arena.create_file(_MEMORY)
        self._context = make_context()
        self._heard: asyncio.Queue[tuple[Any, ...] | None] = asyncio.Queue()
        self.handle = ForkserverHandle(
            folder, preload, {**os.environ, **environment}, self._hear
        )

    def _hear(self, handle: ForkserverHandle, message: tuple[Any, ...] | None) -> None:
        if message is not None and message[0] == messages.STARTED:
            _, number, pid, has_pidfd = message
            pidfd = handle.take_descriptor() if has_pidfd else None
            self.workers[number].started(pid, pidfd)
        self._heard.put_nowait(message)

    async def heard(self, kind: int | None) -> tuple[Any, ...]:
        """Return what comes with the next message; None: the forkserver has ended."""
        async with asyncio.timeout(_PATIENCE):
            message = await self._heard.get()
        assert (message and message[0]) == kind, message
        return message[1:] if message else ()

    def hire(self, number: int, address: str | None = None) -> WorkerHandle:
        """Order a worker, which may be told a wrong address."""
        channel = Channel(self._context)
        path = f"{self.folder}/{number}"
        channel.bind(path)
        page, results = create_file(), arena.create_file(_MEMORY)
        worker = WorkerHandle(number, 0, self.handle, channel, page, results)
        self.workers[number] = worker
        files = (page, self._requests, results)
        self.handle.order((messages.FORK, number, address or path), *files)
        return worker

    async def hired(self, number: int) -> WorkerHandle:
        """Order a worker, and wait until it can work."""
        worker = self.hire(number)
        await self.heard(messages.STARTED)
        assert await receive(worker) == (messages.READY, worker.pid)
        worker.channel.seal()
        return worker

    async def close(self) -> None:
        self.handle.hang_up()
        await self.handle.gone()
        for worker in self.workers.values():
            worker.close()
        os.close(self._requests)
        self._context.destroy()


@contextlib.asynccontextmanager
async def forkserver(
    folder: str, preload: Sequence[str] = (), **environment: str
) -> AsyncIterator[Forkserver]:
    """Start a forkserver that has nothing wrong, and end it with all its workers."""
    one = Forkserver(folder, preload, environment)
    try:
        await one.heard(messages.LISTENING)
        yield one
    finally:
        await one.close()


async def receive(worker: WorkerHandle) -> tuple[Any, ...]:
    """Wait for the next message of a worker."""
    channel = worker.channel
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_PATIENCE):
        while (message := channel.receive_nowait()) is None:
            readable = loop.create_future()
            loop.add_reader(channel.fd, _note, readable)
            try:
                if not channel.wants_reading():
                    await readable
            finally:
                loop.remove_reader(channel.fd)
    return message


def _note(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


async def run(worker: WorkerHandle, fn: Callable[..., Any], *args: Any) -> Any:
    """Run a job in the worker and return its result; an error is raised here."""
    payload, buffers = codec.encode_call((fn, *args), {}, "a test's job")
    call = (1, APPLY, payload, [None] * len(buffers), 1, None, False, None)
    worker.channel.send((messages.JOBS, [call]), buffers)
    kind, ((_, (payload, _), _, *more),), *_ = await receive(worker)
    assert kind in (messages.RESULTS, messages.ANSWERS)
    status, places = more or (messages.OK, [])
    assert not places, "a test's job has no large result"
    if status == messages.ERROR:
        raise codec.decode_error(payload)
    assert status == messages.OK
    return codec.decode(payload)
