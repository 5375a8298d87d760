"""Which work is better done in threads, and which in processes.

    python -m benchmarks.threads_or_processes

One pool of each kind, with two workers, does the same work in turns: eight calls at a
time. Printed are the medians of the rounds, calls a second, and for how long the event
loop could not go on, at worst, while it was done. `nowhere` is the work called in the
loop itself, one call after the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import statistics
import time
import zlib

from PIL import Image

from offloop import Pool

ROUNDS = 5
CALLS = 24
TOGETHER = 8
WORKERS = 2


def nothing(data):
    return None


def hash_it(data):
    return hashlib.sha256(data).digest()


def compress(data):
    return zlib.compress(data, 6)


def resize(data):
    image = Image.open(io.BytesIO(data))
    small = image.resize((640, 480))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return out.getvalue()


def count_primes(limit):
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, limit))


def photo():
    """Return a JPEG with something in it."""
    noise = Image.frombytes("RGB", (160, 120), os.urandom(160 * 120 * 3))
    out = io.BytesIO()
    noise.resize((1600, 1200), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def works():
    """Return the kinds of work, each with its argument."""
    text = os.urandom(2000) * 500
    return {
        "empty call": (nothing, b""),
        "empty call, 8 MB": (nothing, bytes(8_000_000)),
        "sha256 of 1 MB": (hash_it, text),
        "zlib of 1 MB": (compress, text),
        "JPEG, 1600x1200 to 640x480": (resize, photo()),
        "pure Python, 3.5 ms": (count_primes, 4000),
    }


async def watch(found):
    """Note the longest time for which the loop could not go on."""
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(0.001)
        found.append(time.perf_counter() - begin - 0.001)


async def measure(run, function, argument):
    """Return calls a second, and the longest stall in seconds."""
    stalls = [0.0]
    watching = asyncio.ensure_future(watch(stalls))
    await asyncio.sleep(0.002)
    begin = time.perf_counter()
    for _ in range(CALLS // TOGETHER):
        await asyncio.gather(*[run(function, argument) for _ in range(TOGETHER)])
    took = time.perf_counter() - begin
    await asyncio.sleep(0.002)
    watching.cancel()
    return CALLS / took, max(stalls)


async def call_here(function, argument):
    return function(argument)


async def main():
    """Print the table."""
    figures = {}
    async with Pool(WORKERS) as local, Pool(WORKERS, engine="thread") as threads:
        await asyncio.gather(local.ready(), threads.ready())
        ways = {"nowhere": call_here, "threads": threads.run, "processes": local.run}
        for work, (function, argument) in works().items():
            for run in ways.values():
                await measure(run, function, argument)  # to warm up
            for _ in range(ROUNDS):
                for way, run in ways.items():
                    found = await measure(run, function, argument)
                    figures.setdefault((work, way), []).append(found)
    print("| Work | nowhere: calls/s, stall | threads | processes |")
    print("| --- | ---: | ---: | ---: |")
    for work in works():
        cells = []
        for way in ways:
            rates, stalls = zip(*figures[work, way], strict=True)
            rate, stall = statistics.median(rates), statistics.median(stalls)
            cells.append(f"{rate:,.0f}, {stall * 1000:.1f} ms")
        print(f"| {work} | {' | '.join(cells)} |")


if __name__ == "__main__":
    asyncio.run(main())
