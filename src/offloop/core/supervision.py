"""When to start, replace, retire or stop a process, and when to give up.

    scale_asked   child_ready                          StartChild   RetireChild
    stop_asked    child_exited        ┌───────────┐
    time_passed   child_retire_asked ▶│Supervision│──▶ TerminateChild   KillChild
                                      └───────────┘
                                                       GiveUp

The pool is a row of *slots*; in each of them one *child* after the other lives:

    STARTING ──▶ READY ──▶ RETIRING ──▶ STOPPING ──▶ GONE
        └──────────┴────────────┴───────────┘ ▲
                  may be skipped ─────────────┘

A child that dies unasked is replaced: at once the first time, later with a growing
delay. Deaths that someone asked for, or that a job is to blame for, cost nothing. Too
many others within a period mean that something is wrong that a restart does not mend:
then the pool has *failed*, keeps the children that live, and tries one new child after
a cool-down.

It looks at no process and no clock, like the scheduler, and does not know what its
children do: compute workers, servers and a coordinator are all the same to it.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from math import inf

from offloop.core.commands import (
    GiveUp,
    KillChild,
    RetireChild,
    StartChild,
    SupervisionCommand,
    TerminateChild,
)
from offloop.core.policies import restart_delay, spread
from offloop.core.timers import Timers
from offloop.errors import InternalError

# Stories of this many children are kept after their end.
_STORIES = 64


class ChildState(enum.Enum):
    """Where a child stands in its life."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    STOPPING = "stopping"
    GONE = "gone"


#: which state may follow which; README.md prints the same table with the reasons
CHILD_MOVES: dict[ChildState, frozenset[ChildState]] = {
    ChildState.STARTING: frozenset(
        {ChildState.READY, ChildState.STOPPING, ChildState.GONE}
    ),
    ChildState.READY: frozenset(
        {ChildState.RETIRING, ChildState.STOPPING, ChildState.GONE}
    ),
    ChildState.RETIRING: frozenset({ChildState.STOPPING, ChildState.GONE}),
    ChildState.STOPPING: frozenset({ChildState.GONE}),
    ChildState.GONE: frozenset(),
}


class Exit(enum.Enum):
    """Why a child ended, as far as its shell knows."""

    #: nobody asked for it: a crash, or a kill from outside
    UNASKED = "unasked"
    #: somebody asked for its end, or for that of its job
    WANTED = "wanted"
    #: it died of the job that it ran
    BLAMED = "blamed"


class SupervisionState(enum.Enum):
    """What the pool as a whole is doing."""

    RUNNING = "running"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class SupervisionStats:
    """What supervision holds now, and what it has seen since it was made.

    Attributes:
        state: of the pool.
        target: children that there should be.
        starting, ready, retiring, stopping: children by state.
        waiting: slots that wait for the end of a delay.
        started: children that were started.
        deaths: children that ended unasked and without a job to blame.
    """

    state: SupervisionState
    target: int
    starting: int
    ready: int
    retiring: int
    stopping: int
    waiting: int
    started: int
    deaths: int


class ChildRecord:
    """What is known of one process, from StartChild to `child_exited`."""

    __slots__ = ("history", "number", "ready_at", "slot", "state")

    def __init__(self, number: int, slot: int, now: float) -> None:
        #: unique within the pool, grows with every start
        self.number = number
        #: number of the slot that it was started for
        self.slot = slot
        #: changes only along CHILD_MOVES
        self.state = ChildState.STARTING
        #: when it got ready; inf before
        self.ready_at = inf
        #: every move, for story()
        self.history: list[tuple[float, str]] = [(now, "starting")]

    def move(self, state: ChildState, now: float, why: str = "") -> None:
        """Change the state along `CHILD_MOVES`; no other line of offloop sets it.

        Raises:
            InternalError: the table does not have this move.
        """
        if state not in CHILD_MOVES[self.state]:
            raise InternalError(
                f"child {self.number} cannot go from {self.state.name} to {state.name}",
                story=self.story(),
            )
        self.state = state
        self.history.append((now, f"{state.value}: {why}" if why else state.value))

    def story(self) -> str:
        """Return the child's moves in one line."""
        moves = "; ".join(f"{when:.3f} {what}" for when, what in self.history)
        return f"child {self.number} of slot {self.slot}: {moves}"


class Slot:
    """A place in the pool that should always have one child that is ready."""

    __slots__ = ("current", "failures", "index", "replacing", "successor")

    def __init__(self, index: int) -> None:
        #: 0 to the number of slots - 1
        self.index = index
        #: the child that fills the slot; None while it waits for a start
        self.current: ChildRecord | None = None
        #: STARTING beside `current`, which retires once this one is ready
        self.successor: ChildRecord | None = None
        #: `current` is to be replaced: a successor is starting, or will be after a
        #: delay
        self.replacing = False
        #: deaths in a row, none of which came after proven health
        self.failures = 0


class Supervision:
    """Decides about the processes of one pool.

    Args:
        max_restarts: unasked deaths that are mended within `period`; by default twice
        as
            many as there are slots, and at least 5.
        period: seconds over which they are counted.
        boot_timeout: seconds that a child has from its start until it is ready.
        cool_down: seconds after which a failed pool tries one child.
        health: seconds that a child must have been ready to be called healthy.
        grace: seconds between asking a child to leave and killing it.
    """

    def __init__(
        self,
        *,
        max_restarts: int | None = None,
        period: float = 30.0,
        boot_timeout: float = 60.0,
        cool_down: float = 60.0,
        health: float = 10.0,
        grace: float = 2.0,
    ) -> None:
        self._max_restarts = max_restarts
        self._period = period
        self._boot_timeout = boot_timeout
        self._cool_down = cool_down
        self._health = health
        self._grace = grace
        self.state = SupervisionState.RUNNING
        #: the slots that there should be, numbered from 0 without a gap
        self._slots: dict[int, Slot] = {}
        #: every child that is not GONE; those in no slot are on their way out
        self._children: dict[int, ChildRecord] = {}
        #: number that the last child got
        self._last_child = 0
        #: when a slot's delay is over, by its index
        self._starts = Timers()
        #: when a child is killed: STARTING for too long, or STOPPING and still there
        self._kills = Timers()
        #: when unasked deaths happened, within the last `period`
        self._recent: deque[float] = deque()
        #: all unasked deaths
        self._deaths = 0
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

    def next_due(self) -> float | None:
        """Return when `time_passed` must be called next, None if it need not be."""
        times = [self._starts.next_due(), self._kills.next_due()]
        times += [self._cool_until, self._stop_deadline]
        first = min(when for when in times if when is not None)
        return None if first == inf else first

    def stats(self) -> SupervisionStats:
        """Return a snapshot."""
        states = [child.state for child in self._children.values()]
        return SupervisionStats(
            state=self.state,
            target=len(self._slots),
            starting=states.count(ChildState.STARTING),
            ready=states.count(ChildState.READY),
            retiring=states.count(ChildState.RETIRING),
            stopping=states.count(ChildState.STOPPING),
            waiting=len(self._starts),
            started=self._last_child,
            deaths=self._deaths,
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

    def scale_asked(self, count: int, now: float) -> list[SupervisionCommand]:
        """Bring the pool to `count` children; a pool that is stopping stays so."""
        commands: list[SupervisionCommand] = []
        if self.state is SupervisionState.STOPPING:
            return commands
        for index in range(count, len(self._slots)):
            self._starts.drop(index)
            self._empty(self._slots.pop(index), now, commands)
        for index in range(len(self._slots), count):
            self._slots[index] = Slot(index)
            self._fill(self._slots[index], now, commands)
        self._try_again(now, commands)
        return commands

    def child_ready(self, child: int, now: float) -> list[SupervisionCommand]:
        """Note that a child can work; a child that it replaces retires now."""
        record = self._child(child)
        commands: list[SupervisionCommand] = []
        if record.state is ChildState.STOPPING:
            return commands  # it was asked to leave while this was on its way
        record.move(ChildState.READY, now)
        record.ready_at = now
        self._kills.drop(child)
        self._ever_ready = True
        slot = self._slots[record.slot]
        if slot.successor is record:
            old, slot.current, slot.successor = slot.current, record, None
            slot.replacing = False
            self._dismiss(old, now, commands)
        if self.state is SupervisionState.FAILED:
            self._recover(now, commands)
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
        commands: list[SupervisionCommand] = []
        slot = self._slots.get(record.slot)
        if slot is None or not self._vacate(slot, record):
            return commands  # it was on its way out, and is not missed
        timed_out = before is ChildState.STOPPING  # else it would be in no slot
        if exit is Exit.UNASKED or timed_out:
            self._died(slot, record, reason, now, commands)
        else:
            self._fill(slot, now, commands)
            self._try_again(now, commands)  # it may have been a failed pool's try
        return commands

    def child_retire_asked(self, child: int, now: float) -> list[SupervisionCommand]:
        """Replace a child that is ready by a new one, and retire it after that.

        Nothing happens if it is on its way out, or its slot has trouble already.
        """
        record = self._child(child)
        commands: list[SupervisionCommand] = []
        slot = self._slots.get(record.slot)
        if (
            self.state is SupervisionState.RUNNING
            and record.state is ChildState.READY
            and slot is not None
            and not slot.replacing
        ):
            slot.replacing = True
            self._fill(slot, now, commands)
        return commands

    def stop_asked(self, deadline: float, now: float) -> list[SupervisionCommand]:
        """Let all children finish what they have and leave; wait until `deadline`.

        May be asked again, with another deadline.
        """
        self.state = SupervisionState.STOPPING
        self._stop_deadline = deadline
        self._cool_until = inf
        commands: list[SupervisionCommand] = []
        for slot in self._slots.values():
            self._starts.drop(slot.index)
            self._empty(slot, now, commands)
        self._slots.clear()
        self._lose_patience(now, commands)
        return commands

    def time_passed(self, now: float) -> list[SupervisionCommand]:
        """Do what has fallen due: starts, kills, ends of a cool-down or a deadline."""
        commands: list[SupervisionCommand] = []
        self._lose_patience(now, commands)
        while (number := self._kills.pop_due(now)) is not None:
            child = self._children[number]
            if child.state is ChildState.STARTING:
                why = f"not ready within {self._boot_timeout:g} s"
                child.move(ChildState.STOPPING, now, why)
            commands.append(KillChild(number))
        while (index := self._starts.pop_due(now)) is not None:
            self._fill(self._slots[index], now, commands)
        if self._cool_until <= now:
            self._cool_until = inf
            self._try_again(now, commands)
        return commands

    # Filling slots

    def _fill(self, slot: Slot, now: float, commands: list[SupervisionCommand]) -> None:
        """Start what the slot lacks, unless the pool has failed."""
        if self.state is not SupervisionState.RUNNING or slot.index in self._starts:
            return
        if slot.current is None:
            slot.current = self._start(slot, now, commands)
        elif slot.replacing and slot.successor is None:
            slot.successor = self._start(slot, now, commands)

    def _start(
        self, slot: Slot, now: float, commands: list[SupervisionCommand]
    ) -> ChildRecord:
        self._last_child += 1
        number = self._last_child
        child = self._children[number] = ChildRecord(number, slot.index, now)
        self._kills.set(number, now + self._boot_timeout)
        commands.append(StartChild(slot.index, number))
        return child

    def _vacate(self, slot: Slot, child: ChildRecord) -> bool:
        """Take a child that is GONE out of the slot; False if it was not in there."""
        if slot.successor is child:
            slot.successor = None
        elif slot.current is child:
            slot.current, slot.successor = slot.successor, None
            slot.replacing = False
        else:
            return False
        return True

    # Letting children go

    def _empty(
        self, slot: Slot, now: float, commands: list[SupervisionCommand]
    ) -> None:
        """Let the children of a slot go that is no more."""
        for child in (slot.successor, slot.current):
            self._dismiss(child, now, commands)

    def _dismiss(
        self,
        child: ChildRecord | None,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        """Let a child go: one that is ready may finish, one that is not has no work."""
        if child is None:
            return
        if child.state is ChildState.READY:
            child.move(ChildState.RETIRING, now)
            commands.append(RetireChild(child.number))
        elif child.state is ChildState.STARTING:
            self._terminate(child, now, commands)

    def _terminate(
        self, child: ChildRecord, now: float, commands: list[SupervisionCommand]
    ) -> None:
        child.move(ChildState.STOPPING, now)
        self._kills.set(child.number, now + self._grace)
        commands.append(TerminateChild(child.number))

    def _lose_patience(self, now: float, commands: list[SupervisionCommand]) -> None:
        """Terminate what is left once the deadline for stopping has passed."""
        if self._stop_deadline > now:
            return
        self._stop_deadline = inf
        for child in self._children.values():
            if child.state is not ChildState.STOPPING:
                self._terminate(child, now, commands)

    # Failure

    def _died(
        self,
        slot: Slot,
        child: ChildRecord,
        reason: str,
        now: float,
        commands: list[SupervisionCommand],
    ) -> None:
        """Fill the slot again, at once or later, or give up."""
        self._deaths += 1
        if not self._ever_ready:
            self._give_up(f"no process could start: {reason}", now, commands)
        elif self._too_many(now):
            count = f"unasked deaths within {self._period:g} s: {len(self._recent)}"
            self._give_up(f"{count}; the last one: {reason}", now, commands)
        else:
            healthy = now - child.ready_at >= self._health
            slot.failures = 1 if healthy else slot.failures + 1
            # One that never got ready is in no hurry: not even the first time.
            failures = slot.failures + (child.ready_at == inf)
            delay = restart_delay(failures, spread(slot.index, self._last_child))
            if delay > 0.0:
                self._starts.set(slot.index, now + delay)
            self._fill(slot, now, commands)

    def _too_many(self, now: float) -> bool:
        """Count a death; True if it is one too many, or the try of a failed pool."""
        recent = self._recent
        recent.append(now)
        while recent[0] <= now - self._period:
            recent.popleft()
        limit = self._max_restarts
        if limit is None:
            limit = max(5, 2 * len(self._slots))
        return len(recent) > limit or self.state is SupervisionState.FAILED

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

    def _try_again(self, now: float, commands: list[SupervisionCommand]) -> None:
        """Start one child of a failed pool, unless it is cooling down or trying."""
        if self.state is not SupervisionState.FAILED or self._cool_until != inf:
            return
        if self._is_trying():
            return
        empty = [slot for slot in self._slots.values() if slot.current is None]
        if empty:
            empty[0].current = self._start(empty[0], now, commands)
        else:
            self._recover(now, commands)

    def _is_trying(self) -> bool:
        """Tell whether a child of a slot is not ready yet, or never will be."""
        return any(
            child is not None and child.state is not ChildState.READY
            for slot in self._slots.values()
            for child in (slot.current, slot.successor)
        )

    def _recover(self, now: float, commands: list[SupervisionCommand]) -> None:
        """Fill all slots again: a child got ready, so the cause seems to be gone."""
        self.state = SupervisionState.RUNNING
        self._cool_until = inf
        self._recent.clear()
        for slot in self._slots.values():
            self._fill(slot, now, commands)

    # Self-check

    def check(self) -> None:
        """Assert every invariant.

        Raises:
            AssertionError: one does not hold, which is a bug of this package.
        """
        self._starts.check()
        self._kills.check()
        assert list(self._slots) == list(range(len(self._slots)))
        for slot in self._slots.values():
            self._check_slot(slot)
        for number, child in self._children.items():
            assert child.number == number
            assert child.state is not ChildState.GONE, child.story()
            if child.state in (ChildState.STARTING, ChildState.READY):
                slot = self._slots[child.slot]
                assert child in (slot.current, slot.successor), child.story()
            waits = child.state in (ChildState.READY, ChildState.RETIRING)
            assert not (waits and number in self._kills), child.story()
        assert set(self._kills) <= set(self._children)
        assert set(self._starts) <= set(self._slots)
        failed = self.state is SupervisionState.FAILED
        assert failed or self._cool_until == inf
        assert not failed or self._cool_until != inf or self._is_trying()
        assert not (self.state is SupervisionState.STOPPING and self._slots)

    def _check_slot(self, slot: Slot) -> None:
        for child in (slot.current, slot.successor):
            assert child is None or self._children[child.number] is child
        assert slot.successor is None or (slot.current and slot.replacing)
        if self.state is SupervisionState.RUNNING and slot.index not in self._starts:
            assert slot.current is not None
            assert slot.successor is not None or not slot.replacing

    def _child(self, number: int) -> ChildRecord:
        child = self._children.get(number)
        if child is None:
            text = f"child {number} is not known; please report this"
            raise InternalError(text, story=self.story(number))
        return child
