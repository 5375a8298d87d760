"""How far long work is: shown on a terminal, or asked of a single job.

The bars go to stderr, by rich or tqdm if they are installed, and are left out where no
terminal is. Here they are kept away from the output that the tests compare.

Prints:

    map: 328350
    job: half way, then 1000 of 1000
    jobs: [0, 1, 4, 9]
"""

import asyncio

import offloop
from offloop import Pool, current_job


def square(n: int) -> int:
    return n * n


def long_work(steps: int) -> int:
    job = current_job()
    for step in range(1, steps + 1):
        # As often as you like: a worker passes on one in 50 ms, and the last one.
        job.report(step, steps, "half way" if step >= steps / 2 else "")
    return steps


async def main() -> None:
    async with Pool(max_workers=2) as pool:
        total = 0
        results = pool.map(square, range(100))
        async for result in offloop.progress(results, total=100, description="map"):
            total += result
        print("map:", total)

        # One job shows what it reports; without a display, ask it.
        job = pool.submit(long_work, 1000)
        await offloop.progress(job, description="job")
        print(f"job: {job.progress.message}, then {job.progress.done} of {await job}")

        # Several jobs, in the order in which they end.
        jobs = [pool.submit(square, n) for n in range(4)]
        ended = [await one async for one in offloop.progress(jobs)]
        print("jobs:", sorted(ended))


asyncio.run(main())
