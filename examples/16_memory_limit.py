"""A job that asks for too much memory fails alone.

Prints:

    small: 1000000
    large: refused
    small again: 1000000
"""

import asyncio

from offloop import Pool
from offloop.errors import MemoryLimitExceeded


def blank_image(width: int, height: int) -> int:
    return len(bytearray(width * height))


async def main() -> None:
    async with Pool(max_workers=1, memory_limit="500MB") as pool:
        print("small:", await pool.run(blank_image, 1000, 1000))
        try:
            await pool.run(blank_image, 100_000, 100_000)
        except MemoryLimitExceeded:
            print("large: refused")
        print("small again:", await pool.run(blank_image, 1000, 1000))


asyncio.run(main())
