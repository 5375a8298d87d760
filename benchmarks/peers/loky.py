"""loky's reusable executor."""

from __future__ import annotations

from loky import get_reusable_executor

from peers.process_pool_executor import Executor


class Loky(Executor):
    def make(self):
        return get_reusable_executor(max_workers=self.workers)

    async def close(self):
        self.executor.shutdown(wait=True)
