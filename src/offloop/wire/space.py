"""Which ranges of a file are free: taken, given and joined in constant time.

Free ranges lie in bins, one for each *class* of sizes: four classes for each doubling,
so a range is at most a quarter larger than the class that it is in. A range of a wanted
size comes from the first bin whose ranges all are large enough; a bit for each bin that
has any finds it. Neighbours that are both free become one range. That is the two-level
segregated fit of Masmano et al. (2004), with Python's long integers as its bitmap.

It touches no file: sizes and offsets are numbers to it, multiples of PAGE.
"""

from __future__ import annotations

import mmap

#: what offsets and lengths of mappings are multiples of
PAGE = mmap.ALLOCATIONGRANULARITY
#: no range that is smaller is worth its bookkeeping; 16 KiB where pages have 4
SMALLEST = 4 * PAGE


def whole_pages(size: int) -> int:
    """Round a number of bytes up to whole pages."""
    return -(-size // PAGE) * PAGE


def class_size(size: int) -> int:
    """Round a number of bytes up to the size of a class: at most a quarter more."""
    if size <= SMALLEST:
        return SMALLEST
    shift = (size - 1).bit_length() - 3
    return (((size - 1) >> shift) + 1) << shift


def class_below(size: int) -> int:
    """Return the number of the largest class that a range of this size holds."""
    shift = size.bit_length() - 3
    return shift * 4 + (size >> shift)


class Space:
    """The free ranges of a file.

    Args:
        size: bytes, all of them free.
    """

    __slots__ = ("_bins", "_ends", "_filled", "_sizes")

    def __init__(self, size: int) -> None:
        #: where free ranges begin, and their sizes
        self._sizes: dict[int, int] = {}
        #: where free ranges end, and where those begin
        self._ends: dict[int, int] = {}
        #: class, and where its ranges begin
        self._bins: dict[int, set[int]] = {}
        #: bit n is set while bin n has ranges
        self._filled = 0
        self._insert(0, size)

    def fits(self, size: int) -> bool:
        """Tell whether `take` would find a range."""
        return self._filled >> class_below(class_size(size)) != 0

    def take(self, size: int) -> int | None:
        """Return where a range of this size begins, which is free no more, or None."""
        first = class_below(class_size(size))
        filled = self._filled >> first
        if not filled:
            return None
        offset = next(iter(self._bins[first + (filled & -filled).bit_length() - 1]))
        whole = self._remove(offset)
        if whole > size:
            self._insert(offset + size, whole - size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Make a range free that was taken, or a part of one."""
        before = self._ends.get(offset)
        if before is not None:
            size += self._remove(before)
            offset = before
        if offset + size in self._sizes:
            size += self._remove(offset + size)
        self._insert(offset, size)

    def ranges(self) -> list[tuple[int, int]]:
        """Return the free ranges in order: offset and size."""
        return sorted(self._sizes.items())

    def _insert(self, offset: int, size: int) -> None:
        self._sizes[offset] = size
        self._ends[offset + size] = offset
        number = class_below(size)
        self._bins.setdefault(number, set()).add(offset)
        self._filled |= 1 << number

    def _remove(self, offset: int) -> int:
        size = self._sizes.pop(offset)
        del self._ends[offset + size]
        number = class_below(size)
        found = self._bins[number]
        found.remove(offset)
        if not found:
            del self._bins[number]
            self._filled ^= 1 << number
        return size
