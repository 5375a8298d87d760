"""Many calls: one stream of results, a handful together, or a group that fails as one.

Prints:

    map: [0, 1, 4, 9, 16, 25]
    gather: [100, 121]
    group: 144 169
    group failed: ValueError('13 is unlucky')
"""

import asyncio

from offloop import Pool, offload


@offload
def square(n: int) -> int:
    return n * n


def careful_square(n: int) -> int:
    if n == 13:
        raise ValueError("13 is unlucky")
    return n * n


async def main() -> None:
    # Results come in order, and a large input is read only as fast as it is worked off.
    print("map:", [result async for result in square.map(range(6))])

    print("gather:", await asyncio.gather(square(10), square(11)))

    async with asyncio.TaskGroup() as group:
        twelve = group.create_task(square(12))
        thirteen = group.create_task(square(13))
    print("group:", twelve.result(), thirteen.result())

    async with Pool(max_workers=2) as pool:
        try:
            async with asyncio.TaskGroup() as group:
                for n in range(11, 15):
                    group.create_task(pool.run(careful_square, n))
        except* ValueError as failed:  # the others were cancelled
            print("group failed:", repr(failed.exceptions[0]))


asyncio.run(main())
