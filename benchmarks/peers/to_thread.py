"""`asyncio.to_thread`, with the loop's own default executor."""

from __future__ import annotations

import asyncio

from peers.interface import Peer


class ToThread(Peer):
    call = staticmethod(asyncio.to_thread)
