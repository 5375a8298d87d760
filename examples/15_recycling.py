"""Workers that are replaced before they hold too much memory.

A successor stands by before a worker reaches its limit, so that no call waits for the
change, and none is lost by it.

Prints:

    calls: 100, failed: 0
    no worker held more than 120 MB: True
    workers recycled: True
"""

import asyncio
import os

from offloop import Pool, Recycle

MB = 1_000_000
kept: list[bytes] = []


def leaky_call() -> int:
    """Keep 5 MB for good, as a library with a leak would."""
    kept.append(b"x" * 5 * MB)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def main() -> None:
    async with Pool(max_workers=2, recycle=Recycle(max_rss="110MB")) as pool:
        held = await asyncio.gather(*(pool.run(leaky_call) for _ in range(100)))
        stats = pool.stats()
    print(f"calls: {stats.completed}, failed: {stats.failed}")
    print("no worker held more than 120 MB:", max(held) < 120 * MB)
    print("workers recycled:", stats.exits["recycled-memory"] > 0)


asyncio.run(main())
