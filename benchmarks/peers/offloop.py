"""offloop itself."""

from __future__ import annotations

from offloop import Pool
from peers.interface import Peer


class Offloop(Peer):
    async def start(self):
        self.pool = Pool(self.workers)
        await self.pool.start()
        self.call = self.pool.run
        self.submit = self.pool.submit

    async def ready(self):
        await self.pool.ready()

    async def map(self, function, items):
        return await self.pool.map(function, items)

    def call_within(self, seconds, function, *arguments):
        return self.pool.options(timeout=seconds).run(function, *arguments)

    async def close(self):
        await self.pool.close()


class OffloopEmpty(Offloop):
    """With arrays that were made where the workers can see them."""

    def place(self, array):
        placed = self.pool.empty(array.shape, array.dtype)
        placed[...] = array
        return placed
