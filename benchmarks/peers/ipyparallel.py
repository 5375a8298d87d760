"""ipyparallel: a cluster on this machine, and its load-balanced view."""

from __future__ import annotations

import asyncio
import logging

from ipyparallel import Cluster

from peers.interface import Peer


class Ipyparallel(Peer):
    async def start(self):
        self.cluster = Cluster(n=self.workers, log_level=logging.ERROR)
        self.client = await self.cluster.start_and_connect()
        self.view = self.client.load_balanced_view()

    def call(self, function, *arguments):
        return asyncio.wrap_future(self.view.apply_async(function, *arguments))

    submit = call

    async def map(self, function, items):
        # A view's own map is given a chunk a worker, which is fewest messages.
        size = max(1, len(items) // self.workers)
        mapped = self.view.map_async(function, items, chunksize=size)
        return list(await asyncio.to_thread(mapped.get))

    async def close(self):
        await self.cluster.stop_cluster()
        self.client.close()
