"""offloop itself."""

from __future__ import annotations

import sys

from offloop import Pool, workspace
from offloop.wire import codec
from peers.interface import Peer


def stay_in_band():
    """Take nothing for large, in this process."""
    codec.OUT_OF_BAND = codec.LONG_PLAIN = workspace.LARGE_PAYLOAD = sys.maxsize


class Offloop(Peer):
    #: what is called in each worker first
    initializer = None

    async def start(self):
        self.pool = Pool(self.workers, initializer=self.initializer)
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


class OffloopInBand(Offloop):
    """With everything in the messages, as if there were no arena."""

    initializer = staticmethod(stay_in_band)
    #: bytes of what it is asked to send: more is no question
    largest = 64 * 1024

    async def start(self):
        stay_in_band()
        await super().start()
