"""The same program without processes: for a debugger, a profiler or a quick test.

`engine="inline"` runs each job in this process, so that `breakpoint()` works in it.
Calls and results are still encoded: what cannot travel fails here too. The environment
variable OFFLOOP_ENGINE=inline does the same to a program without changing it.

Prints:

    same process: True
    still encoded: NotOffloadable
"""

import asyncio
import os
import threading

from offloop import Pool
from offloop.errors import NotOffloadable


async def main() -> None:
    async with Pool(engine="inline") as pool:
        print("same process:", await pool.run(os.getpid) == os.getpid())
        try:
            await pool.run(id, threading.Lock())
        except NotOffloadable as error:
            print("still encoded:", type(error).__name__)


asyncio.run(main())
