"""Keeps a number of calls in flight, and counts."""

from __future__ import annotations

import asyncio
from time import perf_counter


async def rate(peer, function, argument, in_flight: int, seconds: float) -> float:
    """Return calls a second with so many callers that each await one at a time."""
    if peer.batches:
        return await rate_of_batches(peer, function, [argument] * in_flight, seconds)
    return await rate_of(lambda: peer.call(function, argument), in_flight, seconds)


async def rate_of(call, in_flight: int, seconds: float) -> float:
    """Likewise, of anything that returns something to await."""

    async def caller():
        done = 0
        while perf_counter() < end:
            await call()
            done += 1
        return done

    await asyncio.gather(*(call() for _ in range(in_flight)))  # a rehearsal
    began = perf_counter()
    end = began + seconds
    done = sum(await asyncio.gather(*(caller() for _ in range(in_flight))))
    return done / (perf_counter() - began)


async def rate_of_batches(peer, function, batch: list, seconds: float) -> float:
    """Return calls a second of a peer that takes one batch after the other."""
    await peer.gather(function, batch)
    began, done = perf_counter(), 0
    while perf_counter() < began + seconds:
        await peer.gather(function, batch)
        done += len(batch)
    return done / (perf_counter() - began)
