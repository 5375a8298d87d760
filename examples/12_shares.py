"""Who may use how much: equal shares for tenants, a limit for a slow function.

Prints:

    done with all: small, then big
    reports at once: 1
"""

import asyncio
import time
from itertools import pairwise

from offloop import Pool, offload


def work() -> None:
    time.sleep(0.02)


@offload(max_concurrency=1)
def report() -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(0.02)
    return began, time.monotonic()


async def main() -> None:
    done: list[str] = []
    async with Pool(max_workers=1) as pool:
        busy = pool.submit(work)  # meanwhile the others wait
        for tenant in ["big"] * 4 + ["small"] * 2:
            job = pool.options(key=tenant).submit(work)
            job.add_done_callback(lambda _, tenant=tenant: done.append(tenant))
        await busy
    last = sorted(["small", "big"], key=lambda tenant: done[::-1].index(tenant))
    print("done with all:", ", then ".join(reversed(last)))

    # Two would have time for it, but a report never takes more than one worker.
    times = sorted(await asyncio.gather(*(report() for _ in range(3))))
    apart = all(one[1] <= next[0] for one, next in pairwise(times))
    print("reports at once:", 1 if apart else "several")


asyncio.run(main())
