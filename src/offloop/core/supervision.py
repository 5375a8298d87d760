"""When to start, replace, retire or stop a process, and when to give up.

    scale_asked   child_ready                          StartChild   EmployChild
    stop_asked    child_exited        ┌───────────┐    RetireChild
    time_passed   child_used         ▶│Supervision│──▶ TerminateChild   KillChild
    child_spent   child_retire_asked  └───────────┘
                                                       GiveUp

The pool is a row of *slots*; in each of them one *child* after the other lives
(`children` draws its life). A child that is to be replaced works until its successor
stands by, so the pool is never a child short.

A child that dies unasked is replaced: at once the first time, later with a growing
delay. Deaths that someone asked for, or that a job is to blame for, cost nothing. Too
many others within a period mean that something is wrong that a restart does not mend:
then the pool has *failed*, keeps the children that live, and tries one new child after
a cool-down.

It looks at no process and no clock, like the scheduler, and does not know what its
children do: compute workers, servers and a coordinator are all the same to it.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from offloop.core.children import (
    ABLE,
    ChildRecord,
    ChildState,
    SupervisionState,
    SupervisionStats,
)
from offloop.core.commands import (
    EmployChild,
    GiveUp,
    KillChild,
    RetireChild,
    StartChild,
    SupervisionCommand,
    TerminateChild,
)
from offloop.core.exits import Exit, ExitReason
from offloop.core.recycling import draw_allowance
from offloop.core.restarts import Restarts
from offloop.core.slots import Row, Slot
from offloop.core.spares import NO_SLOT, Spares
from offloop.core.timers import Timers
from offloop.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from offloop.options import Recycle

# A successor begins to start this many start-ups before it is needed, but no later than
# this many seconds before: on a busy machine a start may take longer than usual.
_LEAD_STARTS = 4
_LEAD_TIME = 0.1

# Stories of this many children are kept after their end.
_STORIES = 64


class Supervision:
    """Decides about the processes of one pool.

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

    # Questions

    @property
    def stopped(self) -> bool:
        """True once the pool was asked to stop and no child is left."""
        return self.state is SupervisionState.STOPPING and not self._children

    def works(self, child: int) -> bool:
        """Tell whether a child has a place and may get work."""
        record = self._children.get(child)
        return record is not None and record.state is ChildState.READY

    def next_due(self) -> float | None:
        """Return when `time_passed` must be called next, None if it need not be."""
        times = [self._starts.next_due(), self._kills.next_due()]
        times += [self._ages.next_due(), self._cool_until, self._stop_deadline]
        if self._wants_spare():
            times.append(self._spares.next_due())
        first = min(when for when in times if when is not None)
        return None if first == inf else first

    def stats(self) -> SupervisionStats:
        """Return a snapshot."""
        states = [child.state for child in self._children.values()]
        return SupervisionStats(
            state=self.state,
            target=len(self._slots),
            starting=states.count(ChildState.STARTING),
            standby=states.count(ChildState.STANDBY),
            ready=states.count(ChildState.READY),
            retiring=states.count(ChildState.RETIRING),
            stopping=states.count(ChildState.STOPPING),
            waiting=len(self._starts),
            started=self._last_child,
            deaths=self._restarts.deaths,
        )

    def story(self, child: int) -> str:
        """Return what is known of a child, in one line; the latest ended included."""
        record = self._children.get(child)
        if record is not None:
            return record.story()
        for gone, story in reversed(self._stories):
            if gone == child:
                return story
        return f"child {child} is not known: it ended long ago, or never was started"

    # Facts

    def scale_asked(
        self, count: int, now: float, first: Iterable[int] = ()
    ) -> list[SupervisionCommand]:
        """Bring the pool to `count` children; a pool that is stopping stays so.

        Args:
            count: children that there should be.
            now: the time.
            first: those that go first, if there are too many.
        """
        commands: list[SupervisionCommand] = []
        if self.state is SupervisionState.STOPPING:
            return commands
        slots = self._slots
        leaving = (self._children[one] for one in first if one in self._children)
        slots.move_to_the_end(leaving, count, self._starts.keys())
        surplus = [slots.remove() for _ in range(len(slots) - count)]
        for slot in reversed(surplus):
            self._starts.drop(slot.index)
            self._empty(slot, ExitReason.SCALED_DOWN, now, commands)
        while len(slots) < count:
            self._fill(slots.add(), now, commands)
        self._try_again(now, commands)
        self._fill_spares(now, commands)
        return commands

    def child_ready(self, child: int, now: float) -> list[SupervisionCommand]:
        """Note that a child can work: now, or when the one that it replaces goes."""
        record = self._child(child)
        commands: list[SupervisionCommand] = []
        if record.state is ChildState.STOPPING:
            return commands  # it was asked to leave while this was on its way
        record.ready_at = now
        self._kills.drop(child)
        self._ever_ready = True
        boot = now - record.started_at
        self._boot = boot if boot > self._boot else (3 * self._boot + boot) / 4
        slot = self._slots.of(record)
        if slot is None:
            self._spare_ready(record, now, commands)
        elif slot.successor is record:
            record.move(ChildState.STANDBY, now)
            if slot.due:
                self._take_over(slot, now, commands)
        else:
            self._employ(slot, record, now, commands)
            self._look_ahead(slot, slot.wear.lasts, now, commands)
        if self.state is SupervisionState.FAILED:
            self._recover(now, commands)
        self._fill_spares(now, commands)
        return commands

    def child_exited(
        self, child: int, exit: Exit, reason: str, now: float
    ) -> list[SupervisionCommand]:
        """Replace a child that is no more, if its slot needs another one.

        Args:
            child: its number.
            exit: whether anybody asked for it.
            reason: what to tell people, the child's last output included.
            now: the time.
        """
        record = self._child(child)
        before = record.state
        record.move(ChildState.GONE, now, reason)
        del self._children[child]
        self._kills.drop(child)
        self._stories.append((child, record.story()))
        self._ages.drop(child)
        commands: list[SupervisionCommand] = []
        slot = self._slots.of(record)
        timed_out = before is ChildState.STOPPING  # else it would have no place
        unasked = exit is Exit.UNASKED or timed_out
        if record in self._spares:
            self._spares.discard(record)
            if unasked:
                self._died(None, record, reason, now, commands)
        elif slot is not None:  # else it was on its way out, and is not missed
            slot.vacate(record)
            if slot.current is not None and slot.current.state is ChildState.STANDBY:
                self._employ(slot, slot.current, now, commands)
                self._look_ahead(slot, slot.wear.lasts, now, commands)
            if unasked:
                self._died(slot, record, reason, now, commands)
            else:
                self._fill(slot, now, commands)
                self._try_again(now, commands)  # it may have been a failed pool's try
        self._fill_spares(now, commands)
        return commands

    def child_used(
        self, child: int, jobs: int, rss: int, now: float
    ) -> list[SupervisionCommand]:
        """Look whether a child that works will soon be used up.

        Args:
            child: its number.
            jobs: that it has run.
            rss: bytes that it held when it last looked.
            now: the time.
        """
        record = self._child(child)
        commands: list[SupervisionCommand] = []
        slot = self._slots.of(record)
        if slot is not None and slot.current is record:
            share = record.allowance.share(jobs, rss)
            self._look_ahead(slot, slot.wear.observe(share, now), now, commands)
        return commands

    def child_spent(
        self, child: int, reason: ExitReason, now: float
    ) -> list[SupervisionCommand]:
        """Replace a child that has reached a limit and begins no further job.

        It leaves at once: a successor that stands by takes over, and if none does, the
        pool is no worse off without a child that does not work.
        """
        record = self._child(child)
        commands: list[SupervisionCommand] = []
        slot = self._slots.of(record)
        if record.state is not ChildState.READY or slot is None:
            return commands
        if slot.successor is not None and slot.successor.state is ChildState.STANDBY:
            slot.replacing = reason
            self._take_over(slot, now, commands)
        else:
            slot.vacate(record)
            self._dismiss(record, reason, now, commands)
            self._fill(slot, now, commands)
            self._try_again(now, commands)
        self._fill_spares(now, commands)
        return commands

    def spares_outdated(
        self, reason: ExitReason, now: float
    ) -> list[SupervisionCommand]:
        """Let new children stand by in the place of those that do."""
        commands: list[SupervisionCommand] = []
        self._drop_spares(reason, now, commands)
        self._fill_spares(now, commands)
        return commands

    def child_retire_asked(
        self, child: int, reason: ExitReason, now: float
    ) -> list[SupervisionCommand]:
        """Replace a child that works by a new one, and retire it after that.

        Nothing happens if it is on its way out, or its slot has trouble already.
        """
        record = self._child(child)
        commands: list[SupervisionCommand] = []
        slot = self._slots.of(record)
        if slot is not None and slot.current is record:
            self._replace(slot, reason, now, commands)
        return commands

    def stop_asked(self, deadline: float, now: float) -> list[SupervisionCommand]:
        """Let all children finish what they have and leave; wait until `deadline`.

        May be asked again, with another deadline.
        """
        self.state = SupervisionState.STOPPING
        self._stop_deadline = deadline
        self._cool_until = inf
        commands: list[SupervisionCommand] = []
        for slot in self._slots:
            self._starts.drop(slot.index)
            self._empty(slot, ExitReason.SHUTDOWN, now, commands)
        self._slots = Row()
        self._spares.wanted = 0
        self._drop_spares(ExitReason.SHUTDOWN, now, commands)
        self._lose_patience(now, commands)
        return commands

    def cause_removed(self, now: float) -> list[SupervisionCommand]:
        """Begin anew: whatever made children die has been replaced."""
        commands: list[SupervisionCommand] = []
        if self.state is SupervisionState.FAILED:
            self._recover(now, commands)
        self._fill_spares(now, commands)
        return commands

    def time_passed(self, now: float) -> list[SupervisionCommand]:
        """Do what has fallen due: starts, kills, ends of a cool-down or a deadline."""
        commands: list[SupervisionCommand] = []
        self._lose_patience(now, commands)
        while (number := self._kills.pop_due(now)) is not None:
            child = self._children[number]
            reason = ExitReason.SHUTDOWN
            if child.state is ChildState.STARTING:
                why = f"not ready within {self._boot_timeout:g} s"
                child.move(ChildState.STOPPING, now, why)
                reason = ExitReason.START_FAILED
            commands.append(KillChild(number, reason))
        while (index := self._starts.pop_due(now)) is not None:
            self._fill(self._slots[index], now, commands)
        while (number := self._ages.pop_due(now)) is not None:
            self._grew_old(self._children[number], now, commands)
        if self._cool_until <= now:
            self._cool_until = inf
            self._try_again(now, commands)
        self._fill_spares(now, commands)
        return commands

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
        self,
        slot: Slot,
        due_in: float,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        """Begin a successor if the child that works will be used up before long."""
        lead = max(_LEAD_STARTS * self._boot, _LEAD_TIME)
        if due_in > lead or self.state is not SupervisionState.RUNNING:
            return
        if slot.replacing is None and not self._slots.is_replacing():
            slot.replacing = ExitReason.RECYCLED_JOBS  # or memory: the child will say
            self._fill(slot, now, commands)

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
        self._look_ahead(slot, slot.wear.lasts, now, commands)

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
            delay = restarts.delay(slot, child, self._boot, now)
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

    # Self-check

    def check(self) -> None:
        """Assert every invariant.

        Raises:
            AssertionError: one does not hold, which is a bug of this package.
        """
        self._starts.check()
        self._kills.check()
        self._ages.check()
        running = self.state is SupervisionState.RUNNING
        self._slots.check(self._children, self._starts.keys() if running else None)
        self._spares.check(self._children)
        for number, child in self._children.items():
            assert child.number == number
            self._check_child(child)
        assert set(self._kills) <= set(self._children)
        assert all(index < len(self._slots) for index in self._starts)
        assert set(self._ages) <= set(self._children)
        failed = self.state is SupervisionState.FAILED
        assert failed or self._cool_until == inf
        assert not failed or self._cool_until != inf or self._slots.is_trying()
        assert not (self.state is SupervisionState.STOPPING and self._slots)

    def _check_child(self, child: ChildRecord) -> None:
        assert child.state is not ChildState.GONE, child.story()
        if child.state is ChildState.STARTING or child.state in ABLE:
            placed = self._slots.of(child) is not None or child in self._spares
            assert placed, child.story()
        waits = child.state in (*ABLE, ChildState.RETIRING)
        assert not (waits and child.number in self._kills), child.story()
        works = child.state is ChildState.READY
        watched = child.number in self._ages
        assert works or not watched, child.story()
        if works and child.allowance.age != inf:
            assert watched or self._slots[child.slot].due, child.story()

    def _child(self, number: int) -> ChildRecord:
        child = self._children.get(number)
        if child is None:
            text = f"child {number} is not known; please report this"
            raise InternalError(text, story=self.story(number))
        return child
