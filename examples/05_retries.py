"""Further attempts: after an error that may pass, and after the death of a worker.

Nothing is tried again unless you say so, because a job may have side effects.

Prints:

    retry_on: ok at attempt 3
    retries: survived at attempt 2
    no retries: WorkerLost
"""

import asyncio
import os

from offloop import Pool, current_job, offload
from offloop.errors import WorkerLost


@offload(retries=3, retry_on=ConnectionError)
def flaky() -> str:
    attempt = current_job().attempt
    if attempt < 3:
        raise ConnectionError("the far end is busy")
    return f"ok at attempt {attempt}"


def crash_at_first() -> str:
    attempt = current_job().attempt
    if attempt == 1:
        os._exit(1)  # as a segmentation fault would: no exception, no goodbye
    return f"survived at attempt {attempt}"


async def main() -> None:
    print("retry_on:", await flaky())

    async with Pool(max_workers=1) as pool:
        print("retries:", await pool.options(retries=1).run(crash_at_first))
        try:
            await pool.run(crash_at_first)
        except WorkerLost as error:
            print("no retries:", type(error).__name__)


asyncio.run(main())
