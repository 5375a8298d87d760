"""`anyio.to_process.run_sync`, with a limiter as large as the pool is to be."""

from __future__ import annotations

from anyio import CapacityLimiter, to_process

from peers.interface import Peer


class AnyioToProcess(Peer):
    async def start(self):
        self.limiter = CapacityLimiter(self.workers)

    def call(self, function, *arguments):
        return to_process.run_sync(
            function, *arguments, cancellable=True, limiter=self.limiter
        )
