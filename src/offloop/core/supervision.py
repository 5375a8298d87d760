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
    KillChild,
    SupervisionCommand,
)
from offloop.core.exits import Exit, ExitReason
from offloop.core.slots import Row
from offloop.core.spares import NO_SLOT
from offloop.core.staffing import Staffing
from offloop.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Supervision(Staffing):
    """Decides about the processes of one pool.

    Each fact is a method in the past tense; made with the arguments of `Staffing`.
    """

    # Questions

    @property
    def stopped(self) -> bool:
        """True once the pool was asked to stop and no child is left."""
        return self.state is SupervisionState.STOPPING and not self._children

    def works(self, child: int) -> bool:
        """Tell whether a child has a place and may get work."""
        record = self._children.get(child)
        return record is not None and record.state is ChildState.READY

    def state_of(self, child: int) -> ChildState:
        """Return where a child stands; GONE if it is not known."""
        record = self._children.get(child)
        return ChildState.GONE if record is None else record.state

    def slot_of(self, child: int) -> int:
        """Return the place that a child works in or stands by for; -1 if in none."""
        record = self._children.get(child)
        return -1 if record is None or record.slot == NO_SLOT else record.slot

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
                self._look_ahead(None, now, commands)  # it may be the next one's turn
        else:
            self._employ(slot, record, now, commands)
            self._look_ahead(slot, now, commands)
        if self.state is SupervisionState.FAILED:
            self._recover(now, commands)
        self._fill_spares(now, commands)
        return commands

    def child_exited(
        self,
        child: int,
        exit: Exit,
        reason: str,
        now: float,
        ended_at: float | None = None,
    ) -> list[SupervisionCommand]:
        """Replace a child that is no more, if its slot needs another one.

        Args:
            child: its number.
            exit: whether anybody asked for it.
            reason: what to tell people, the child's last output included.
            now: the time.
            ended_at: when it ended, if that was before; a shell that was held up for
                long must not take the delay for health.
        """
        record = self._child(child)
        before = record.state
        record.ended_at = now if ended_at is None else ended_at
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
                self._look_ahead(slot, now, commands)
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
            slot.wear.observe(share, now)
            self._look_ahead(slot, now, commands)
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
        slot.wear.observe(1.0, now)
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
