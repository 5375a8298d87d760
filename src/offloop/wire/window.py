"""Mapped memory as views that know when they are no longer used.

    memoryview, slices, casts, arrays ──▶ exporter ──▶ keeper
                                             │
                                             ▼
                                          mapping

A memoryview that is made from another one holds what exported the memory, not the other
view. So the thing whose end can be noticed must be the exporter itself: an array of
ctypes over the mapping, with an attribute that says what is kept. When the last object
that is a view on the memory has gone, whoever made it, the exporter goes, and with it
the keeper. That may happen on any thread, also inside of a garbage collection.
"""

from __future__ import annotations

import itertools
import mmap
from collections import deque

from offloop.wire.pointers import array_type
from offloop.wire.space import PAGE, class_size, whole_pages
from offloop.wire.sparse_file import punch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

#: bytes from which a private view is a mapping of its own instead of a copy. Reading a
#: copy is faster at any size while the heap is warm (1 MB: 30 instead of 90 µs, 16 MB:
#: 0.7 instead of 1 ms), but it takes as much memory again.
MAPPED = 4 * 1024 * 1024
#: bytes that one step of `Window.vacate` gives back: 0.3 ms
STEP = 2 * 1024 * 1024


def expose(
    mapping: mmap.mmap, offset: int, size: int, keeper: object, *, readonly: bool
) -> memoryview:
    """Return a view on a part of a mapping; it holds the mapping and `keeper`.

    Both go with the last object that uses the memory, be it derived from the view or
    from what was derived from it. The mapping cannot be closed until then.
    """
    length = min(class_size(size), len(mapping) - offset)
    exporter = array_type(length).from_buffer(mapping, offset)
    exporter.keeper = keeper
    view = memoryview(exporter).cast("B")[:size]
    return view.toreadonly() if readonly else view


class Window:
    """The reader's end of an arena: one mapping, made once, and views on its blocks.

    A block that is being looked at must not be used for anything else: the reader
    returns the token of each `lease` whose views have gone, and only then the writer
    drops the block.

    Args:
        descriptor: of the arena's file. It stays the caller's to close; private views
            need it open.
        size: of that file in bytes.

    Raises:
        OSError: the file cannot be mapped, usually because address space is limited
            (``ulimit -v``).
    """

    __slots__ = ("_mapping", "_numbers", "_parts", "_released", "descriptor")

    def __init__(self, descriptor: int, size: int) -> None:
        #: of the file
        self.descriptor = descriptor
        #: None once the window is closed
        self._mapping: mmap.mmap | None = mmap.mmap(descriptor, size)
        self._numbers = itertools.count()
        #: number of each lease that has not been drained: offset and size
        self._parts: dict[int, tuple[int, int]] = {}
        #: numbers and tokens whose views have gone; appended to from any thread
        self._released: deque[tuple[int, Any]] = deque()

    def lease(
        self,
        token: object,
        offset: int,
        size: int,
        *,
        readonly: bool = False,
        private: bool = False,
    ) -> memoryview:
        """Return a view on a block, or on a part of one.

        Args:
            token: what `drain_released` returns when the view, and all that was made
                from it, has gone.
            offset: where the part begins in the file.
            size: bytes.
            readonly: nobody can write through the view.
            private: what is written through the view stays in this process. It costs a
                mapping, or a copy of what is smaller than MAPPED; in exchange the
                writer's block stays as it is.

        Returns:
            Bytes (format "B"). They stay valid, and the same, after `close` too.

        Raises:
            ValueError: the part is not within the file, or the window was closed.
        """
        if self._mapping is None:
            raise ValueError("the window is closed: it makes no more views")
        end = len(self._mapping)
        if offset < 0 or size < 0 or offset + size > end:
            raise ValueError(f"{size} bytes at {offset} are not within {end} bytes")
        number = next(self._numbers)
        self._parts[number] = offset, size
        keeper = _Lease((number, token), self._released.append)
        if not private or readonly:
            return expose(self._mapping, offset, size, keeper, readonly=readonly)
        if size >= MAPPED:
            try:
                mapping, ahead = self._map_privately(offset, size, end)
                return expose(mapping, ahead, size, keeper, readonly=False)
            except OSError:  # too many mappings or descriptors: there is another way
                pass
        shared = expose(self._mapping, offset, size, keeper, readonly=True)
        return memoryview(bytearray(shared))

    def drain_released(self) -> list[Any]:
        """Return the tokens whose views have gone since the last call."""
        tokens = []
        while self._released:
            number, token = self._released.popleft()
            del self._parts[number]
            tokens.append(token)
        return tokens

    def close(self) -> None:
        """Make no more views. The mapping goes with the last one that there is."""
        self._mapping = None

    def vacate(self) -> Iterator[None]:
        """Give back all memory that no view looks at, when the writer has died.

        One view that is left would keep all memory of the writer otherwise. And when
        the last one goes, all is freed at one go, which takes 24 ms for 128 MB; here it
        goes in steps of less than a millisecond. Call `drain_released` before.
        """
        mapping = self._mapping
        if mapping is None:
            return
        begin = 0
        for offset, size in sorted([*self._parts.values(), (len(mapping), 0)]):
            end = offset // PAGE * PAGE
            for at in range(begin, end, STEP):
                punch(mapping, at, min(STEP, end - at))
                yield
            begin = max(begin, whole_pages(offset + size))

    def _map_privately(self, offset: int, size: int, end: int) -> tuple[mmap.mmap, int]:
        """Map the pages of a part; also tell where in the mapping the part begins."""
        ahead = offset % PAGE
        start = offset - ahead
        length = min(class_size(ahead + size), end - start)
        flags = mmap.MAP_PRIVATE
        return mmap.mmap(self.descriptor, length, flags=flags, offset=start), ahead


class _Lease:
    """Says that a view has gone, by going itself."""

    __slots__ = ("_lease", "_tell")

    def __init__(
        self, lease: tuple[int, Any], tell: Callable[[tuple[int, Any]], object]
    ) -> None:
        self._lease = lease
        self._tell = tell

    def __del__(self) -> None:
        self._tell(self._lease)
