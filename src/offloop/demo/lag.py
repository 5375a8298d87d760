"""How late the event loop is: the figure that offloading is about.

A task sleeps for a moment, again and again, and notes how much later than it should it
woke. While something holds the loop nothing is noted, and then all of it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LagMonitor", "Sample"]

#: seconds between two looks
PERIOD = 0.05

# How long samples are kept, in seconds.
_MEMORY = 60.0


class Sample(NamedTuple):
    """One look.

    Attributes:
        at: when it should have been, in monotonic seconds.
        lag: seconds that it was late.
    """

    at: float
    lag: float


class LagMonitor:
    """Watches the running loop from entering to leaving ``async with``."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=int(_MEMORY / PERIOD))
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while True:
            due = monotonic() + PERIOD
            await asyncio.sleep(PERIOD)
            self._samples.append(Sample(due, max(monotonic() - due, 0.0)))

    def since(self, at: float) -> list[Sample]:
        """Return the samples that were due after a moment, oldest first."""
        return [sample for sample in self._samples if sample.at > at]

    def worst(self, seconds: float) -> float:
        """Return the largest lag of the last seconds, 0.0 if nothing is known."""
        recent = self.since(monotonic() - seconds)
        return max((sample.lag for sample in recent), default=0.0)
