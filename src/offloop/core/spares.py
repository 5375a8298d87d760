"""Children that stand by for nobody in particular: the next that is needed is there.

    STARTING ──▶ STANDBY ──(somebody dies, or is one too few)──▶ in a slot, READY

A spare has no slot. When one goes into a slot, or dies, another one is started in its
stead; after deaths in a row with a growing delay, as in a slot.

This module keeps them and counts; `supervision` decides.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from offloop.core.children import ChildRecord, ChildState
from offloop.core.policies import restart_delay, spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: in the place of a slot's index
NO_SLOT = 1 << 30


class Spares:
    """The children of a pool that have no slot yet.

    Args:
        wanted: how many there should be.
    """

    __slots__ = ("_children", "_failures", "due", "wanted")

    def __init__(self, wanted: int) -> None:
        #: how many there should be; 0 once the pool stops
        self.wanted = wanted
        self._children: list[ChildRecord] = []
        #: deaths in a row
        self._failures = 0
        #: no further one is started before this time
        self.due = -inf

    def __contains__(self, child: ChildRecord) -> bool:
        return child in self._children

    def __iter__(self) -> Iterator[ChildRecord]:
        return iter(list(self._children))

    @property
    def missing(self) -> int:
        """How many more there should be."""
        return max(self.wanted - len(self._children), 0)

    def add(self, child: ChildRecord) -> None:
        """Keep a child that has just been started."""
        self._children.append(child)

    def take(self, slot: int) -> ChildRecord | None:
        """Return one that stands by, for the slot of this index, if there is one."""
        for child in self._children:
            if child.state is ChildState.STANDBY:
                self._children.remove(child)
                self._failures = 0
                child.slot = slot
                return child
        return None

    def discard(self, child: ChildRecord) -> None:
        """Forget one that is no more, or on its way out."""
        self._children.remove(child)

    def died(self, child: ChildRecord, now: float) -> None:
        """Count the death of one: the next start waits, the longer the more died."""
        self._failures += 1
        unborn = child.ready_at == inf
        delay = restart_delay(self._failures + unborn, spread(NO_SLOT, child.number))
        self.due = now + delay

    def next_due(self) -> float:
        """Return when one that is missing may be started after a death, else inf."""
        return self.due if self.missing and self.due > -inf else inf

    def check(self, children: Mapping[int, ChildRecord]) -> None:
        """Assert the invariants; `children` are all that are not gone."""
        assert len(self._children) <= self.wanted
        for child in self._children:
            assert children[child.number] is child
            assert child.slot == NO_SLOT
            assert child.state in (
                ChildState.STARTING,
                ChildState.STANDBY,
                ChildState.STOPPING,
            ), child.story()
