"""What a pool and its workers are and have done, at one moment.

Plain records that an engine fills in and hands out; nothing here changes by itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from offloop.telemetry.tallies import FunctionStats


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool is doing and has done, at one moment.

    Attributes:
        workers: processes that are ready for jobs.
        busy: workers that have at least one job.
        idle: workers that have none.
        queued: jobs that wait for a worker.
        in_flight: jobs that a worker has, running or in its inbox.
        pending: jobs that have not ended.
        pending_bytes: bytes of their arguments; counted with `max_pending_bytes` only.
        arena_used: bytes of shared memory that large arguments take.
        arena_limit: bytes that they may take; 0 where they take none.
        submitted: jobs accepted since the start.
        completed: jobs that ended with a result.
        failed: jobs that ended with an error of the function or of its result.
        cancelled: jobs that were cancelled.
        timed_out: jobs that ended by timeout or run_timeout.
        lost: jobs that ended because their worker did.
        retried: further attempts begun.
        refused: calls for which there was no room.
        workers_lost: workers that ended unasked.
        workers_started: workers started since the start of the pool.
        exits: workers that have ended, by reason: "crashed", "out-of-memory",
            "start-failed", "forkserver-lost", "timed-out", "cancelled",
            "recycled-jobs", "recycled-age", "recycled-memory", "reloaded",
            "scaled-down", "shutdown".
        functions: what has become of the calls of each function, and how long they
            took, by its name; those that come when there are many count as "(others)".
        failure: why workers cannot be kept alive, in words; "" while they can. A pool
            that has failed starts none, and tries one of them a minute later.
    """

    workers: int = 0
    busy: int = 0
    idle: int = 0
    queued: int = 0
    in_flight: int = 0
    pending: int = 0
    pending_bytes: int = 0
    arena_used: int = 0
    arena_limit: int = 0
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    lost: int = 0
    retried: int = 0
    refused: int = 0
    workers_lost: int = 0
    workers_started: int = 0
    exits: Mapping[str, int] = field(default_factory=dict)
    functions: Mapping[str, FunctionStats] = field(default_factory=dict)
    failure: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return all figures by name, for JSON."""
        functions = {name: one.as_dict() for name, one in self.functions.items()}
        return {**self.totals(), "functions": functions}

    def __add__(self, other: PoolStats) -> PoolStats:
        """Return the figures of both together."""
        found: dict[str, Any] = {}
        for one in fields(self):
            ours, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(ours, int):
                found[one.name] = ours + theirs
            elif isinstance(ours, str):
                found[one.name] = ours or theirs
            else:
                both = {**ours, **theirs}
                shared = ours.keys() & theirs.keys()
                both |= {name: ours[name] + theirs[name] for name in shared}
                found[one.name] = both
        return PoolStats(**found)

    def totals(self) -> dict[str, Any]:
        """Return the figures of the pool as a whole by name, for JSON."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        del found["functions"]
        return {**found, "exits": dict(self.exits)}


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What one worker is, and what it is doing at one moment.

    Attributes:
        worker: its number in the pool, never used again.
        slot: its place in the pool, which outlives it; one that is about to take the
            place of another has the same. Spares have none: -1.
        pid: its process id; None until it is known.
        state: "starting", "standby" (ready, and not needed yet), "idle", "busy",
            "retiring" (it gets no more jobs) or "stopping".
        seconds: since it was asked for.
        jobs: that it has, the running one included.
        job: number of the job that it runs; None if it runs none.
        function: name of that job's function; "" if it runs none.
        running: seconds for which that job has been running.
        results_bytes: of shared memory with large results that it keeps.
    """

    worker: int
    slot: int
    pid: int | None
    state: str
    seconds: float
    jobs: int
    job: int | None
    function: str
    running: float
    results_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return all of that by name, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WorkerDump:
    """What one worker was doing at one moment.

    Attributes:
        worker: number of the worker in its pool.
        pid: its process id.
        job: number of the job that it ran; None if it had none.
        function: name of the job's function; "" if it had none.
        seconds: for how long the job had been running.
        traceback: of each of its threads, the latest call first.
    """

    worker: int
    pid: int
    job: int | None
    function: str
    seconds: float
    traceback: str

    def __str__(self) -> str:
        head = f"worker {self.worker} (pid {self.pid})"
        if self.job is None:
            what = "is idle"
        else:
            what = (
                f"has been running job {self.job} ({self.function}) for "
                f"{self.seconds:.3f} s"
            )
        return f"{head} {what}\n{self.traceback}"
