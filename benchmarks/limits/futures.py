"""A future for each call, and nothing behind it: the ceiling of asyncio itself.

    python benchmarks/limits/futures.py

So many callers as there are calls in flight each await a future that the next turn of
the loop settles.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

NAME = "ceiling: futures of asyncio"


def measure(case: str, seconds: float) -> dict:
    return {
        "one": asyncio.run(rate(64, seconds)),
        "crowd": asyncio.run(rate(1000, seconds)),
    }


async def rate(in_flight: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()

    async def caller():
        done = 0
        while perf_counter() < end:
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
            done += 1
        return done

    began = perf_counter()
    end = began + seconds
    done = sum(await asyncio.gather(*(caller() for _ in range(in_flight))))
    return done / (perf_counter() - began)


if __name__ == "__main__":
    print(measure("throughput", 1.0))
