"""executorlib on one machine, with workers that stay (block allocation)."""

from __future__ import annotations

from executorlib import SingleNodeExecutor

from peers.process_pool_executor import Executor


class Executorlib(Executor):
    def make(self):
        return SingleNodeExecutor(max_workers=self.workers, block_allocation=True)

    async def map(self, function, items):
        return await self.gather(function, items)  # its map has no chunks
