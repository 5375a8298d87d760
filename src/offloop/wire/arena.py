"""Large buffers in memory that two processes share: written once, read where they lie.

    writer                          one sparse file               reader
    ──────                          ───────────────               ──────
    Arena.allocate ──▶ Block                                      Window.lease ──▶ view
    Arena.write    ───────────────▶ ░░░████████░░░░  ────────────▶
                                                                  its views have gone:
    the last reference goes ◀──── (a message says so) ──────────  drain_released

Each file has one writer, so no lock crosses a process. It is anonymous: nothing is left
behind, whatever is killed. It is several times as long as what may be in it at once,
because length costs nothing; memory that is not used any more is given back by punching
holes into it. What was freed last is used first: its memory is there already.

Lack of memory is an error of the call that finds it. It is never a SIGBUS, because what
has no memory yet is written by `os.pwrite` or reserved before it is written otherwise.

Times here are arguments, and nothing waits. This is the face of several modules: the
reader's end is in `window`, the file in `sparse_file`, and the books of what is free in
`space` and `warm`.
"""

from __future__ import annotations

import mmap
import weakref
from bisect import bisect_right, insort
from collections import deque

from offloop.wire.pointers import Held
from offloop.wire.space import SMALLEST, Space, class_size, whole_pages
from offloop.wire.sparse_file import SparseFile, create_file, punch
from offloop.wire.warm import WarmRanges
from offloop.wire.window import Window, expose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import TypeAlias

    from offloop.wire.headroom import Headroom
    from offloop.wire.warm import Part, WarmRange

    Buffer: TypeAlias = bytes | bytearray | memoryview
    #: a part that came back, and by how much that lessens what is in use
    Returned: TypeAlias = tuple[Part, int]

__all__ = [
    "Arena",
    "ArenaFull",
    "Block",
    "Window",
    "create_file",
    "file_size",
    "limit_of",
]

#: bytes of new memory that are filled at once, in 0.3 ms; then others have their turn
SLICE = 1024 * 1024
#: the same for memory that is there already, which takes 0.2 ms
STRIDE = 4 * 1024 * 1024
#: bytes of a strand, and from how many on there is more than one: a second thread takes
#: 40 µs to wake up
STRAND, SPLIT = 1024 * 1024, 4 * 1024 * 1024
#: up to so many bytes are copied without releasing the GIL, which takes longer
BRIEF = 256 * 1024
#: seconds for which memory that nobody uses is kept for the next block
KEEP = 2.0
#: bytes that one `trim` gives back (0.5 ms), and seconds until the next one may come
TRIM, PAUSE = 2 * 1024 * 1024, 0.002
#: a small range takes as long to give back as so many bytes
_TRIM_COST = 64 * 1024
#: the file is so many times as long as the limit, against fragmentation
_SPARSE = 4


def file_size(limit: int) -> int:
    """Return how long the file of an arena is that may hold `limit` bytes."""
    return _SPARSE * max(class_size(limit), SMALLEST)


def limit_of(size: int) -> int:
    """Return the limit of an arena in a file of `file_size(limit)` bytes.

    Rounded up to the class of sizes that the limit belongs to.
    """
    return size // _SPARSE


class ArenaFull(Exception):
    """There is no room for a block now, or (`never`) there cannot be.

    There may be room when a block has been dropped, and when `Arena.trim` has given
    memory back.
    """

    def __init__(self, size: int, used: int, limit: int) -> None:
        super().__init__(size, used, limit)
        #: bytes that were wanted
        self.size = size
        #: bytes of the blocks that are in use
        self.used = used
        self.limit = limit
        #: it is larger than all that may be in the arena
        self.never = whole_pages(size) > limit

    def __str__(self) -> str:
        why = "larger than the whole arena" if self.never else "no room now"
        return f"{self.size} bytes: {why} ({self.used} of {self.limit} bytes are used)"


class Block:
    """A part of an arena's file; free again as soon as nobody refers to this object."""

    __slots__ = ("__weakref__", "_debts", "_home", "backed", "offset", "room", "size")

    def __init__(
        self,
        offset: int,
        size: int,
        room: int,
        backed: int,
        debts: list[Part],
        home: Callable[[Returned], object],
    ) -> None:
        #: where it begins in the file
        self.offset = offset
        #: bytes that were asked for
        self.size = size
        #: bytes that it takes in the file
        self.room = room
        #: so many bytes, from the beginning, certainly have memory
        self.backed = backed
        #: ranges to give back before this block gets new memory: they make room for it
        self._debts = debts
        self._home = home

    def __repr__(self) -> str:
        return f"<Block of {self.size} bytes at {self.offset}>"

    def __del__(self) -> None:
        # This may be any thread, in the middle of anything: the owner does the rest.
        for part in self._debts:
            self._home((part, 0))
        self._home(((self.offset, self.room, self.backed), self.room))


class Arena:
    """The writer's end: blocks in one file.

    All methods belong to one thread, the owner's, except `write`, `slices` and
    `reserve`: those may run on any thread, but on one at a time for each block, unless
    they come from `strands`.

    Args:
        descriptor: of a file of `file_size(limit)` bytes; owned by this object from now
            on, and closed by it.
        limit: bytes of memory that blocks may take, those included that are kept warm
            for the next ones. (Where no holes can be punched, only blocks in use count:
            what is given back stays until it is used again.)

    Raises:
        ValueError: not even the smallest block fits into the limit.
        OSError: the file cannot be mapped, usually because address space is limited
            (``ulimit -v``).
    """

    def __init__(self, descriptor: int, limit: int) -> None:
        self._file: SparseFile | None = SparseFile(descriptor)
        if limit < SMALLEST:
            raise ValueError(f"the limit is {limit} bytes: at least {SMALLEST} needed")
        #: length of the file in bytes: what a `Window` on it must be told
        self.size = file_size(limit)
        self.limit = limit
        self._mapping = mmap.mmap(descriptor, self.size)
        #: ranges without memory
        self._space = Space(self.size)
        #: ranges with memory that nobody uses
        self._warm = WarmRanges()
        #: what came back and is not yet in the books; appended to from any thread
        self._returned: deque[Returned] = deque()
        #: offsets in order of the blocks that views were made of, and those blocks
        self._viewed: list[int] = []
        self._blocks: dict[int, weakref.ref[Block]] = {}
        #: bytes of the blocks in use
        self._used = 0
        #: where the mapping is in memory; 0 until it is first needed
        self._address = 0

    # ---- what there is ---------------------------------------------------------------

    @property
    def used(self) -> int:
        """Bytes of the blocks that are in use."""
        self._collect()
        return self._used

    @property
    def backed(self) -> int:
        """Bytes that blocks in use may take, and memory kept warm for the next ones."""
        self._collect()
        return self._used + self._warm.backed

    def fileno(self) -> int:
        """Return the descriptor of the file, to be sent to the reader.

        Raises:
            ValueError: the arena is closed.
        """
        return self._open_file().descriptor

    @property
    def headroom(self) -> Headroom:
        """What tells how much memory the system grants.

        Raises:
            ValueError: the arena is closed.
        """
        return self._open_file().headroom

    # ---- blocks ----------------------------------------------------------------------

    def room(self, size: int) -> bool:
        """Tell whether `allocate` would succeed now."""
        self._collect()
        room = self._room_for(size)
        if self._used + room > self.limit:
            return False
        return self._find_warm(room) is not None or self._space.fits(room)

    def allocate(self, size: int) -> Block:
        """Take a block, one whose memory is there already if possible.

        Raises:
            ArenaFull: there is no room for it.
            ValueError: the arena is closed.
        """
        self._open_file()
        self._collect()
        room = self._room_for(size)
        if self._used + room > self.limit:
            raise ArenaFull(size, self._used, self.limit)
        warm = self._find_warm(room)
        if warm is not None:
            self._warm.remove(warm)
            offset, room, backed = warm.offset, warm.size, warm.backed
        else:
            found, backed = self._space.take(room), 0
            if found is None:  # fragmented; it will be less so after a while
                raise ArenaFull(size, self._used, self.limit)
            offset = found
        self._used += room
        debts = self._make_room()
        return Block(offset, size, room, backed, debts, self._returned.append)

    def trim(self, now: float) -> float | None:
        """Give back some of the memory that nobody has used for KEEP seconds.

        It takes less than a millisecond.

        Args:
            now: any clock's seconds, the same clock's at each call.

        Returns:
            When to call it again, or None if nothing is kept. A block that is freed
            later makes another call necessary.
        """
        self._collect()
        warm = self._warm
        warm.see(now)
        left = TRIM
        while warm.first_seen() + KEEP <= now:
            if left <= 0:
                return now + PAUSE
            offset, size, backed = warm.cut(left)
            punch(self._mapping, offset, backed)
            self._space.give(offset, size)
            left -= max(backed, _TRIM_COST)
        return warm.first_seen() + KEEP if warm else None

    def close(self) -> None:
        """Allocate no more. Blocks and views that exist stay as they are.

        The memory goes with the last view, on whichever side.
        """
        self._file = None
        # The mapping has a descriptor of its own: from now on it belongs to the views.
        self._mapping = mmap.mmap(-1, 1)

    # ---- content ---------------------------------------------------------------------

    def write(self, block: Block, data: Buffer, at: int = 0) -> None:
        """Copy a buffer into a block; `slices` does the same in steps."""
        for _ in self.slices(block, data, at):
            pass

    def slices(
        self, block: Block, data: Buffer, at: int = 0
    ) -> Generator[int, None, None]:
        """Copy a buffer into a block, a slice at each step, the GIL released.

        Who copies several buffers may take their steps in turn, so that a small one
        does not wait for a large one.

        New memory is filled by `os.pwrite`, 3 to 4 GB/s: going through the mapping
        costs twice as much, a page fault for each page. Memory that is there already is
        filled through the mapping, 20 to 60 GB/s when it is in cache or has been mapped
        before, where `os.pwrite` has 7 to 16; only the first time after `os.pwrite`
        costs the page faults. `numpy.copyto` is no faster. (Two cores of a virtual
        machine, 64 KB to 128 MB.)

        Args:
            block: what to write to.
            data: contiguous bytes.
            at: where in the block. What comes before has been written before, except
                for less than a page.

        Yields:
            Bytes copied so far.

        Raises:
            ValueError: it does not fit, or leaves a gap.
            MemoryError: the machine has not enough memory.
        """
        source = memoryview(data)
        size = source.nbytes
        if at < 0 or at + size > block.size or at > whole_pages(block.backed):
            raise ValueError(
                f"{size} bytes at {at} do not fit into {block}, "
                f"of which {block.backed} bytes are filled"
            )
        file = self._open_file()
        if size == 0:
            return
        source = source.cast("B")
        if at + size <= block.backed:
            yield from self._fill_warm(block.offset + at, source)
            return
        yield from self._pay(block)
        file.headroom.claim(size)  # all of it, before a part is taken in vain
        for begin in range(0, size, SLICE):
            part = source[begin : begin + SLICE]
            file.write(part, block.offset + at + begin)
            block.backed = max(block.backed, at + begin + len(part))
            yield begin + len(part)

    def strands(self, block: Block, data: Buffer) -> list[Generator[int, None, None]]:
        """Return what `slices` does as several such, to be taken in any order.

        Memory that is there already may be filled by several threads at once: two of
        them take 0.7 of the time of one. (16 and 128 MB, two cores.)
        """
        source = memoryview(data)
        size = source.nbytes
        if size < SPLIT or size > block.backed:
            return [self.slices(block, data)]
        source = source.cast("B")
        begins = range(0, size, STRAND)
        return [self.slices(block, source[at : at + STRAND], at) for at in begins]

    def reserve(self, block: Block) -> None:
        """Make sure that a block has memory, so that it can be written through a view.

        Raises:
            MemoryError: the machine has not enough memory.
        """
        file = self._open_file()
        if block.backed >= block.size:
            return
        for _ in self._pay(block):
            pass
        end = whole_pages(block.size)
        file.headroom.claim(end - whole_pages(block.backed))
        for at in range(whole_pages(block.backed), end, SLICE):
            size = min(SLICE, end - at)
            file.reserve(block.offset + at, size)
            block.backed = at + size

    def view(self, block: Block, *, readonly: bool = False) -> memoryview:
        """Return the writer's own view on a block.

        The block stays in use as long as the view or anything that was made from it.

        Raises:
            ValueError: the block has not been reserved or written to its end.
        """
        if block.backed < block.size:
            raise ValueError(f"{block} has no memory yet: reserve it first")
        self._collect()
        if block.offset not in self._blocks:
            insort(self._viewed, block.offset)
            self._blocks[block.offset] = weakref.ref(block)
        return expose(self._mapping, block.offset, block.size, block, readonly=readonly)

    def locate(self, buffer: object) -> tuple[Block, int] | None:
        """Tell in which block of this arena a buffer lies, and where in that block.

        Args:
            buffer: anything with the buffer protocol. None of its bytes are copied.

        Returns:
            None if it lies elsewhere, or is not contiguous.
        """
        if not self._blocks:
            return None
        try:
            held = Held(buffer)
        except (BufferError, ValueError):
            return None
        held.release()
        offset = held.address - self._find_address()
        number = bisect_right(self._viewed, offset)
        if number == 0:
            return None
        start = self._viewed[number - 1]
        block = self._blocks[start]()
        if block is None or offset + held.size > start + block.size:
            return None
        return block, offset - start

    # ---- books -----------------------------------------------------------------------

    def _open_file(self) -> SparseFile:
        if self._file is None:
            raise ValueError("the arena is closed")
        return self._file

    def _room_for(self, size: int) -> int:
        room = class_size(size)
        return room if room <= self.limit else whole_pages(size)

    def _collect(self) -> None:
        """Enter what came back into the books."""
        returned = self._returned
        while returned:
            part, used = returned.popleft()
            offset, size, backed = part
            self._used -= used
            if used and self._blocks.pop(offset, None) is not None:
                del self._viewed[bisect_right(self._viewed, offset) - 1]
            if backed:
                self._warm.add(part)
            else:
                self._space.give(offset, size)

    def _find_warm(self, room: int) -> WarmRange | None:
        return self._warm.find(room, self.limit - self._used)

    def _make_room(self) -> list[Part]:
        """Take ranges out of the books until no more is kept than there is room for."""
        debts = []
        while (excess := self._used + self._warm.backed - self.limit) > 0:
            debts.append(self._warm.cut(excess))
        return debts

    # ---- memory ----------------------------------------------------------------------

    def _pay(self, block: Block) -> Iterator[int]:
        """Give back what must go before the block may have memory of its own."""
        debts = block._debts
        while debts:
            offset, size, backed = debts[-1]
            for begin in range(0, backed, SLICE):
                punch(self._mapping, offset + begin, min(SLICE, backed - begin))
                yield 0
            debts.pop()
            self._returned.append(((offset, size, 0), 0))

    def _fill_warm(self, offset: int, source: memoryview) -> Iterator[int]:
        size = len(source)
        if size <= BRIEF:
            self._mapping[offset : offset + size] = source
            yield size
            return
        import ctypes

        held = Held(source)
        try:
            target = self._find_address() + offset
            for begin in range(0, size, STRIDE):
                length = min(STRIDE, size - begin)
                ctypes.memmove(target + begin, held.address + begin, length)
                yield begin + length
        finally:
            held.release()

    def _find_address(self) -> int:
        if not self._address:
            held = Held(self._mapping)
            self._address = held.address
            held.release()
        return self._address
