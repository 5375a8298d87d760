"""What a call costs here: a pool is started, and asked for little things.

It takes about two seconds, and says nothing of how good that is.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from offloop.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZE = 64 << 20
_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Measures:
    """Times in seconds.

    Attributes:
        engine: where jobs ran: "local", unless OFFLOOP_ENGINE says otherwise.
        first_result: from nothing to the first result.
        round_trip: of an empty call, one at a time; the median.
        round_trip_p99: what one call in a hundred takes longer than.
        calls: empty ones that end in a second, with 64 in flight.
        copy_in, copy_out: bytes that travel in a second to a worker, and back.
        loop_lag: the longest that the event loop was held up by 64 MiB on their way.
    """

    engine: str
    first_result: float
    round_trip: float
    round_trip_p99: float
    calls: float
    copy_in: float
    copy_out: float
    loop_lag: float


async def measure(seconds: float = 0.5) -> Measures:
    """Start a pool of the usual size, and measure it.

    Args:
        seconds: for each of two of the measures.

    Raises:
        OffloopError: no pool can be had; says why.
    """
    began = time.perf_counter()
    async with Pool(name="doctor", timeout=30) as pool:
        await pool.run(abs, -1)
        first = time.perf_counter() - began
        await pool.ready()
        trips = await _one_by_one(pool, seconds)
        calls = await _together(pool, seconds)
        data = bytes(_SIZE)
        lag = asyncio.ensure_future(_longest_gap())
        await asyncio.sleep(0)
        copy_in = min([await _took(pool, len, data) for _ in range(3)])
        copy_out = min([await _took(pool, bytes, _SIZE) for _ in range(3)])
        lag.cancel()
        return Measures(
            engine=pool._options.engine,
            first_result=first,
            round_trip=median(trips),
            round_trip_p99=quantiles(trips, n=100)[98],
            calls=calls,
            copy_in=_SIZE / copy_in,
            copy_out=_SIZE / copy_out,
            loop_lag=await lag,
        )


async def _one_by_one(pool: Pool, seconds: float) -> list[float]:
    trips: list[float] = []
    end = time.perf_counter() + seconds
    now = 0.0
    while now < end or len(trips) < 10:
        began = time.perf_counter()
        await pool.run(abs, -1)
        now = time.perf_counter()
        trips.append(now - began)
    return trips


async def _together(pool: Pool, seconds: float) -> float:
    """Return calls a second."""
    began = time.perf_counter()
    end = began + seconds

    async def client() -> int:
        calls = 0
        while time.perf_counter() < end or not calls:
            await pool.run(abs, -1)
            calls += 1
        return calls

    calls = sum(await asyncio.gather(*(client() for _ in range(_TOGETHER))))
    return calls / (time.perf_counter() - began)


async def _took(pool: Pool, fn: Callable[[Any], object], argument: object) -> float:
    began = time.perf_counter()
    await pool.run(fn, argument)
    return time.perf_counter() - began


async def _longest_gap() -> float:
    """Return, when it is cancelled, the longest time between two turns of the loop."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last - 0.001), now
    except asyncio.CancelledError:
        return longest
