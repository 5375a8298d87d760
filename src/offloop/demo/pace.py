"""How fast images get done, to tell those who are refused when to come back."""

from __future__ import annotations

from collections import deque
from math import ceil

__all__ = ["Pace"]

# Endings that are remembered: enough to be steady, few enough to follow a change.
_REMEMBERED = 32

# What to say at least and at most, in seconds.
_LEAST, _MOST = 1, 60


class Pace:
    """Times at which the last images were done."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)

    def note_end(self, now: float) -> None:
        """Note that an image is done.

        Args:
            now: monotonic seconds.
        """
        self._ends.append(now)

    def retry_after(self, now: float, pending: int) -> int:
        """Return in how many whole seconds half of what is pending will be done.

        Not the first place but the middle one: if all who were refused came back for
        the first place, all but one would be refused again.

        Args:
            now: monotonic seconds.
            pending: images that wait or are being made.
        """
        if len(self._ends) < 2:
            return _LEAST
        # Up to now, so that a pace that has slackened counts as slow.
        each = (now - self._ends[0]) / len(self._ends)
        return min(max(_LEAST, ceil(each * pending / 2)), _MOST)
