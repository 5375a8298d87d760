"""Time limits that really stop the work, even an endless loop, and cancellation.

Prints:

    run_timeout: spin (04_timeouts.py:17) ran for more than 0.2 s
    asyncio.timeout: gave up
    cancelled: True
    the pool goes on: 42
"""

import asyncio

from offloop import Pool
from offloop.errors import JobTimeout


def spin() -> None:
    while True:
        pass


async def main() -> None:
    async with Pool(max_workers=1) as pool:
        # `run_timeout` begins with the run, `timeout` with the submission.
        try:
            await pool.options(run_timeout=0.2).run(spin)
        except JobTimeout as error:
            print(f"run_timeout: {error.function} ran for more than {error.limit} s")

        # Whatever cancels the await stops the work: this, a TaskGroup, a lost client.
        try:
            async with asyncio.timeout(0.2):
                await pool.run(spin)
        except TimeoutError:
            print("asyncio.timeout: gave up")

        job = pool.submit(spin)
        job.cancel()
        print("cancelled:", job.cancelled())

        print("the pool goes on:", await pool.run(int, "42"))


asyncio.run(main())
