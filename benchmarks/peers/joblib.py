"""joblib, called in a thread, which is how it is used in asyncio programs."""

from __future__ import annotations

import asyncio

from joblib import Parallel, delayed

from peers.interface import Peer


class Joblib(Peer):
    """With one worker it would run the job here, so it has two at least."""

    batches = True

    async def start(self):
        self.parallel = Parallel(n_jobs=max(self.workers, 2)).__enter__()
        self.turn = asyncio.Lock()

    async def call(self, function, *arguments):
        return (await self._run([delayed(function)(*arguments)]))[0]

    async def gather(self, function, items):
        return await self._run([delayed(function)(item) for item in items])

    map = gather

    async def _run(self, calls):
        async with self.turn:  # one batch at a time may use the workers
            return await asyncio.to_thread(self.parallel, calls)

    async def close(self):
        self.parallel.__exit__(None, None, None)
