"""The smallest program: a call that runs in another process.

Prints:

    fib(20) = 6765
    elsewhere: True
"""

import asyncio
import os

from offloop import Pool


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


async def main() -> None:
    async with Pool() as pool:  # one worker per core, less one for the event loop
        print("fib(20) =", await pool.submit(fib, 20))
        print("elsewhere:", await pool.submit(os.getpid) != os.getpid())


asyncio.run(main())
