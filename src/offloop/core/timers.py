"""What falls due when: one time for each key, the earliest first.

A heap whose entries are never taken out before their turn: setting a key anew or
dropping it only makes its old entry stale, which is seen when the entry comes to the
top. Stale entries are swept out once they outnumber the live ones, so that ten thousand
jobs with a far deadline that end at once leave nothing behind, and each operation stays
cheap on average.

This module never looks at a clock and does not know what its keys stand for.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, KeysView

# Below this many stale entries a sweep costs more than it frees.
_SLACK = 64


class Timers:
    """Times by key; a key has at most one."""

    __slots__ = ("_heap", "_live")

    def __init__(self) -> None:
        #: (time, key); stale unless `_live` has this very time for the key
        self._heap: list[tuple[float, int]] = []
        #: the time of each key; each pair is in `_heap` at least once
        self._live: dict[int, float] = {}

    def __len__(self) -> int:
        """Return how many keys have a time."""
        return len(self._live)

    def __iter__(self) -> Iterator[int]:
        """Go through the keys that have a time, in any order."""
        return iter(self._live)

    def keys(self) -> KeysView[int]:
        """Return the keys that have a time."""
        return self._live.keys()

    def set(self, key: int, when: float) -> None:
        """Let `key` fall due at `when`, and not at the time that it had before."""
        self._live[key] = when
        heappush(self._heap, (when, key))
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            self._sweep()

    def drop(self, key: int) -> None:
        """Let `key` never fall due; it need not have a time."""
        if self._live.pop(key, None) is None:
            return
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            self._sweep()

    def next_due(self) -> float | None:
        """Return the earliest time, None if there is none."""
        heap = self._heap
        while heap:
            when, key = heap[0]
            if self._live.get(key) == when:
                return when
            heappop(heap)
        return None

    def pop_due(self, now: float) -> int | None:
        """Take out and return the key that fell due first, None if none did.

        One at a time, because what is done about a key may drop or set others.
        """
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heappop(self._heap)[1]
        del self._live[key]
        return key

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self._heap) <= 2 * len(self._live) + _SLACK, "stale entries pile up"
        assert set(self._heap) >= {(when, key) for key, when in self._live.items()}

    def _sweep(self) -> None:
        self._heap = [(when, key) for key, when in self._live.items()]
        heapify(self._heap)
