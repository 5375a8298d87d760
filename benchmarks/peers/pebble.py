"""pebble's process pool: its futures are those of concurrent.futures."""

from __future__ import annotations

import asyncio

from pebble import ProcessPool

from peers.interface import Peer, chunk


class Pebble(Peer):
    async def start(self):
        self.pool = ProcessPool(max_workers=self.workers)

    def call(self, function, *arguments):
        return asyncio.wrap_future(self.pool.schedule(function, args=arguments))

    submit = call

    def call_within(self, seconds, function, *arguments):
        scheduled = self.pool.schedule(function, args=arguments, timeout=seconds)
        return asyncio.wrap_future(scheduled)

    async def map(self, function, items):
        def collect():
            size = chunk(items, self.workers)
            return list(self.pool.map(function, items, chunksize=size).result())

        return await asyncio.to_thread(collect)

    async def close(self):
        self.pool.stop()
        self.pool.join()
