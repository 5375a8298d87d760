"""`concurrent.futures.ProcessPoolExecutor`, by `loop.run_in_executor`."""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor

from peers.interface import Peer, chunk


class Executor(Peer):
    """Any `concurrent.futures.Executor` of processes; others differ in `make`."""

    def make(self):
        return ProcessPoolExecutor(self.workers)

    async def start(self):
        self.loop = asyncio.get_running_loop()
        self.executor = self.make()

    def call(self, function, *arguments):
        return self.loop.run_in_executor(self.executor, function, *arguments)

    submit = call

    async def map(self, function, items):
        def collect():
            size = chunk(items, self.workers)
            return list(self.executor.map(function, items, chunksize=size))

        return await asyncio.to_thread(collect)

    async def close(self):
        self.executor.shutdown()
