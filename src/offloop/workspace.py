"""A worker's end of shared memory: large arguments in, large results out.

    parent's arena ──▶ Window.lease ──▶ arguments ──▶ job ──▶ results ──▶ Arena.write
         ▲                                 │                                │
         └──── tokens: views have gone ────┘      tokens: blocks are free ◀─┘ parent

Arguments are views on the parent's memory; results are written to a memory of this
process, which the parent reads where it lies, also after this process has died. What
either side uses no more is told by tokens, which travel with messages that go anyway.

Nothing here is made before the first large buffer: most workers never see one.
"""

from __future__ import annotations

import contextlib
import os
import pickle

from offloop.messages import PRIVATE, READONLY, WRITABLE
from offloop.wire import puts
from offloop.wire.arena import Arena, ArenaFull, Window, limit_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from offloop.wire.arena import Block
    from offloop.wire.codec import Buffer, Payload

    #: where a buffer lies: token, offset and size in bytes, and how it is seen; with
    #: a fifth item, in the memory of a client of the parent; None: in the next frame of
    #: the message
    Place = (
        tuple[int, int, int, int]
        | tuple[int, int, int, int, tuple[int, str, int]]
        | None
    )

# Payloads from this size on travel as buffers: the envelope is copied on the loop.
LARGE_PAYLOAD = 16 * 1024


class Workspace:
    """What one worker has of the memory that it shares with its parent.

    Args:
        requests: descriptor of the file that the parent writes arguments to; owned by
            this object from now on.
        results: descriptor of the file that this process writes results to; likewise.
    """

    def __init__(self, requests: int, results: int) -> None:
        self._requests = requests
        self._results = results
        self._window: Window | None = None
        #: what is seen of the memory of the parent's clients, by client
        self._clients: dict[int, Window] = {}
        self._arena: Arena | None = None
        #: blocks that the parent has not given back, by token
        self._lent: dict[int, Block] = {}
        self._last_token = 0
        #: what `pool.put` sent: by number, the payload's view and those of its buffers
        self._puts: dict[int, list[memoryview]] = {}
        puts.set_resolver(self._resolve)

    def close(self) -> None:
        """Make no more views; the descriptors are closed, or will be with the views."""
        puts.set_resolver(None)
        self._puts.clear()
        os.close(self._requests)
        if self._window is not None:
            self._window.close()
        self.forget_clients(list(self._clients))
        if self._arena is not None:
            self._arena.close()
        elif self._results >= 0:
            os.close(self._results)
        self._arena, self._results = None, -1

    # Arguments

    def views(self, places: Iterable[tuple[Any, ...]]) -> list[memoryview]:
        """Return the buffers that lie at these places, in their order.

        Raises:
            OSError: a client has gone, and its memory with it.
        """
        return [self._see(*place) for place in places]

    def _see(
        self,
        token: int,
        offset: int,
        size: int,
        mode: int,
        client: tuple[int, str, int] | None = None,
    ) -> memoryview:
        if client is not None:
            window = self._clients.get(client[0]) or self._open_client(*client)
        elif self._window is None:
            window = Window(self._requests, file_length(self._requests))
            self._window = window
        else:
            window = self._window
        return window.lease(
            token, offset, size, readonly=mode == READONLY, private=mode == PRIVATE
        )

    def _open_client(self, number: int, path: str, inode: int) -> Window:
        """Map the memory of a client, which the parent holds open.

        The number of the parent's descriptor may belong to another file by now.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_ino != inode:
                raise FileNotFoundError(f"client {number} of the shared pool has gone")
            window = Window(descriptor, file_length(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        self._clients[number] = window
        return window

    def forget_clients(self, numbers: Iterable[int]) -> None:
        """Let go of the memory of clients that have gone."""
        for number in numbers:
            window = self._clients.pop(number, None)
            if window is not None:
                window.close()
                os.close(window.descriptor)

    def released(self) -> list[int]:
        """Return the tokens of arguments whose views have gone since the last call."""
        tokens = [] if self._window is None else self._window.drain_released()
        for window in self._clients.values():
            tokens += window.drain_released()
        return tokens

    # Results

    def place(
        self, payload: Payload, buffers: Sequence[Buffer]
    ) -> tuple[Payload | None, list[Place], list[Buffer]]:
        """Put a large result where the parent can read it.

        Returns:
            The payload, or None if it is the last of the places; the places; and the
            buffers for which there was no room, to be sent as frames.

        Raises:
            MemoryError: the machine has not enough memory, for frames either.
        """
        parts = list(buffers)
        small: Payload | None = payload
        if isinstance(payload, bytes) and len(payload) >= LARGE_PAYLOAD:
            parts.append(payload)
            small = None
        places = [self._write(part) for part in parts]
        frames = [
            part for part, place in zip(parts, places, strict=True) if place is None
        ]
        return small, places, frames

    def _write(self, data: Buffer) -> Place:
        arena = self._open_arena()
        if arena is None:
            return None
        found = arena.locate(data)
        offset = 0
        if found is not None:  # it was made by `empty`
            block, offset = found
        else:
            size = memoryview(data).nbytes
            try:
                block = arena.allocate(size)
            except ArenaFull:
                arena.headroom.claim(2 * size)  # here on its way out, and there
                return None
            arena.write(block, data)
        self._last_token += 1
        self._lent[self._last_token] = block
        size = memoryview(data).nbytes
        return (self._last_token, block.offset + offset, size, WRITABLE)

    def give_back(self, tokens: Iterable[int]) -> None:
        """Drop blocks whose results the parent uses no more."""
        for token in tokens:
            self._lent.pop(token, None)

    def empty(self, size: int) -> memoryview | None:
        """Return new memory that can be returned without a copy; None: no room."""
        arena = self._open_arena()
        if arena is None:
            return None
        try:
            block = arena.allocate(size)
            arena.reserve(block)
        except (ArenaFull, MemoryError):
            return None
        return arena.view(block)

    def trim(self, now: float) -> float | None:
        """Give memory back that results used and nobody needs; see `Arena.trim`."""
        return None if self._arena is None else self._arena.trim(now)

    def _open_arena(self) -> Arena | None:
        if self._arena is None and self._results >= 0:
            try:
                self._arena = Arena(self._results, limit_of(file_length(self._results)))
            except OSError:  # address space is limited: results go by frames
                self._results = -1  # the file itself was closed by what failed
        return self._arena

    # What was put

    def learn_puts(self, arrived: Iterable[tuple[int, list[tuple[Any, ...]]]]) -> None:
        """Note where objects are that jobs will name by number."""
        for number, places in arrived:
            # Nobody asks for what was put by a client that has gone.
            with contextlib.suppress(FileNotFoundError):
                self._puts[number] = self.views(places)

    def forget_puts(self, numbers: Iterable[int]) -> None:
        """Drop objects that no job will name again."""
        for number in numbers:
            self._puts.pop(number, None)

    def _resolve(self, number: int) -> Any:
        payload, *buffers = self._puts[number]
        return pickle.loads(payload, buffers=buffers)


def file_length(descriptor: int) -> int:
    """Return the bytes of a file."""
    return os.fstat(descriptor).st_size
