"""aiomultiprocess: it runs coroutine functions, so a plain one gets a wrapper."""

from __future__ import annotations

import asyncio

from aiomultiprocess import Pool

from peers.interface import Peer


async def plain(function, arguments):
    return function(*arguments)


class Aiomultiprocess(Peer):
    async def start(self):
        self.pool = Pool(processes=self.workers)

    def call(self, function, *arguments):
        return self.pool.apply(plain, (function, arguments))

    async def map(self, function, items):
        return list(await self.pool.starmap(plain, [(function, (i,)) for i in items]))

    async def close(self):
        self.pool.terminate()
        async with asyncio.timeout(5):
            await self.pool.join()
