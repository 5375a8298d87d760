"""When a child has been used enough, and how soon that will be.

Limits are drawn once for each child, at its birth, a little below what the pool was
given: children that started together then do not reach them together. The draw only
lowers a limit, so that what the user said is never exceeded.

A worker counts and measures by itself and stops at its limit. Long before that, its
`Wear` tells when a successor must begin to start, so that it stands by in time.

Pure formulas; nothing here decides about a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from offloop.core.policies import spread

if TYPE_CHECKING:
    from offloop.options import Recycle

# The share by which a slower stretch pulls the estimated pace down. Slow on purpose:
# too early a successor costs some idle memory, too late a one costs time.
_DECAY = 1 / 16


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one child may use up before it is replaced.

    Attributes:
        jobs: that it may run; 0 for any number.
        age: seconds for which it may work.
        rss: bytes that it may hold; 0 for any number.
    """

    jobs: int = 0
    age: float = inf
    rss: int = 0

    def share(self, jobs: int, rss: int) -> float:
        """Return which share of the allowance is used up; 1.0 is all of it."""
        used = jobs / self.jobs if self.jobs else 0.0
        return max(used, rss / self.rss) if self.rss else used


def draw_allowance(recycle: Recycle | None, child: int) -> Allowance:
    """Return what the child with this number may use up."""
    if recycle is None:
        return Allowance()

    def draw(which: int) -> float:
        return 1.0 - recycle.jitter * spread(child, which)

    jobs, age, rss = recycle.max_jobs, recycle.max_age, recycle.max_rss
    return Allowance(
        jobs=max(int(jobs * draw(1)), 1) if jobs else 0,
        age=float(age) * draw(2) if age else inf,  # type: ignore[arg-type]
        rss=int(rss * draw(3)) if rss else 0,  # type: ignore[operator]
    )


class Wear:
    """How fast children of a slot use up their allowance: jumps up, sinks slowly.

    Only what lasts counts: the first job of a child may import libraries, which no
    later one does. One child's pace is the best guess for the next one's.
    """

    __slots__ = ("_at", "_gap", "_latest", "_pace", "_share", "last_look")

    def __init__(self) -> None:
        #: the latest share, and when it was seen
        self._share = 0.0
        self._at = 0.0
        #: seconds between the latest two looks
        self._gap = 0.0
        #: shares a second, between the latest two looks
        self._latest = 0.0
        #: shares a second
        self._pace = 0.0
        #: when it is time for the last look before all is used up; inf: nobody knows
        self.last_look = inf

    def renew(self, now: float) -> None:
        """Note that a fresh child works; it may be like the last one."""
        self._share = 0.0
        self._at = now
        self._look_ahead(now)

    def observe(self, share: float, now: float) -> None:
        """Note which share is used up."""
        elapsed = now - self._at
        if elapsed > 0.0:
            latest = (share - self._share) / elapsed
            pace = min(latest, self._latest)
            self._latest = latest
            if pace >= self._pace:
                self._pace = pace
            else:
                self._pace += (pace - self._pace) * _DECAY
            self._share = share
            self._at = now
            self._gap = elapsed
            self._look_ahead(now)

    def _look_ahead(self, now: float) -> None:
        """Find out when the last look will be, if looks come as they have come.

        A child is looked at when a job ends. While jobs take long, the look before the
        last one may be long before the end.
        """
        left = max(1.0 - self._share, 0.0)
        lasts = left / self._pace if self._pace > 0.0 else (inf if left else 0.0)
        self.last_look = now + lasts - self._gap
