"""A process in the eyes of supervision, and the figures of all of them.

    STARTING ──▶ STANDBY ──▶ READY ──▶ RETIRING ──▶ STOPPING ──▶ GONE
        └───────────┴──────────┴───────────┴────────────┘ ▲
                    any may be skipped ───────────────────┘

A child that replaces another one stands by until the other one leaves: it could work,
and is not given any.

This module holds the words and figures of supervision, and never decides.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from offloop.errors import InternalError

if TYPE_CHECKING:
    from offloop.core.recycling import Allowance


class ChildState(enum.Enum):
    """Where a child stands in its life."""

    STARTING = "starting"
    STANDBY = "standby"
    READY = "ready"
    RETIRING = "retiring"
    STOPPING = "stopping"
    GONE = "gone"


#: these can work
ABLE = (ChildState.STANDBY, ChildState.READY)

#: which state may follow which; README.md prints the same table with the reasons
CHILD_MOVES: dict[ChildState, frozenset[ChildState]] = {
    ChildState.STARTING: frozenset(
        {
            ChildState.STANDBY,
            ChildState.READY,
            ChildState.STOPPING,
            ChildState.GONE,
        }
    ),
    ChildState.STANDBY: frozenset(
        {
            ChildState.READY,
            ChildState.RETIRING,
            ChildState.STOPPING,
            ChildState.GONE,
        }
    ),
    ChildState.READY: frozenset(
        {ChildState.RETIRING, ChildState.STOPPING, ChildState.GONE}
    ),
    ChildState.RETIRING: frozenset({ChildState.STOPPING, ChildState.GONE}),
    ChildState.STOPPING: frozenset({ChildState.GONE}),
    ChildState.GONE: frozenset(),
}


class ChildRecord:
    """What is known of one process, from StartChild to `child_exited`."""

    __slots__ = (
        "allowance",
        "ended_at",
        "history",
        "number",
        "ready_at",
        "slot",
        "started_at",
        "state",
    )

    def __init__(
        self, number: int, slot: int, allowance: Allowance, now: float
    ) -> None:
        #: unique within the pool, grows with every start
        self.number = number
        #: number of the slot that it was started for
        self.slot = slot
        #: changes only along CHILD_MOVES
        self.state = ChildState.STARTING
        #: what it may use up before it is replaced
        self.allowance = allowance
        #: when it was asked for
        self.started_at = now
        #: when it could work; inf before
        self.ready_at = inf
        #: when it ended; inf before
        self.ended_at = inf
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
        starting, standby, ready, retiring, stopping: children by state.
        waiting: slots that wait for the end of a delay.
        started: children that were started.
        deaths: children that ended unasked and without a job to blame.
    """

    state: SupervisionState
    target: int
    starting: int
    standby: int
    ready: int
    retiring: int
    stopping: int
    waiting: int
    started: int
    deaths: int
