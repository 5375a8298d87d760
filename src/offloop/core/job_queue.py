"""Jobs that wait: highest priority first, first come first served within one.

    priority 10   returned [4, 9]   line [31, 40, 41]
    priority  0   returned []       line [12, 13, 14, ...]

Each priority has a line, and before it the jobs that came back (a worker was lost or
gave them back, or a retry is due), ordered by number: they have had their turn already,
so they stand before those that have not. A line in which a job has a key serves its
keys in turn (`fair_line`). Pushing and taking cost the same with ten jobs as with a
million.

Nobody starves: of sixteen jobs, one is the one that has waited longest, if it has
waited for more than ten seconds. A priority that grew with the wait would not do: in a
long backlog it makes all jobs equal, and urgent ones wait like all others.

A job that is cancelled stays where it is, stale, recognised by its state, and is
dropped when its turn comes or when stale entries outnumber the others. This works
because a job that left QUEUED by any door but this queue has ended, and never comes
back.

This module never changes a job and never decides who gets it.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

from offloop.core.fair_line import FairLine
from offloop.core.job import JobState

if TYPE_CHECKING:
    from offloop.core.job import JobRecord

# Seconds of waiting after which a job of low priority gets a share of the turns, and
# the share: one turn of so many.
_PATIENCE = 10.0
_TURNS = 16

# Below this many stale entries a sweep costs more than it frees.
_SLACK = 64

_QUEUED = JobState.QUEUED


class _Level:
    """The jobs of one priority."""

    __slots__ = ("line", "priority", "returned")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        #: jobs that have not been sent yet, in order of arrival
        self.line: deque[JobRecord] | FairLine = deque()
        #: heap of jobs that came back, by number
        self.returned: list[tuple[int, JobRecord]] = []

    def since(self) -> float:
        """Return when the job was submitted whose turn it is."""
        first = self.returned[0][1] if self.returned else self.line[0]
        return first.submitted_at

    def sweep(self) -> None:
        """Drop the jobs that have ended."""
        self.returned = [job for job in self.returned if job[1].state is _QUEUED]
        heapify(self.returned)
        if isinstance(self.line, FairLine):
            self.line.sweep()
        else:
            self.line = deque(job for job in self.line if job.state is _QUEUED)


class JobQueue:
    """Holds the jobs that are QUEUED."""

    __slots__ = ("_chosen", "_levels", "_passed", "_priorities", "_stale", "waiting")

    def __init__(self) -> None:
        #: by priority; a level may hold stale jobs only, but is never empty
        self._levels: dict[int, _Level] = {}
        #: heap of the keys of `_levels`, negated, so that the highest is on top
        self._priorities: list[int] = []
        #: number of jobs that wait: entries whose job is QUEUED
        self.waiting = 0
        #: entries whose job has ended
        self._stale = 0
        #: level of the job that `first` has returned
        self._chosen: _Level
        #: turns of the highest priority, while there were others, since one of theirs
        self._passed = 0

    def push(self, job: JobRecord) -> None:
        """Add a new job, behind all others of its priority and key."""
        terms = job.terms
        level = self._levels.get(terms.priority)
        if level is None:
            level = self._open(terms.priority)
        if terms.key is not None and type(level.line) is deque:
            level.line = FairLine(level.line)
        level.line.append(job)
        self.waiting += 1

    def push_front(self, job: JobRecord) -> None:
        """Add a job that came back, before all of its priority that never left."""
        level = self._levels.get(job.terms.priority)
        if level is None:
            level = self._open(job.terms.priority)
        heappush(level.returned, (job.id, job))
        self.waiting += 1

    def first(self, now: float) -> JobRecord:
        """Return the job whose turn it is; it stays. The queue must not be empty."""
        while True:
            level = self._levels[-self._priorities[0]]
            if self._passed >= _TURNS - 1:
                level = self._starving(now, level)
            self._chosen = level
            returned = level.returned
            job = returned[0][1] if returned else level.line[0]
            if job.state is _QUEUED:
                return job
            self.pop_first()
            self.waiting += 1  # stale entries are counted apart
            self._stale -= 1

    def pop_first(self) -> None:
        """Take out the job that `first` has returned, whatever its state is now."""
        level = self._chosen
        if level.returned:
            heappop(level.returned)
        else:
            level.line.popleft()
        if len(self._priorities) > 1:
            is_top = level.priority == -self._priorities[0]
            self._passed = self._passed + 1 if is_top else 0
        if not level.line and not level.returned:
            self._close(level.priority)
        self.waiting -= 1

    def upcoming(self, count: int) -> list[JobRecord]:
        """Return up to `count` jobs in the order of their turns, at least the first.

        Call `first` before. It may be fewer than wait. They stay; `drop` takes them
        out.
        """
        level = self._chosen
        line = level.line
        if level.returned:
            return [level.returned[0][1]]
        if type(line) is not deque:
            return [line[0]]
        if len(self._priorities) > 1:  # the turn of one that starves may be near
            count = max(min(count, _TURNS - 1 - self._passed), 1)
        jobs = []
        for job in islice(line, count):
            if job.state is not _QUEUED:
                break
            jobs.append(job)
        return jobs

    def drop(self, count: int) -> None:
        """Take out the first `count` jobs of what `upcoming` has returned."""
        for _ in range(count):
            self.pop_first()

    def discard(self, job: JobRecord) -> None:
        """Note that a job of this queue has ended; it never comes to its turn."""
        assert job.state is not _QUEUED
        self.waiting -= 1
        self._stale += 1
        if self._stale > self.waiting + _SLACK:
            self._sweep()

    def jobs(self) -> list[JobRecord]:
        """Return the jobs in the order of their turns, but for keys and long waits."""
        order = []
        for priority in sorted(self._levels, reverse=True):
            level = self._levels[priority]
            order += [job for _, job in sorted(level.returned)]
            order += level.line
        return [job for job in order if job.state is _QUEUED]

    def check(self) -> None:
        """Assert the invariants."""
        assert self._stale <= self.waiting + _SLACK, "stale jobs pile up"
        assert self.waiting == len(self.jobs())
        levels = self._levels.values()
        held = sum(len(level.line) + len(level.returned) for level in levels)
        assert held == self.waiting + self._stale
        assert all(level.line or level.returned for level in levels)
        assert sorted(self._priorities) == sorted(-key for key in self._levels)
        for level in levels:
            if isinstance(level.line, FairLine):
                level.line.check()

    def _starving(self, now: float, highest: _Level) -> _Level:
        """Return the level of the job that has waited longest, if that is long."""
        oldest = min(self._levels.values(), key=_Level.since)
        if now - oldest.since() > _PATIENCE:
            return oldest
        self._passed = 0
        return highest

    def _open(self, priority: int) -> _Level:
        heappush(self._priorities, -priority)
        level = self._levels[priority] = _Level(priority)
        return level

    def _close(self, priority: int) -> None:
        del self._levels[priority]
        if -priority == self._priorities[0]:
            heappop(self._priorities)
        else:
            self._priorities.remove(-priority)
            heapify(self._priorities)

    def _sweep(self) -> None:
        for level in self._levels.values():
            level.sweep()
        self._levels = {
            priority: level
            for priority, level in self._levels.items()
            if level.line or level.returned
        }
        self._priorities = [-priority for priority in self._levels]
        heapify(self._priorities)
        self._stale = 0


class Arrivals(list["JobRecord"]):
    """New jobs that wait for the end of their turn, and never saw the queue.

    The face of `JobQueue` that sending needs, for less.
    """

    __slots__ = ()

    #: number of jobs that wait; so it costs no frame
    waiting = property(list.__len__)

    def mixed(self) -> bool:
        """Tell whether only the queue knows whose turn it is.

        That is so when priorities differ, or some have a key or a limit. There must be
        a job.
        """
        first = self[0].terms
        for job in self:
            terms = job.terms
            if terms is not first and (terms.odd or terms.priority != first.priority):
                return True
        return first.odd

    def first(self, now: float) -> JobRecord:
        """Return the job whose turn it is; it stays."""
        return self[0]

    def pop_first(self) -> None:
        """Take out the job that `first` has returned."""
        del self[0]

    def upcoming(self, count: int) -> list[JobRecord]:
        """Return up to `count` jobs in the order of their turns; they stay."""
        return self[:count]

    def drop(self, count: int) -> None:
        """Take out the first `count` jobs."""
        del self[:count]
