"""How the places of a pool are filled and emptied: who starts, takes over, and leaves.

    a place lacks a child ──▶ a spare works there, or one is started
    a child is to go      ──▶ its successor starts, stands by, takes over; it leaves
    a child has died      ──▶ another one: at once, later, or, after too many, none

What has happened is told to `Supervision`, which is made of this; here is what follows
from it. Like that, it looks at no process and no clock.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from offloop.core.children import ChildRecord, ChildState, SupervisionState
from offloop.core.commands import (
    EmployChild,
    GiveUp,
    RetireChild,
    StartChild,
    SupervisionCommand,
    TerminateChild,
)
from offloop.core.exits import ExitReason
from offloop.core.recycling import draw_allowance
from offloop.core.restarts import Restarts
from offloop.core.slots import Row, Slot
from offloop.core.spares import NO_SLOT, Spares
from offloop.core.timers import Timers

if TYPE_CHECKING:
    from offloop.options import Recycle

# A successor begins to start this many start-ups before it is needed, but no later than
# this many seconds before: on a busy machine a start may take longer than usual.
_LEAD_STARTS = 4
_LEAD_TIME = 0.1

# Stories of this many children are kept after their end.
_STORIES = 64


class Staffing:
    """Fills and empties the places of one pool; `Supervision` says when.

    Args:
        recycle: when a child has been used enough; None: never.
        spares: children that stand by for whoever dies.
        max_restarts: unasked deaths that are mended within `period`; by default twice
            as many as there are slots, and at least 5.
        period: seconds over which they are counted.
        boot_timeout: seconds that a child has from its start until it is ready.
        cool_down: seconds after which a failed pool tries one child.
        health: seconds that a child must have been ready to be called healthy.
        grace: seconds between asking a child to leave and killing it.
    """

    def __init__(
        self,
        *,
        recycle: Recycle | None = None,
        spares: int = 0,
        max_restarts: int | None = None,
        period: float = 30.0,
        boot_timeout: float = 60.0,
        cool_down: float = 60.0,
        health: float = 10.0,
        grace: float = 2.0,
    ) -> None:
        self._recycle = recycle
        self._restarts = Restarts(max_restarts, period, health)
        self._boot_timeout = boot_timeout
        self._cool_down = cool_down
        self._grace = grace
        self.state = SupervisionState.RUNNING
        #: the slots that there should be
        self._slots = Row()
        #: children that are in none of them, and will be when they are needed
        self._spares = Spares(spares)
        #: every child that is not GONE; those in no slot are on their way out
        self._children: dict[int, ChildRecord] = {}
        #: number that the last child got
        self._last_child = 0
        #: when a slot's delay is over, by its index
        self._starts = Timers()
        #: when a child is killed: STARTING for too long, or STOPPING and still there
        self._kills = Timers()
        #: when a child that works is too old, by its number
        self._ages = Timers()
        #: seconds that a start takes, rather too many; 0.0 while none is known
        self._boot = 0.0
        #: a child has been ready once: the set-up is not wrong from the outset
        self._ever_ready = False
        #: when a failed pool tries a child; inf while it is trying, or has not failed
        self._cool_until = inf
        #: when a stopping pool loses its patience; inf while it is not stopping
        self._stop_deadline = inf
        #: stories of the latest children that are GONE
        self._stories: deque[tuple[int, str]] = deque(maxlen=_STORIES)

    # Filling slots

    def _fill(self, slot: Slot, now: float, commands: list[SupervisionCommand]) -> None:
        """Give the slot what it lacks: a spare, or a start unless the pool failed."""
        if slot.current is None and (spare := self._spares.take(slot.index)):
            self._starts.drop(slot.index)
            slot.current = spare
            self._employ(slot, spare, now, commands)
        if self.state is not SupervisionState.RUNNING or slot.index in self._starts:
            return
        if slot.current is None:
            slot.current = self._start(slot, now, commands)
        elif slot.replacing is not None and slot.successor is None:
            slot.successor = self._start(slot, now, commands)

    def _start(
        self, slot: Slot | None, now: float, commands: list[SupervisionCommand]
    ) -> ChildRecord:
        """Start a child for a slot, or one that has none."""
        self._last_child += 1
        number = self._last_child
        index = NO_SLOT if slot is None else slot.index
        allowance = draw_allowance(self._recycle, number)
        child = ChildRecord(number, index, allowance, now)
        self._children[number] = child
        self._kills.set(number, now + self._boot_timeout)
        limits = allowance.jobs, allowance.rss
        commands.append(StartChild(index, number, *limits))
        return child

    def _employ(
        self,
        slot: Slot,
        child: ChildRecord,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        """Let a child work."""
        child.move(ChildState.READY, now)
        commands.append(EmployChild(child.number))
        if child.allowance.age != inf:
            self._ages.set(child.number, now + child.allowance.age)
        slot.wear.renew(now)

    # Spares

    def _wants_spare(self) -> bool:
        """Tell whether it is time for spares: once all slots have what they need."""
        return self.state is SupervisionState.RUNNING and all(
            slot.current is not None and slot.current.state is not ChildState.STARTING
            for slot in self._slots
        )

    def _fill_spares(self, now: float, commands: list[SupervisionCommand]) -> None:
        spares = self._spares
        if spares.missing and spares.due <= now and self._wants_spare():
            for _ in range(spares.missing):
                spares.add(self._start(None, now, commands))

    def _spare_ready(
        self, child: ChildRecord, now: float, commands: list[SupervisionCommand]
    ) -> None:
        child.move(ChildState.STANDBY, now)
        for slot in self._slots:  # one that lost its child while this one started
            if slot.current is None:
                self._fill(slot, now, commands)
                break

    def _drop_spares(
        self, reason: ExitReason, now: float, commands: list[SupervisionCommand]
    ) -> None:
        for child in self._spares:
            self._spares.discard(child)
            self._dismiss(child, reason, now, commands)

    # Replacing

    def _look_ahead(
        self, slot: Slot | None, now: float, commands: list[SupervisionCommand]
    ) -> None:
        """Begin a successor if a child that works will be used up before long.

        Successors start one at a time. So where several are needed at the same time,
        they begin earlier, by a start-up for each that is needed before.

        Args:
            slot: the one whose child has just been looked at; None: look at all.
            now: the time.
            commands: what is to be done.
        """
        soon = now + max(_LEAD_STARTS * self._boot, _LEAD_TIME)
        latest = soon + (len(self._slots) - 1) * self._boot
        if self.state is not SupervisionState.RUNNING or (
            slot is not None
            and (slot.replacing is not None or slot.wear.last_look > latest)
        ):
            return
        if self._slots.is_replacing():
            return
        line = self._slots.wearing_out(latest)
        for place, one in enumerate(line):
            if one.wear.last_look <= soon + place * self._boot:
                first = line[0]
                first.replacing = ExitReason.RECYCLED_JOBS  # or memory: it will say
                self._fill(first, now, commands)
                return

    def _replace(
        self,
        slot: Slot,
        reason: ExitReason,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        """Let a successor take over as soon as there is one."""
        running = self.state is SupervisionState.RUNNING
        working = slot.current and slot.current.state is ChildState.READY
        if not running or not working or slot.due:
            return
        slot.replacing = reason
        slot.due = True
        if slot.successor is not None and slot.successor.state is ChildState.STANDBY:
            self._take_over(slot, now, commands)
        else:
            self._fill(slot, now, commands)

    def _take_over(
        self, slot: Slot, now: float, commands: list[SupervisionCommand]
    ) -> None:
        """Let the successor work and the current child leave, in this order."""
        old, new, reason = slot.current, slot.successor, slot.replacing
        assert old is not None
        assert new is not None
        assert reason is not None
        slot.current, slot.successor = new, None
        slot.settle()
        self._employ(slot, new, now, commands)
        self._dismiss(old, reason, now, commands)
        self._look_ahead(slot, now, commands)

    def _grew_old(
        self, child: ChildRecord, now: float, commands: list[SupervisionCommand]
    ) -> None:
        """Replace a child that is too old, but one after the other.

        Those that must wait for another one's end, or for a pool that has failed, are
        looked at again after a gap.
        """
        if self.state is SupervisionState.RUNNING and not self._slots.is_replacing():
            slot = self._slots[child.slot]
            self._replace(slot, ExitReason.RECYCLED_AGE, now, commands)
        else:
            self._ages.set(child.number, now + max(2 * self._boot, _LEAD_TIME))

    # Letting children go

    def _empty(
        self,
        slot: Slot,
        reason: ExitReason,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        """Let the children of a slot go that is no more."""
        for child in (slot.successor, slot.current):
            self._dismiss(child, reason, now, commands)

    def _dismiss(
        self,
        child: ChildRecord | None,
        reason: ExitReason,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        """Let a child go: one that works may finish, one that starts has no work."""
        if child is None:
            return
        self._ages.drop(child.number)
        if child.state in (ChildState.READY, ChildState.STANDBY):
            child.move(ChildState.RETIRING, now, reason.value)
            commands.append(RetireChild(child.number, reason))
        elif child.state is ChildState.STARTING:
            self._terminate(child, reason, now, commands)

    def _terminate(
        self,
        child: ChildRecord,
        reason: ExitReason,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        child.move(ChildState.STOPPING, now, reason.value)
        self._kills.set(child.number, now + self._grace)
        commands.append(TerminateChild(child.number, reason))

    def _lose_patience(self, now: float, commands: list[SupervisionCommand]) -> None:
        """Terminate what is left once the deadline for stopping has passed."""
        if self._stop_deadline > now:
            return
        self._stop_deadline = inf
        for child in self._children.values():
            if child.state is not ChildState.STOPPING:
                self._terminate(child, ExitReason.SHUTDOWN, now, commands)

    # Failure

    def _died(
        self,
        slot: Slot | None,
        child: ChildRecord,
        reason: str,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        """Fill the slot again, at once or later, or give up; None: it was a spare."""
        restarts = self._restarts
        restarts.deaths += 1
        if not self._ever_ready:
            self._give_up(f"no process could start: {reason}", now, commands)
        elif (
            restarts.count(len(self._slots), now)
            or self.state is SupervisionState.FAILED  # and this was its try
        ):
            count = f"unasked deaths within {restarts.period:g} s: {restarts.recent}"
            self._give_up(f"{count}; the last one: {reason}", now, commands)
        elif slot is None:
            self._spares.died(child, now)
        else:
            delay = restarts.delay(slot, child, self._boot)
            if delay > 0.0:
                self._starts.set(slot.index, now + delay)
            self._fill(slot, now, commands)

    def _give_up(
        self, reason: str, now: float, commands: list[SupervisionCommand]
    ) -> None:
        """Start nothing for a while. Said once for each try, not for each death."""
        if self._cool_until != inf:
            return
        self.state = SupervisionState.FAILED
        self._cool_until = now + self._cool_down
        for index in list(self._starts):
            self._starts.drop(index)
        commands.append(GiveUp(reason))
        for slot in self._slots:  # those that stand by can work
            self._fill(slot, now, commands)

    def _try_again(self, now: float, commands: list[SupervisionCommand]) -> None:
        """Start one child of a failed pool, unless it is cooling down or trying."""
        if self.state is not SupervisionState.FAILED or self._cool_until != inf:
            return
        if self._slots.is_trying():
            return
        empty = [slot for slot in self._slots if slot.current is None]
        if empty:
            empty[0].current = self._start(empty[0], now, commands)
        else:
            self._recover(now, commands)

    def _recover(self, now: float, commands: list[SupervisionCommand]) -> None:
        """Fill all slots again: a child got ready, so the cause seems to be gone."""
        self.state = SupervisionState.RUNNING
        self._cool_until = inf
        self._restarts.forget()
        for slot in self._slots:
            self._fill(slot, now, commands)
