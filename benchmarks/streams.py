"""Parts of a generator in another process: a second of each way to get them.

    python benchmarks/streams.py

Short parts (ints) and parts of 1 MB, by `pool.stream`, and by hand with a process and a
`multiprocessing` Pipe or Queue, which wait for nobody who is not reading and neither
pass on errors nor stop. Then what a report of progress costs inside of a job.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time

from offloop import Pool, current_job

SECONDS = 1.0
ROUNDS = 3
SHAPES = {"ints": (0, "{:,.0f} parts/s"), "1 MB": (1 << 20, "{:,.0f} MB/s")}


def parts(size):
    """Yield for ever."""
    block = bytes(size)
    for number in itertools.count():
        yield block or number


async def by_stream(size, **options):
    async with Pool(1) as pool:
        stream = pool.options(**options).stream(parts, size)
        await anext(stream)
        count, end = 0, time.perf_counter() + SECONDS
        async for _ in stream:
            count += 1
            if not count % 16 and time.perf_counter() > end:
                break
        await stream.aclose()
    return count / SECONDS


def put_all(put, size):
    for part in parts(size):
        put(part)


def by_hand(size, get, put):
    process = multiprocessing.Process(target=put_all, args=(put, size), daemon=True)
    process.start()
    get()
    count, end = 0, time.perf_counter() + SECONDS
    while count % 16 or time.perf_counter() < end:
        get()
        count += 1
    process.kill()
    process.join()
    return count / SECONDS


def by_pipe(size):
    reader, writer = multiprocessing.Pipe(duplex=False)
    return by_hand(size, reader.recv, writer.send)


def by_queue(size):
    queue = multiprocessing.Queue(256)
    return by_hand(size, queue.get, queue.put)


def reports(count):
    report = current_job().report
    began = time.perf_counter()
    for number in range(count):
        report(number, count)
    return (time.perf_counter() - began) / count


async def cost_of_reports():
    async with Pool(1) as pool:
        return await pool.run(reports, 1_000_000)


def best(measure, *args):
    return max(measure(*args) for _ in range(ROUNDS))


def main():
    for name, (size, text) in SHAPES.items():
        print(f"{name}:")
        ways = {
            "pool.stream": lambda size: asyncio.run(by_stream(size)),
            "the same, 1 ahead": lambda size: asyncio.run(
                by_stream(size, buffersize=1)
            ),
            "a Pipe": by_pipe,
            "a Queue of 256": by_queue,
        }
        for way, measure in ways.items():
            print(f"    {way:<20}{text.format(best(measure, size)):>20}")
    seconds = asyncio.run(cost_of_reports())
    print(f"a report of progress: {seconds * 1e9:.0f} ns")


if __name__ == "__main__":
    main()
