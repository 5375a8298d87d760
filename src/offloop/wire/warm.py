"""Free ranges of a file that still have memory: used again first, given back last.

New memory costs a page fault or more for each page. So what was freed last is the next
to be used, while its bytes are in the cache. What was freed first is the first to be
given back, when room is needed or nobody has wanted it for a while.

It touches no file: it says what is to be given back, and others do that.
"""

from __future__ import annotations

from collections import OrderedDict

from offloop.wire.space import PAGE, SMALLEST, class_below, whole_pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    #: offset, size, and bytes of it, from the beginning, that may have memory
    Part: TypeAlias = tuple[int, int, int]

NEVER = float("inf")


class WarmRange:
    """A range that nobody uses and that has memory."""

    __slots__ = ("backed", "offset", "seen", "size")

    def __init__(self, offset: int, size: int, backed: int) -> None:
        self.offset = offset
        self.size = size
        #: bytes, from the beginning, that may have memory: whole pages, not 0
        self.backed = backed
        #: when `WarmRanges.see` first saw it
        self.seen = NEVER


class WarmRanges:
    """All of an arena, in the order in which they were freed."""

    __slots__ = ("_classes", "_ranges", "backed")

    def __init__(self) -> None:
        #: by offset; what was freed first, and seen first, is in front
        self._ranges: OrderedDict[int, WarmRange] = OrderedDict()
        #: class, and its ranges by offset; what was freed last is at the end
        self._classes: dict[int, dict[int, WarmRange]] = {}
        #: bytes that may have memory
        self.backed = 0

    def __len__(self) -> int:
        return len(self._ranges)

    def add(self, part: Part) -> None:
        """Note a range that was freed just now."""
        offset, size, backed = part
        self._insert(WarmRange(offset, size, whole_pages(backed)))

    def find(self, size: int, most: int) -> WarmRange | None:
        """Return a range of `size` to `most` bytes, or None; it does not look long."""
        ranges = self._classes.get(class_below(size))
        if not ranges:
            return None
        last = ranges[next(reversed(ranges))]
        return last if size <= last.size <= most else None

    def remove(self, found: WarmRange) -> None:
        """Take a range away, because it is used again."""
        number = class_below(found.size)
        ranges = self._classes[number]
        del ranges[found.offset], self._ranges[found.offset]
        if not ranges:
            del self._classes[number]
        self.backed -= found.backed

    def cut(self, wanted: int) -> Part:
        """Take away `wanted` bytes of memory, or what the coldest range has of it.

        Returns:
            The part that is to be given back.
        """
        coldest = next(iter(self._ranges.values()))
        self.remove(coldest)
        stays = max(0, coldest.backed - wanted) // PAGE * PAGE
        if stays < SMALLEST:
            return coldest.offset, coldest.size, coldest.backed
        rest = WarmRange(coldest.offset, stays, stays)
        rest.seen = coldest.seen
        self._insert(rest)
        self._ranges.move_to_end(rest.offset, last=False)
        return rest.offset + stays, coldest.size - stays, coldest.backed - stays

    def see(self, now: float) -> None:
        """Note the time for the ranges that are new since the last call."""
        for new in reversed(self._ranges.values()):
            if new.seen != NEVER:
                break
            new.seen = now

    def first_seen(self) -> float:
        """Return when the coldest range was seen first; never, if there is none."""
        for coldest in self._ranges.values():
            return coldest.seen
        return NEVER

    def _insert(self, new: WarmRange) -> None:
        self._ranges[new.offset] = new
        self._classes.setdefault(class_below(new.size), {})[new.offset] = new
        self.backed += new.backed
