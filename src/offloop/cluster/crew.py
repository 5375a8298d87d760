"""Starts, watches and stops children of one kind, as `core.supervision` decides.

    primary ◀─ equip, changed, say, ... ─┐
       │                                 │
       └─ scale, replace, dismiss ───▶ Crew ───▶ Offspring, Offspring, ...

This is a shell of the supervision machine, as the supervisor of a pool's workers is:
it performs its commands and tells it what became of them. It has no opinion on
restarts, and does not know what its children do.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from offloop import messages
from offloop.cluster.logs import Lines
from offloop.cluster.offspring import Offspring
from offloop.core.commands import (
    EmployChild,
    GiveUp,
    KillChild,
    RetireChild,
    StartChild,
    TerminateChild,
)
from offloop.core.exits import Exit, ExitReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from offloop.cluster.logs import Printer
    from offloop.core.supervision import Supervision

# Signals that processes hardly ever send to themselves: somebody wanted its end.
_DEADLY = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")

# Seconds after which a child is killed that should have gone by its own deadline.
_OVERTIME = 5.0

# Seconds that what a dead child has left behind gets to tidy up: a forkserver of its
# removes its folder.
_LINGER = 0.25

# Ends that are remembered.
_ENDS = 32


class Conductor(Protocol):
    """What a crew needs of the one that it works for."""

    def equip(self, child: Offspring) -> tuple[dict[str, Any], Sequence[int]]:
        """Return settings and files of a child that is about to begin."""

    def heard(self, child: Offspring, kind: int, details: Sequence[Any]) -> None:
        """Take what a child says that is not for its crew."""

    def has_worked(self, child: Offspring) -> bool:
        """Tell whether a child has ever done what it is for."""

    def child_ended(self, child: Offspring) -> None:
        """Take leave of a child."""

    def changed(self) -> None:
        """Look at the crew: something has changed."""

    def gave_up(self, crew: Crew, reason: str) -> None:
        """No child of this crew can be had for now."""

    def say(self, text: str) -> None:
        """Tell people something."""


class Crew:
    """Keeps the wanted number of children of one kind alive.

    Args:
        role: "server" or "coordinator".
        supervision: its machine.
        conductor: is told what happens.
        environment: of the children.
        graceful: seconds that a child gets to end what it does.
        printer: of what they write.
    """

    def __init__(
        self,
        role: str,
        supervision: Supervision,
        conductor: Conductor,
        environment: Mapping[str, str],
        graceful: float,
        printer: Printer,
    ) -> None:
        self.role = role
        self.supervision = supervision
        self._conductor = conductor
        self._environment = environment
        self._graceful = graceful
        self._printer = printer
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        #: children that live, by number
        self.children: dict[int, Offspring] = {}
        #: dead ones whose group may not be empty yet
        self._dead: dict[Offspring, asyncio.TimerHandle] = {}
        #: what is killed if it does not go
        self._overtime: dict[Offspring, asyncio.TimerHandle] = {}
        self._trials = 0
        #: all go, and there will be no others
        self.dismissed = False
        #: nobody else does what this crew did, once it is dismissed
        self._last = True
        #: a child has been ready once
        self.ever_ready = False
        #: why no child can be had; "" while they can
        self.failure = ""
        #: children that have ended before they were ready
        self.start_failures = 0
        #: the latest ends, as plain values
        self.ends: deque[dict[str, Any]] = deque(maxlen=_ENDS)

    @property
    def working(self) -> list[Offspring]:
        """Children that have a place and do what they are for, by slot."""
        works = self.supervision.works
        found = [child for child in self.children.values() if works(child.number)]
        return sorted(found, key=lambda child: child.slot)

    @property
    def gone(self) -> bool:
        """True once nothing of it is left."""
        return not (self.children or self._dead)

    def scale(self, count: int) -> None:
        """Want so many children from now on."""
        self._perform(self.supervision.scale_asked(count, time.monotonic()))

    def replace(self, child: Offspring, reason: ExitReason) -> None:
        """Have a child replaced by a new one that is ready before it goes."""
        now, number = time.monotonic(), child.number
        self._perform(self.supervision.child_retire_asked(number, reason, now))

    def look_at_use(self, used: Callable[[Offspring], tuple[int, int]]) -> None:
        """Replace a child that has been used enough; one at a time.

        Args:
            used: returns the requests that a child has answered, and the bytes that it
                holds.
        """
        for child in self.working:
            requests, memory = used(child)
            now, number = time.monotonic(), child.number
            self._perform(self.supervision.child_used(number, requests, memory, now))
            most, largest = child.limits
            starting = self.supervision.stats().starting
            if most and requests >= most and not starting:
                self.replace(child, ExitReason.RECYCLED_JOBS)
            elif largest and memory >= largest and not starting:
                self.replace(child, ExitReason.RECYCLED_MEMORY)

    def dismiss(self, seconds: float, *, others: bool = False) -> None:
        """Want no child any more.

        Args:
            seconds: after which those that are still there are ended.
            others: there are children of another primary, which do the same.
        """
        self.dismissed = True
        self._last = not others
        now = time.monotonic()
        self._perform(self.supervision.stop_asked(now + seconds, now))

    def kill(self, numbers: Iterable[int] | None = None) -> None:
        """End children at once, by default all."""
        for number in list(self.children if numbers is None else numbers):
            child = self.children[number]
            child.reason = child.reason or ExitReason.SHUTDOWN
            child.send_signal(signal.SIGKILL)

    # A child that is only tried

    def try_child(self) -> Offspring:
        """Return a new child that is not one of the crew.

        Raises:
            OSError: it cannot be started.
        """
        self._trials += 1
        return self._spawn(-1, -self._trials)

    def end_trial(self, child: Offspring) -> None:
        """Send a child away that was tried."""
        child.reason = ExitReason.RELOADED
        if child.ready:
            child.tell((messages.RETIRE, 0.0, False))
            self._set_overtime(child, 0.0)
        else:
            child.send_signal(signal.SIGKILL)

    # Performing what the machine asks for

    def _perform(self, commands: Sequence[Any]) -> None:
        for command in commands:
            match command:
                case StartChild(slot=slot, child=number):
                    self._start(slot, number, (command.max_jobs, command.max_rss))
                case EmployChild(child=number):
                    self.children[number].tell((messages.EMPLOY,))
                case RetireChild(child=number, reason=reason):
                    self._retire(self.children[number], reason)
                case TerminateChild(child=number, reason=reason):
                    self._end(self.children[number], reason, signal.SIGTERM)
                case KillChild(child=number, reason=reason):
                    self._end(self.children[number], reason, signal.SIGKILL)
                case GiveUp(reason=reason):
                    self.failure = reason
                    self._conductor.gave_up(self, reason)
        self._arm()
        self._conductor.changed()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.supervision.next_due()
        if due is not None:
            delay = max(due - time.monotonic(), 0.0)
            self._timer = self._loop.call_later(delay, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self._perform(self.supervision.time_passed(time.monotonic()))

    def _start(self, slot: int, number: int, limits: tuple[int, int]) -> None:
        try:
            self._spawn(slot, number).limits = limits
        except OSError as error:
            self._conductor.say(f"no {self.role} can be started: {error}")
            # Later: the machine is in the middle of a decision.
            self._loop.call_soon(self._never_was, number, str(error))

    def _never_was(self, number: int, why: str) -> None:
        now = time.monotonic()
        self._perform(self.supervision.child_exited(number, Exit.UNASKED, why, now))

    def _spawn(self, slot: int, number: int) -> Offspring:
        child = Offspring(
            self.role, number, slot, self._environment, self._hear, self._ended
        )
        label = slot if number > 0 else None
        role = self.role if number > 0 else f"new {self.role}"
        tell = partial(self._printer.print, role, label, child.pid)
        child.lines = Lines(child.output, tell)
        self.children[number] = child
        child.begin(*self._conductor.equip(child))
        return child

    def _retire(self, child: Offspring, reason: ExitReason) -> None:
        child.reason = child.reason or reason
        seconds = self._graceful
        child.tell((messages.RETIRE, seconds, self.dismissed and self._last))
        self._set_overtime(child, seconds)

    def _set_overtime(self, child: Offspring, seconds: float) -> None:
        delay = seconds + _OVERTIME
        timer = self._loop.call_later(delay, child.send_signal, signal.SIGKILL)
        self._overtime[child] = timer

    def _end(self, child: Offspring, reason: ExitReason, number: int) -> None:
        child.reason = child.reason or reason
        child.send_signal(number)

    # What children say and do

    def _hear(self, child: Offspring, kind: int, *details: Any) -> None:
        if kind == messages.READY:
            child.ready_at = time.monotonic()
            if child.number > 0:
                self.failure = ""
                self.ever_ready = True
                commands = self.supervision.child_ready(child.number, child.ready_at)
                self._perform(commands)
            else:
                self._conductor.changed()
        elif kind == messages.LEAVING:
            (child.ending,) = details
        elif kind == messages.CLOSED:
            child.closed = True
            self._conductor.changed()
        else:
            self._conductor.heard(child, kind, details)

    def _ended(self, child: Offspring) -> None:
        exit = child.exit
        assert exit is not None
        del self.children[child.number]
        overtime = self._overtime.pop(child, None)
        if overtime is not None:
            overtime.cancel()
        self._dead[child] = self._loop.call_later(_LINGER, self._bury, child)
        kind = self._kind_of(child)
        self._remember(child, kind)
        self._conductor.child_ended(child)
        if child.number > 0:
            now, text = exit.ended_at, str(exit)
            self._perform(self.supervision.child_exited(child.number, kind, text, now))
        else:
            self._conductor.changed()

    def _kind_of(self, child: Offspring) -> Exit:
        """Return what the end of a child counts for."""
        assert child.exit is not None
        if child.reason is not None or (child.ending and child.exit.code == 0):
            return Exit.WANTED
        # Somebody may kill servers as often as he likes, if they get something done.
        killed = child.exit.signal in _DEADLY and child.ready
        if killed and self._conductor.has_worked(child):
            return Exit.WANTED
        return Exit.UNASKED

    def _remember(self, child: Offspring, kind: Exit) -> None:
        exit = child.exit
        assert exit is not None
        if child.reason is not None:
            reason = child.reason.value
        elif not child.ready:
            self.start_failures += child.number > 0
            reason = ExitReason.START_FAILED.value
        else:
            reason = child.ending or ExitReason.CRASHED.value
        self.ends.append(
            {
                "at": time.time(),
                "role": child.role,
                "slot": child.slot,
                "pid": child.pid,
                "reason": reason,
                "exitcode": exit.exitcode,
                "signal": exit.signal,
                "seconds": exit.ended_at - child.made_at,
                "counted": kind is Exit.UNASKED,
                "output": exit.output,
            }
        )
        if child.number > 0 and child.reason is None:
            self._conductor.say(
                f"{child.role} {child.slot} (pid {child.pid}) {exit}: {reason}"
            )

    def _bury(self, child: Offspring) -> None:
        del self._dead[child]
        child.bury()
        self._conductor.changed()
