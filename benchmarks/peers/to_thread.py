"""`asyncio.to_thread`, with the loop's own default executor."""

from __future__ import annotations

import asyncio

from peers.interface import Peer


class ToThread(Peer):
    processes = False
    call = staticmethod(asyncio.to_thread)
