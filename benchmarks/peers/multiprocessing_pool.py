"""`multiprocessing.Pool`: its callbacks settle futures of the loop."""

from __future__ import annotations

import asyncio
import multiprocessing

from peers.interface import Peer


class Callbacks(Peer):
    """A pool whose `apply_async` takes callbacks, which come in a thread of its own."""

    async def start(self):
        self.loop = asyncio.get_running_loop()
        self.pool = multiprocessing.Pool(self.workers)

    def call(self, function, *arguments, **options):
        future = self.loop.create_future()
        tell = self.loop.call_soon_threadsafe

        def settle(result):
            tell(future.set_result, result)

        def fail(error):
            tell(future.set_exception, error)

        self.pool.apply_async(
            function, arguments, callback=settle, error_callback=fail, **options
        )
        return future

    submit = call


class MultiprocessingPool(Callbacks):
    async def map(self, function, items):
        return await asyncio.to_thread(self.pool.map, function, items)

    async def close(self):
        self.pool.terminate()
        self.pool.join()
