"""How late a task is that wants to run every millisecond."""

from __future__ import annotations

import asyncio
import time

TICK = 0.001


class Ticker:
    """Notes how late a task is that wants to run every millisecond."""

    def __init__(self):
        self.late = []
        self._begin = 0.0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0.05)
        self.begin()
        return self

    def begin(self):
        """Forget what was before: a delay counts from now on."""
        self.late.clear()
        self._begin = time.perf_counter()

    async def __aexit__(self, *error):
        await asyncio.sleep(2 * TICK)  # so that the last delay is noted as well
        self._task.cancel()

    async def _tick(self):
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self.late.append(time.perf_counter() - max(due, self._begin))
