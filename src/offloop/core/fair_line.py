"""The jobs of one priority when they have keys: each key gets its share of the time.

    share   0.31  "a"   [4, 9, 12]      ◀─ next: it has had the least
            0.33  "b"   [5]
            0.90  None  [6, 7, 8, ...]     jobs without a key share among themselves

Start-time fair queueing (Goyal, Vin and Chen, 1996): a key's share grows by what its
job is expected to take when that is sent, and the key with the smallest share is next.
A key that comes anew begins at the share that is being served, so that nobody saves up
turns by staying away; one that comes back begins where it left off, if that is later.

It looks like a deque to its queue, and knows nothing of priorities or workers.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from offloop.core.job import JobState

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from offloop.core.job import JobRecord

# What a job of a function that was never measured counts, in seconds: with nothing
# known, keys take turns.
_LEAST_COST = 1e-6

# Below this many shares of keys that have gone a sweep costs more than it frees.
_SLACK = 64

_QUEUED = JobState.QUEUED
_SENT = JobState.SENT


class FairLine:
    """Jobs in turns between their keys; within a key first come, first served.

    Args:
        jobs: those that are in it from the start.
    """

    __slots__ = ("_clock", "_gone", "_lanes", "_number", "_order")

    def __init__(self, jobs: Iterable[JobRecord] = ()) -> None:
        #: jobs by key; no lane is empty
        self._lanes: dict[Hashable, deque[JobRecord]] = {}
        #: heap of (share, number, key), one for each lane; numbers break ties in turn
        self._order: list[tuple[float, int, Hashable]] = []
        #: number of the latest entry in `_order`
        self._number = 0
        #: share of the key that was served last; never falls
        self._clock = 0.0
        #: shares of keys whose lane is gone, where they were above the clock then
        self._gone: dict[Hashable, float] = {}
        for job in jobs:
            self.append(job)

    def __bool__(self) -> bool:
        """Tell whether there is any job."""
        return bool(self._order)

    def __len__(self) -> int:
        """Return the number of jobs."""
        return sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[JobRecord]:
        """Go through the jobs, key by key."""
        for lane in self._lanes.values():
            yield from lane

    def __getitem__(self, index: int) -> JobRecord:
        """Return the job whose turn it is; `index` is 0."""
        return self._lanes[self._order[0][2]][index]

    def append(self, job: JobRecord) -> None:
        """Add a job behind the others of its key."""
        key = job.terms.key
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = deque()
            share = max(self._clock, self._gone.pop(key, 0.0))
            self._number += 1
            heappush(self._order, (share, self._number, key))
        lane.append(job)

    def popleft(self) -> JobRecord:
        """Take out the job whose turn it is; it counts for its key if it was sent."""
        share, _, key = self._order[0]
        lane = self._lanes[key]
        job = lane.popleft()
        self._clock = share
        if job.state is _SENT:
            share += max(job.terms.cost.likely, _LEAST_COST)
        if lane:
            self._number += 1
            heapreplace(self._order, (share, self._number, key))
        else:
            heappop(self._order)
            self._leave(key, share)
        return job

    def sweep(self) -> None:
        """Drop the jobs that have ended."""
        for key, lane in list(self._lanes.items()):
            kept = deque(job for job in lane if job.state is _QUEUED)
            if kept:
                self._lanes[key] = kept
            else:
                del self._lanes[key]
        self._order = [entry for entry in self._order if entry[2] in self._lanes]
        heapify(self._order)

    def check(self) -> None:
        """Assert the invariants."""
        assert all(self._lanes.values()), "an empty lane"
        keys = [key for _, _, key in self._order]
        assert len(keys) == len(set(keys))
        assert set(keys) == set(self._lanes)
        assert all(share >= self._clock for share, _, _ in self._order)
        assert not set(self._gone) & set(self._lanes)
        assert len(self._gone) <= len(self._lanes) + _SLACK

    def _leave(self, key: Hashable, share: float) -> None:
        del self._lanes[key]
        if share > self._clock:
            self._gone[key] = share
        if len(self._gone) > len(self._lanes) + _SLACK:
            # The clock has passed most of them. Of the rest, which came and went in
            # one breath, the newest are worth remembering.
            later = {k: s for k, s in self._gone.items() if s > self._clock}
            self._gone = dict(list(later.items())[-_SLACK // 2 :])
