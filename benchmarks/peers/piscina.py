"""piscina, a pool of threads for Node: the same cases in JavaScript, in node/."""

from __future__ import annotations

from peers.interface import Peer


class Piscina(Peer):
    program = "piscina.mjs"
