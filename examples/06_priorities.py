"""Who goes first: jobs of higher priority overtake the ones that wait.

A job that runs is not interrupted. Equal priorities run in order of submission.

Prints:

    already running
    urgent
    normal 1
    normal 2
    whenever
"""

import asyncio

from offloop import Pool


def label(name: str) -> str:
    return name


async def main() -> None:
    async with Pool(max_workers=1) as pool:
        await pool.ready()
        urgent = pool.options(priority=10)
        whenever = pool.options(priority=-10)
        jobs = [
            pool.submit(label, "already running"),  # the worker is free: sent at once
            whenever.submit(label, "whenever"),
            pool.submit(label, "normal 1"),
            pool.submit(label, "normal 2"),
            urgent.submit(label, "urgent"),
        ]
        for ended in asyncio.as_completed(jobs):
            print(await ended)


asyncio.run(main())
