"""How many workers a pool should have, between two bounds.

    a job waits, and nobody comes for it    ──▶ more, up to twice as many at a time
    a worker has had no job for a while     ──▶ that one less

The measure for more is how long the oldest job has been waiting, not how many wait: a
thousand short jobs may be gone before a new worker is there. Workers that are starting
already count for one job each. The measure for less is the single worker: jobs go to
the one that was busy last, so those that are not needed stay idle.

Pure: the time and all figures come in as arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: seconds that a job waits for a worker before there is another one
GROW_AFTER = 0.02

# Looks at idle workers within `idle_timeout`; it may take longer by one of them.
_LOOKS = 4


class Elastic:
    """Decides about the size of one pool.

    Args:
        least: workers that there always are.
        most: workers that there may be.
        idle_timeout: seconds after which a worker without a job goes, if there are more
            than `least`.
    """

    __slots__ = ("_idle", "_idle_timeout", "_least", "_most", "target")

    def __init__(self, least: int, most: int, idle_timeout: float) -> None:
        self._least = least
        self._most = most
        self._idle_timeout = idle_timeout
        #: workers that there should be now
        self.target = least
        #: idle workers: when their last job began, and when they were first seen idle
        self._idle: dict[int, tuple[float, float]] = {}

    @property
    def may_grow(self) -> bool:
        """True while there may be more workers."""
        return self.target < self._most

    def bound(self, most: int) -> None:
        """Change the upper bound."""
        self._most = most
        self._least = min(self._least, most)
        self.target = min(self.target, most)

    def jobs_waited(self, jobs: int, longest: float, starting: int) -> bool:
        """Raise the target if that helps jobs that wait.

        Args:
            jobs: that no worker has.
            longest: seconds that the first of them has been waiting.
            starting: workers that are not ready yet.

        Returns:
            True if the target has changed.
        """
        wanted = jobs - starting
        if wanted <= 0 or not self.may_grow:
            return False
        if self.target > 0 and longest < GROW_AFTER:
            return False
        self.target = min(self.target + min(wanted, max(self.target, 1)), self._most)
        return True

    def workers_idled(self, idle: Mapping[int, float], now: float) -> list[int]:
        """Lower the target by the workers that have been idle for too long.

        Args:
            idle: workers that have no job, and when the last one that they had began.
            now: the time.

        Returns:
            The workers that should go.
        """
        before = self._idle
        self._idle = seen = {}
        for worker, since in idle.items():
            known = before.get(worker)
            same = known is not None and known[0] == since
            seen[worker] = known if known is not None and same else (since, now)
        limit = now - self._idle_timeout
        spare = [worker for worker, (_, first) in seen.items() if first <= limit]
        spare = spare[: max(self.target - self._least, 0)]
        self.target -= len(spare)
        return spare

    def next_look(self, jobs: int) -> float | None:
        """Return the seconds until the size should be looked at again, None for never.

        Args:
            jobs: that no worker has.
        """
        if jobs and self.may_grow:
            return GROW_AFTER
        if self.target > self._least:
            return self._idle_timeout / _LOOKS
        return None
