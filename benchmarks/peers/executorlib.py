"""executorlib on one machine: workers that stay, and no graph of dependencies.

Both are options for many short jobs; with its defaults, each job costs 10 ms.
"""

from __future__ import annotations

from executorlib import SingleNodeExecutor

from peers.process_pool_executor import Executor


class Executorlib(Executor):
    def make(self):
        return SingleNodeExecutor(
            max_workers=self.workers, block_allocation=True, disable_dependencies=True
        )

    async def map(self, function, items):
        return await self.gather(function, items)  # its map has no chunks
