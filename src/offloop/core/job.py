"""One job's life: its states, the table of allowed moves, and the record.

           submitted
               │
               ▼   dispatch          result
    ┌────── QUEUED ────────▶ SENT ─────────▶ DONE
    │          ▲  ▲           │ │
    │      due │  │ returned, │ │ error, worker lost,
    │          │  └───────────┘ │ timeout, poison
    │       DELAYED ◀───────────┤──────────▶ FAILED
    │          │      retry     │
    └──────────┴────────────────┴──────────▶ CANCELLED

A pair that is not in `MOVES` is a bug, reported as `InternalError` with the story.
This module never decides which move to make, and never looks at a clock: that is the
scheduler's.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING, Any

from offloop.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import TypeAlias

    from offloop.core.limits import ConcurrencyLimit
    from offloop.core.policies import RunTime

    #: number, state and worker of a job, times, counts, and its unusual moves
    Facts: TypeAlias = tuple[
        int,
        "JobState",
        int | None,
        tuple[float, float],
        tuple[int, int, int],
        list[tuple[float, str]] | None,
    ]


class JobState(enum.Enum):
    """Where a job stands; the last three are endings."""

    #: states that may follow, as in `MOVES`
    next: tuple[JobState, ...]

    # Enum hashes the member's name in Python, at every look into MOVES; identity does.
    __hash__ = object.__hash__

    QUEUED = "queued"
    DELAYED = "delayed"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Ending(enum.Enum):
    """Why a job ended: what the shell needs to build its result or its error."""

    __hash__ = object.__hash__  # see JobState

    RESULT = "result"
    ERROR = "error"
    TIMEOUT = "timeout"
    RUN_TIMEOUT = "run_timeout"
    LOST = "lost"
    POISON = "poison"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


#: which state may follow which; README.md prints the same table with the reasons
MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.SENT, JobState.FAILED, JobState.CANCELLED}),
    JobState.DELAYED: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SENT: frozenset(
        {
            JobState.QUEUED,
            JobState.DELAYED,
            JobState.DONE,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


# The same where a move looks for it, without hashing: each job makes two.
for _state, _next in MOVES.items():
    _state.next = tuple(_next)

_QUEUED = JobState.QUEUED


class Terms:
    """What all jobs have in common that call one function with the same options.

    Args:
        cost: what is known of the function's run time.
        priority: higher runs first.
        run_timeout: seconds that one run may take, from its start in the worker; inf:
            any.
        retries: further attempts after a lost worker or a retryable error.
        on_cancel: "stop", "kill" or "finish": what a cancellation does to a running
            job.
        key: whose jobs they are, for fair shares among keys; None: nobody's in
            particular.
        limit: how many of them may run at once; None: any number.
    """

    __slots__ = (
        "cost",
        "key",
        "limit",
        "odd",
        "on_cancel",
        "priority",
        "retries",
        "run_timeout",
    )

    def __init__(
        self,
        cost: RunTime,
        priority: int = 0,
        run_timeout: float = inf,
        retries: int = 0,
        on_cancel: str = "stop",
        key: Hashable = None,
        limit: ConcurrencyLimit | None = None,
    ) -> None:
        self.cost = cost
        self.priority = priority
        self.run_timeout = run_timeout
        self.retries = retries
        self.on_cancel = on_cancel
        self.key = key
        self.limit = limit
        #: only the queue knows whose turn it is
        self.odd = key is not None or limit is not None


class JobRecord:
    """What the scheduler knows of one job, from submission to its only ending.

    A shell may add what it needs in a subclass; nothing here looks at that.
    """

    __slots__ = (
        "attempts",
        "charge",
        "deadline",
        "handle",
        "history",
        "id",
        "kills",
        "retried",
        "returned_at",
        "run_time",
        "sent_at",
        "size",
        "state",
        "submitted_at",
        "terms",
        "worker",
    )

    #: seconds by which it fills its worker's inbox; set when it is sent
    charge: float

    def __init__(
        self, id: int, terms: Terms, handle: Any = None, deadline: float = inf
    ) -> None:
        #: unique within the scheduler, grows with every submission
        self.id = id
        self.terms = terms
        #: what waits for the ending (a future), opaque here; belongs to the shell
        self.handle = handle
        #: absolute time by which the job must have ended; inf: never
        self.deadline = deadline
        #: bytes that it keeps in memory while it is pending, if they are counted
        self.size = 0
        #: changes only along MOVES
        self.state = _QUEUED
        #: number of the worker that has it, or had it last; None before
        self.worker: int | None = None
        #: runs that have begun, as far as their end was heard of
        self.attempts = 0
        #: workers that died while they ran it
        self.kills = 0
        #: further attempts that were made, or are to be made, of `terms.retries`
        self.retried = 0
        #: when it came to the scheduler, when it last left for a worker, and when its
        #: ending arrived; 0.0 before
        self.submitted_at = self.sent_at = self.returned_at = 0.0
        #: seconds that its last run took in the worker
        self.run_time = 0.0
        #: moves out of the ordinary, for story(); None until there is one
        self.history: list[tuple[float, str]] | None = None

    @property
    def closes(self) -> bool:
        """True if it rests now and then, and can be ended there without any harm."""
        return False

    @property
    def retries(self) -> int:
        """Further attempts that are left after a lost worker or a retryable error."""
        return self.terms.retries - self.retried

    def move(self, state: JobState) -> None:
        """Change the state along `MOVES`.

        The two moves that every job makes are written out where many make them at once:
        QUEUED to SENT in `Dispatch`, SENT to DONE in `Ledger.settle_results`. No other
        line of offloop sets it.

        Raises:
            InternalError: the table does not have this move.
        """
        if state not in self.state.next:
            raise InternalError(
                f"job {self.id} cannot go from {self.state.name} to {state.name}",
                story=self.story(),
            )
        self.state = state

    def note(self, now: float, text: str) -> None:
        """Keep a line for `story`; for what does not happen to every job."""
        if self.history is None:
            self.history = []
        self.history.append((now, text))

    def story(self) -> str:
        """Return in one line what is known of the job, its unusual moves last."""
        return told(self.facts())

    def facts(self) -> Facts:
        """Return what `told` makes a story of: a text costs ten times as much."""
        counts = self.attempts, self.retries, self.kills
        times = self.submitted_at, self.sent_at
        return self.id, self.state, self.worker, times, counts, self.history


def told(facts: Facts) -> str:
    """Return in one line what was known of a job when its facts were noted."""
    job, state, worker, (submitted_at, sent_at), counts, history = facts
    attempts, retries, kills = counts
    waits = state in (JobState.QUEUED, JobState.DELAYED)
    place = "" if waits or worker is None else f" (worker {worker})"
    parts = [
        f"job {job} is {state.name}{place}",
        f"submitted at {submitted_at:.3f}",
        f"last sent at {sent_at:.3f}",
        f"attempts {attempts}, retries {retries}, kills {kills}",
    ]
    parts += [f"{when:.3f} {text}" for when, text in history or ()]
    return "; ".join(parts)
