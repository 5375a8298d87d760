"""The parent's end of shared memory: what large arguments and results lie in.

    submit ──▶ Memory.hold ──▶ Large ──▶ Exchange.lend ──▶ (a place, in the call's row)
                                              │
    a caller's view ◀── Exchange.see ◀────────┼──────── (a place, in the answer's row)
          │                                   │
          ╰── has gone: the worker's block    ╰── released: the block is free, unless
              is free                             the job may be tried again

One `Memory` for a pool holds its arguments, one `Exchange` for each worker knows what
that worker looks at, and what of the worker is looked at here. A block is free when
nothing refers to it: no job that waits, no worker, no array of the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from offloop.errors import PoolFull
from offloop.messages import PRIVATE, READONLY, WRITABLE
from offloop.wire.arena import Arena, ArenaFull, Window, create_file, file_size

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from offloop.wire.arena import Block
    from offloop.wire.codec import Buffer
    from offloop.wire.puts import Stored
    from offloop.workspace import Place


# An arena that cannot have so many bytes of address space is not worth having.
_LEAST = 1 << 20


class Large:
    """One large buffer of a call: a part of a block."""

    __slots__ = ("block", "mode", "offset", "size")

    def __init__(self, block: Block, offset: int, size: int, mode: int) -> None:
        self.block = block
        #: where in the file
        self.offset = offset
        #: bytes
        self.size = size
        #: how the worker sees it
        self.mode = mode


class Memory:
    """Holds the large arguments of a pool's jobs.

    Args:
        limit: bytes for the arguments of all jobs, and as many for all results.
        workers: that share the memory for results.
    """

    def __init__(self, limit: int, workers: int) -> None:
        #: bytes of the file that each worker writes its results to
        self.results_size = file_size(max(limit // workers, _LEAST))
        self.arena = _open(limit)

    def located(self, view: Buffer) -> Large | None:
        """Return what stands for a buffer that lies in this memory already."""
        found = self.arena.locate(view)
        if found is None:
            return None
        block, at = found
        size = memoryview(view).nbytes
        return Large(block, block.offset + at, size, READONLY)

    def check(self, size: int, parts: int) -> None:
        """Refuse what could not all be here, even if nothing else was.

        Raises:
            PoolFull: with `never` set.
        """
        if size > self.arena.limit:
            raise _too_large(size, parts, self.arena.limit)

    def taken(self) -> PoolFull:
        """Return the error for one who comes while others wait for room."""
        used, limit = self.arena.used, self.arena.limit
        return PoolFull(
            f"others wait for room in the pool's shared memory already: {used} of "
            f"{limit} bytes (arena_limit) are in use, and nothing was queued. Use run "
            "or map, which wait in turn, or raise arena_limit.",
            pending=used,
            limit=limit,
        )

    def hold(self, view: Buffer) -> Large:
        """Take room for a copy of a buffer; `copy` fills it.

        Raises:
            PoolFull: there is none now.
        """
        readonly = memoryview(view).readonly
        size = memoryview(view).nbytes
        block = self.allocate(size)
        mode = READONLY if readonly else WRITABLE
        return Large(block, block.offset, size, mode)

    def allocate(self, size: int) -> Block:
        """Take a block.

        Raises:
            PoolFull: there is no room now, or never can be.
        """
        try:
            return self.arena.allocate(size)
        except ArenaFull as full:
            raise _pool_full(full) from None

    def view(self, size: int) -> memoryview:
        """Return new memory that can be sent without a copy.

        Raises:
            PoolFull: there is no room now, or never can be.
            MemoryError: the machine has not enough memory.
        """
        block = self.allocate(size)
        self.arena.reserve(block)
        return self.arena.view(block)

    def close(self) -> None:
        """Take nothing more; what exists stays as it is."""
        self.arena.close()


class Exchange:
    """What one worker and its parent see of each other's memory.

    Args:
        results: descriptor of the file that the worker writes to; stays the caller's.
        size: of that file in bytes.
    """

    def __init__(self, results: int, size: int) -> None:
        self._results = results
        self._size = size
        self._window: Window | None = None
        #: blocks that the worker may be looking at, by token
        self._lent: dict[int, Block] = {}
        self._last_token = 0
        #: numbers of the objects that it knows, put there by `pool.put`
        self.puts: set[int] = set()
        #: those of them that it may forget
        self.forgotten: list[int] = []
        #: clients whose memory it may let go
        self.clients_gone: list[int] = []
        #: results of the worker that are looked at here
        self.seen = 0

    # What the worker sees

    def lend(self, large: Large, retriable: bool) -> Place:
        """Let the worker look at a buffer; returns where it is.

        Args:
            large: the buffer.
            retriable: the job may be tried again, with the buffer as it is now.
        """
        self._last_token += 1
        self._lent[self._last_token] = large.block
        mode = PRIVATE if retriable and large.mode == WRITABLE else large.mode
        return self._last_token, large.offset, large.size, mode

    def introduce(self, stored: Iterable[Stored]) -> list[tuple[int, list[Place]]]:
        """Let the worker know objects that were put; returns news of the new ones."""
        news = []
        for one in stored:
            if one.number not in self.puts:
                self.puts.add(one.number)
                places = [self.lend(large, retriable=False) for large in one.blocks]
                news.append((one.number, places))
        return news

    def forget(self, numbers: Iterable[int]) -> None:
        """Let the worker forget objects that no job will name any more."""
        known = self.puts.intersection(numbers)
        self.puts -= known
        self.forgotten.extend(known)

    def released(self, tokens: Iterable[int]) -> None:
        """Note what the worker looks at no more."""
        for token in tokens:
            self._lent.pop(token, None)

    # What is seen of the worker

    def see(
        self, places: Sequence[Place], frames: Sequence[memoryview]
    ) -> list[memoryview]:
        """Return the buffers of an answer, in their order."""
        rest = iter(frames)
        views = []
        for place in places:
            if place is None:
                views.append(next(rest))
                continue
            if self._window is None:
                self._window = Window(self._results, self._size)
            token, offset, size, *_ = place
            views.append(self._window.lease(token, offset, size))
            self.seen += 1
        return views

    def given_back(self) -> list[int]:
        """Return the tokens of what is no longer looked at here."""
        if self._window is None:
            return []
        tokens = self._window.drain_released()
        self.seen -= len(tokens)
        return tokens

    def close(self) -> Generator[object, None, None]:
        """Take back what was lent: the worker is dead.

        Returns:
            Steps that give back the memory of its results, but for what is looked at
            here: that stays as it is.
        """
        self._lent.clear()
        return self._vacate()

    def _vacate(self) -> Generator[object, None, None]:
        window, self._window = self._window, None
        if window is not None:
            window.drain_released()
            yield from window.vacate()
            window.close()


def _open(limit: int) -> Arena:
    """Open an arena, a smaller one where address space is limited (``ulimit -v``)."""
    while True:
        try:
            return Arena(create_file(file_size(limit)), limit)
        except OSError:
            if limit <= _LEAST:
                raise
            limit //= 2


def _too_large(size: int, parts: int, limit: int) -> PoolFull:
    what = f"{size} bytes" if parts == 1 else f"{size} bytes in {parts} large buffers"
    return PoolFull(
        f"{what} do not fit into the pool's shared memory, whose arena_limit is "
        f"{limit} bytes: raise it, or send less",
        pending=size,
        limit=limit,
        never=True,
    )


def _pool_full(full: ArenaFull) -> PoolFull:
    if full.never:
        return _too_large(full.size, 1, full.limit)
    return PoolFull(
        f"{full.size} bytes do not fit into the pool's shared memory now: {full.used} "
        f"of {full.limit} bytes (arena_limit) are in use, and nothing was queued. Try "
        "again when jobs have ended and arrays of `empty` have gone, use run or map, "
        "which wait, or raise arena_limit.",
        pending=full.used,
        limit=full.limit,
    )
