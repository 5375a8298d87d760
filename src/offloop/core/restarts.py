"""Which deaths are mended, and how soon: a budget for the pool, a delay for each slot.

The budget counts over a window for the whole pool, so slots that die in turns cannot
hide; the delay grows with each death of one slot until a child has proven its health.
Limits and delays as the best supervisors have them: a rate over a period (Erlang/OTP),
exponential delays with full jitter, and no reset by a life that was merely not short.

Pure counting; nothing here decides what a death means.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from offloop.core.policies import restart_delay, spread

if TYPE_CHECKING:
    from offloop.core.children import ChildRecord
    from offloop.core.slots import Slot

# Health is proven after this many start-ups, or `health` seconds if those are more.
_PROOF_STARTS = 10


class Restarts:
    """Counts unasked deaths.

    Args:
        limit: deaths that are mended within `period`; None: twice as many as there are
            slots, and at least 5.
        period: seconds over which they are counted.
        health: seconds that a child must have been able to work to be called healthy.
    """

    __slots__ = ("_health", "_limit", "_recent", "deaths", "period")

    def __init__(self, limit: int | None, period: float, health: float) -> None:
        self._limit = limit
        self._health = health
        self.period = period
        #: when deaths happened, within the last `period`
        self._recent: deque[float] = deque()
        #: all of them
        self.deaths = 0

    @property
    def recent(self) -> int:
        """Deaths within the last period, as of the latest one."""
        return len(self._recent)

    def count(self, slots: int, now: float) -> bool:
        """Count a death in a pool of so many slots; True if it is one too many."""
        recent = self._recent
        recent.append(now)
        while recent[0] <= now - self.period:
            recent.popleft()
        limit = max(5, 2 * slots) if self._limit is None else self._limit
        return len(recent) > limit

    def forget(self) -> None:
        """Begin a new window: the cause of the deaths is gone."""
        self._recent.clear()

    def delay(self, slot: Slot, child: ChildRecord, boot: float) -> float:
        """Return the seconds until a dead child's slot gets a new one.

        Args:
            slot: that the child was in; its deaths in a row are counted.
            child: that died.
            boot: seconds that a start takes.
        """
        healthy = child.ended_at - child.ready_at >= max(
            self._health, _PROOF_STARTS * boot
        )
        slot.failures = 1 if healthy else slot.failures + 1
        # One that never got ready is in no hurry: not even the first time.
        failures = slot.failures + (child.ready_at == inf)
        return restart_delay(failures, spread(slot.index, child.number))
