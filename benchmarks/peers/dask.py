"""dask.distributed: an asynchronous client and a cluster of processes here."""

from __future__ import annotations

import logging
import warnings

from distributed import Client

from peers.interface import Peer


class Dask(Peer):
    async def start(self):
        logging.getLogger("distributed").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message="Sending large graph")
        self.client = await Client(
            n_workers=self.workers,
            threads_per_worker=1,
            asynchronous=True,
            dashboard_address=None,
        )

    async def call(self, function, *arguments):
        return await self.client.submit(function, *arguments, pure=False)

    async def map(self, function, items):
        # batch_size sends many calls in one message; each is still a task of its own.
        futures = self.client.map(function, items, pure=False, batch_size=1000)
        return await self.client.gather(futures)

    async def close(self):
        await self.client.close()
