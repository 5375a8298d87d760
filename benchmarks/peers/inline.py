"""No offloading at all: the function runs on the event loop."""

from __future__ import annotations

from peers.interface import Peer


class Inline(Peer):
    processes = False

    async def call(self, function, *arguments):
        return function(*arguments)
