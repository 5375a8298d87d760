"""Large payloads, one job at a time, one worker: what a payload costs on its way."""

from __future__ import annotations

import asyncio
import statistics
import time

import numpy as np

import payload_jobs as jobs
from harness.figures import Case, Metric
from harness.pss import Sampler
from peers import ALL, CannotDo

KB, MB = 1024, 1024 * 1024
ARRAY = 128 * MB

#: size in bytes, and its name
SIZES = {
    4 * KB: "4 KB",
    64 * KB: "64 KB",
    MB: "1 MB",
    16 * MB: "16 MB",
    128 * MB: "128 MB",
}
CASES = tuple(
    Case(
        name=case.replace(" ", "-"),
        title=f"{what}, one at a time, 1 worker",
        module=__name__,
        metrics=tuple(Metric(str(size), name) for size, name in SIZES.items()),
        contenders=contenders,
        floors=floors,
        arguments={"case": case, "sizes": [*SIZES]},
        seconds=0.15,
        weight=2.0,
        quick=case == "array in",
        heavy=case in ("array in", "array out"),
    )
    for case, what, contenders, floors in (
        (
            "array in",
            "A numpy array to a worker, which adds it up",
            (*ALL, "offloop, pool.empty"),
            ("memcpy",),
        ),
        ("bytes in", "bytes to a worker", None, ()),
        ("array out", "A numpy array from a worker", None, ()),
        ("bytes out", "bytes from a worker", None, ()),
    )
)


async def measure(contender, case, sizes, seconds=0.4):
    """Report for each size the seconds of a call, and those beyond the job's own."""
    if hasattr(contender, "place") and case != "array in":
        raise CannotDo("is about arrays that are sent")
    async with contender(1) as peer:
        if case == "memory":
            return await measure_memory(peer)
        largest = getattr(peer, "largest", max(sizes))
        return {
            str(size): await measure_size(peer, case, size, seconds)
            for size in sizes
            if size <= largest
        }


async def measure_size(peer, case, size, seconds):
    fn, argument = prepare(peer, case, size)
    await peer.call(fn, argument)
    end, calls = time.perf_counter() + seconds, []
    while len(calls) < 5 or (time.perf_counter() < end and len(calls) < 500):
        calls.append(await measure_call(peer, fn, argument))
    whole, beyond = zip(*calls, strict=True)
    found = [statistics.median(whole), statistics.median(beyond)]
    if case == "array in":
        found.append(measure_copy(argument))
    return found


async def measure_call(peer, fn, argument):
    began = time.perf_counter()
    result = await peer.call(fn, argument)
    took = time.perf_counter() - began
    own = result if isinstance(result, float) else 0.0
    del result
    return took, took - own


def prepare(peer, case, size):
    if case == "bytes in":
        return jobs.measure, b"x" * size
    if case == "bytes out":
        return jobs.produce_bytes, size
    if case == "array out":
        return jobs.produce, size
    array = np.ones(size // 8)
    return jobs.total, peer.place(array) if hasattr(peer, "place") else array


def measure_copy(array):
    """Return the seconds that a warm copy of the array takes."""
    target, times = np.ones_like(array), []
    for _ in range(9):
        began = time.perf_counter()
        np.copyto(target, array)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


async def measure_memory(peer):
    array = np.ones(ARRAY // 8)
    await peer.call(jobs.total, np.ones(1000))  # all processes are there
    await asyncio.sleep(1)
    sampler = Sampler()
    _, _, before = sampler.since_last()
    await peer.call(jobs.total, array)
    _, peak, _ = sampler.since_last()
    await asyncio.sleep(5)
    _, _, after = sampler.since_last()
    sampler.close()
    return {"peak": peak - before, "after": after - before}
