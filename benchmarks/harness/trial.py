"""Tries all that a peer must do, once: no measurement."""

from __future__ import annotations

import workloads
from peers import CannotDo


async def measure(contender) -> dict:
    """Report what came back, and whether the peer has a map."""
    async with contender(2) as peer:
        found = {
            "call": await peer.call(workloads.double, 2),
            "gather": list(await peer.gather(workloads.double, [1, 2, 3])),
        }
        if not peer.batches:
            found["submit"] = await peer.submit(workloads.double, 4)
    # As the case does: mpire cannot map with a pool that has run single calls.
    async with contender(2) as peer:
        try:
            found["map"] = sum(await peer.map(workloads.double, list(range(100))))
        except CannotDo:
            found["map"] = None
    return found
