"""mpire's worker pool, whose workers stay between calls."""

from __future__ import annotations

import asyncio

from mpire import WorkerPool

from peers.multiprocessing_pool import Callbacks


class Mpire(Callbacks):
    async def start(self):
        self.loop = asyncio.get_running_loop()
        self.pool = WorkerPool(n_jobs=self.workers, keep_alive=True)

    def call_within(self, seconds, function, *arguments):
        return self.call(function, *arguments, task_timeout=seconds)

    async def map(self, function, items):
        return await asyncio.to_thread(self.pool.map, function, items)

    async def close(self):
        self.pool.terminate()
