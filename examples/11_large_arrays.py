"""Large data without copies: an array that workers see already, and one for all jobs.

Prints:

    seen: 33554432.0
    returned: 4194304 numbers, the last is 1.0
    shared: [0.0, 1000000.0, 2000000.0]
"""

import asyncio

import numpy as np

from offloop import Pool, current_job


def total(array: np.ndarray) -> float:
    return float(array.sum())


def ramp(size: int) -> np.ndarray:
    array = current_job().empty(size)  # the caller will see it where it lies
    array[:] = np.linspace(0, 1, size)
    return array


def weigh(table: dict, factor: int) -> float:
    return factor * float(table["weights"].sum())


async def main() -> None:
    async with Pool(2, arena_limit="512MiB") as pool:
        frame = pool.empty((4096, 4096), "u1")
        frame[:] = 2
        print("seen:", await pool.run(total, frame))

        result = await pool.run(ramp, 2**22)
        print(f"returned: {result.size} numbers, the last is {result[-1]}")

        table = await pool.put({"weights": np.ones(1_000_000)})  # sent once
        weighed = pool.map(weigh, [table] * 3, range(3))
        print("shared:", [each async for each in weighed])


asyncio.run(main())
