"""The places of a pool, each of which should always have one child that works.

    slot      0        1        2
    current   READY    READY    STARTING
    successor          STANDBY

This module keeps children in their places, and never decides; `supervision` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from offloop.core.children import ABLE, ChildRecord, ChildState
from offloop.core.recycling import Wear

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from offloop.core.exits import ExitReason


class Slot:
    """A place in the pool that should always have one child that works."""

    __slots__ = (
        "current",
        "due",
        "failures",
        "index",
        "replacing",
        "successor",
        "wear",
    )

    def __init__(self, index: int) -> None:
        #: 0 to the number of slots - 1
        self.index = index
        #: the child that fills the slot; None while it waits for a start
        self.current: ChildRecord | None = None
        #: STARTING or STANDBY beside `current`, whose place it will take
        self.successor: ChildRecord | None = None
        #: why `current` is to be replaced: a successor is there, starting, or will
        #: start after a delay; None while it is not
        self.replacing: ExitReason | None = None
        #: `current` leaves as soon as the successor can work
        self.due = False
        #: deaths in a row, none of which came after proven health
        self.failures = 0
        #: how fast its children use up their allowance; outlives them
        self.wear = Wear()

    def vacate(self, child: ChildRecord) -> None:
        """Let go of a child that is in here; a successor becomes the current one."""
        if self.successor is child:
            self.successor = None
        else:
            self.current, self.successor = self.successor, None
            self.settle()

    def number_children(self) -> None:
        """Let the children know the number of their slot, after that has changed."""
        for child in (self.current, self.successor):
            if child is not None:
                child.slot = self.index

    def settle(self) -> None:
        """Note that nothing is to be replaced."""
        self.replacing = None
        self.due = False

    def check(self) -> None:
        """Assert the invariants."""
        current, successor = self.current, self.successor
        assert successor is None or (current is not None and self.replacing)
        assert self.replacing or not self.due
        if current is not None:
            assert current.slot == self.index
            assert current.state is not ChildState.STANDBY, current.story()
        if successor is not None:
            assert successor.slot == self.index
            assert successor.state is not ChildState.READY, successor.story()
            stands_by = successor.state is ChildState.STANDBY
            assert not (stands_by and self.due), "it should have taken over"


class Row:
    """All slots of a pool, numbered from 0 without a gap."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: list[Slot] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __getitem__(self, index: int) -> Slot:
        return self._slots[index]

    def add(self) -> Slot:
        """Return a new slot, the last one."""
        slot = Slot(len(self._slots))
        self._slots.append(slot)
        return slot

    def remove(self) -> Slot:
        """Take the last slot away and return it, with whoever is in it."""
        return self._slots.pop()

    def of(self, child: ChildRecord) -> Slot | None:
        """Return the slot that a child is in; None if it is on its way out."""
        if child.slot < len(self._slots):
            slot = self._slots[child.slot]
            if child in (slot.current, slot.successor):
                return slot
        return None

    def move_to_the_end(
        self, children: Iterable[ChildRecord], keep: int, fixed: Container[int]
    ) -> None:
        """Let children that work be in the last slots, which are about to be removed.

        Args:
            children: in the order in which they should go.
            keep: slots that stay.
            fixed: indices of slots that cannot be moved.
        """
        last = len(self._slots) - 1
        for child in children:
            while last in fixed:
                last -= 1
            if last < keep:
                break
            slot = self.of(child)
            if slot is None or slot.current is not child:
                continue
            if slot.index > last or slot.index in fixed:
                continue
            other = self._slots[last]
            slot.index, other.index = last, slot.index
            for one in (slot, other):
                self._slots[one.index] = one
                one.number_children()
            last -= 1

    def wearing_out(self, before: float) -> list[Slot]:
        """Return the slots whose children need successors soon, the first one first.

        Args:
            before: time of the last look at a child, from which on it is not soon.
        """
        found = [
            slot
            for slot in self._slots
            if slot.wear.last_look <= before
            and slot.replacing is None
            and slot.current is not None
            and slot.current.state is ChildState.READY
        ]
        return sorted(found, key=lambda slot: slot.wear.last_look)

    def is_replacing(self) -> bool:
        """Tell whether a successor is on its way."""
        return any(
            slot.replacing is not None
            and (slot.successor is None or slot.successor.state is ChildState.STARTING)
            for slot in self._slots
        )

    def is_trying(self) -> bool:
        """Tell whether a child of a slot is not ready yet, or never will be."""
        return any(
            child is not None and child.state not in ABLE
            for slot in self._slots
            for child in (slot.current, slot.successor)
        )

    def check(
        self, children: Mapping[int, ChildRecord], waiting: Container[int] | None
    ) -> None:
        """Assert the invariants.

        Args:
            children: all that are not gone.
            waiting: slots that wait for a start; None if none is to be filled.
        """
        for index, slot in enumerate(self._slots):
            assert slot.index == index
            slot.check()
            for child in (slot.current, slot.successor):
                assert child is None or children[child.number] is child
            if waiting is not None and index not in waiting:
                assert slot.current is not None
                assert slot.successor is not None or slot.replacing is None
