"""Large payloads: offloop beside its peers, in one run.

    python benchmarks/payloads.py [--quick] [--ours] [--only CASE]

One job at a time, one worker, 4 KB to 128 MB: numpy arrays in (the job adds them up),
bytes in, numpy arrays out. The contenders take turns, each time in a fresh process; the
figures are medians. Then the memory of all processes while one array of 128 MB goes,
beyond what they took before, the caller's own array included there.

Exits with 1 if offloop misses what it promises:

- arrays in and out, 16 and 128 MB: 12 times as fast as ProcessPoolExecutor, ahead of
  ray; in: beyond the job's own time at most 1.4 times a warm `numpy.copyto`
- with `pool.empty`: at most 1 ms beyond the job's own time, at any size
- bytes in, 16 and 128 MB: 4 times as fast as ProcessPoolExecutor, ahead of ray
- up to 64 KB: no slower than ProcessPoolExecutor
- memory: at most 1.2 times the array, and back again within 5 s
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

import numpy as np
import payload_jobs as jobs
from memory import Sampler
from peers import CONTENDERS, OURS, CannotDo, print_reasons, report, take_turns

KB, MB = 1024, 1024 * 1024
SIZES = (4 * KB, 16 * KB, 64 * KB, MB, 16 * MB, 128 * MB)
QUICK_SIZES = (64 * KB, 16 * MB, 128 * MB)
CASES = ("array in", "bytes in", "array out", "memory")
ARRAY = 128 * MB


# ---- in a process of its own ---------------------------------------------------------


async def measure(contender, case, sizes):
    """Report for each size the seconds of a call, and those beyond the job's own."""
    if hasattr(contender, "place") and case != "array in":
        raise CannotDo("is about arrays that are sent")
    async with contender(1) as peer:
        if case == "memory":
            return await measure_memory(peer)
        return {str(size): await measure_size(peer, case, size) for size in sizes}


async def measure_size(peer, case, size):
    fn, argument = prepare(peer, case, size)
    await peer.run(fn, argument)
    began, calls = time.perf_counter(), []
    while len(calls) < 5 or (time.perf_counter() - began < 0.4 and len(calls) < 500):
        calls.append(await measure_call(peer, fn, argument))
    whole, beyond = zip(*calls, strict=True)
    found = [statistics.median(whole), statistics.median(beyond)]
    if case == "array in":
        found.append(measure_copy(argument))
    return found


async def measure_call(peer, fn, argument):
    began = time.perf_counter()
    result = await peer.run(fn, argument)
    took = time.perf_counter() - began
    own = result if isinstance(result, float) else 0.0
    del result
    return took, took - own


def prepare(peer, case, size):
    if case == "bytes in":
        return jobs.measure, b"x" * size
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
    await peer.run(jobs.total, np.ones(1000))  # all processes are there
    await asyncio.sleep(1)
    sampler = Sampler()
    _, _, before = sampler.since_last()
    await peer.run(jobs.total, array)
    _, peak, _ = sampler.since_last()
    await asyncio.sleep(5)
    _, _, after = sampler.since_last()
    sampler.close()
    return {"peak": peak - before, "after": after - before}


# ---- in the process that starts the others -------------------------------------------


def run_case(case, sizes, repeats, names):
    """Let the contenders take turns; returns the medians, or why there are none."""
    found = take_turns(names, repeats, __file__, 120, case, sizes)
    return {(name, case): merge(results) for name, results in found.items()}


def merge(results):
    if "cannot" in results[-1]:
        return results[-1]
    return {
        key: np.median([result[key] for result in results], axis=0).tolist()
        for key in results[0]
    }


def milliseconds(seconds):
    return f"{seconds * 1e3:10.3f}" if seconds < 0.01 else f"{seconds * 1e3:10.1f}"


def print_times(case, sizes, results):
    label = [f"{size // MB} MB" if size >= MB else f"{size // KB} KB" for size in sizes]
    print(f"\n{case + ', ms':<22}" + "".join(f"{text:>10}" for text in label))
    for (name, _), result in results.items():
        if "cannot" not in result:
            times = (milliseconds(result[str(size)][0]) for size in sizes)
            print(f"{name:<22}" + "".join(times))
    for name in ("offloop", "offloop, pool.empty"):
        result = results[name, case]
        if case != "array out" and "cannot" not in result:
            times = (milliseconds(result[str(size)][1]) for size in sizes)
            print(f"{'  beyond the job':<22}" + "".join(times) + f"  ({name})")
    if case == "array in":
        copies = (milliseconds(results["offloop", case][str(s)][2]) for s in sizes)
        print(f"{'  one numpy.copyto':<22}" + "".join(copies))
    print_reasons(results)


def print_memory(results):
    print(f"\n{'memory, MB':<22}{'peak':>10}{'5 s later':>10}")
    for (name, _), result in results.items():
        if "cannot" not in result:
            peak, after = result["peak"] / MB, result["after"] / MB
            print(f"{name:<22}{peak:>10.0f}{after:>10.0f}")
    print_reasons(results)


def broken_promises(case, sizes, results):
    """Yield what offloop promises and did not do."""
    ours = results["offloop", case]
    if "cannot" in ours:
        yield f"{case}: {ours['cannot']}"
        return
    if case == "memory":
        if ours["peak"] > 1.2 * ARRAY:
            yield f"memory: {ours['peak'] / ARRAY:.2f} times the array at the peak"
        if ours["after"] > 0.2 * ARRAY:
            yield f"memory: {ours['after'] / MB:.0f} MB were kept"
        return
    theirs = results.get(("ProcessPoolExecutor", case), {"cannot": "left out"})
    ray = results.get(("ray", case), {"cannot": "left out"})
    for size in map(str, sizes):
        place = f"{case}, {int(size) // KB} KB"
        wanted = 4 if case == "bytes in" else 12
        if int(size) <= 64 * KB:
            wanted = 1
        elif int(size) < 16 * MB:
            continue
        if "cannot" not in theirs and theirs[size][0] < wanted * ours[size][0]:
            ratio = theirs[size][0] / ours[size][0]
            yield f"{place}: {ratio:.1f} times ProcessPoolExecutor, not {wanted}"
        if wanted > 1 and "cannot" not in ray and ray[size][0] < ours[size][0]:
            yield f"{place}: behind ray"
        if wanted > 1 and case == "array in" and ours[size][1] > 1.4 * ours[size][2]:
            yield f"{place}: {ours[size][1] / ours[size][2]:.1f} copies, not 1.4"
    yield from broken_promises_of_empty(case, results)


def broken_promises_of_empty(case, results):
    placed = results["offloop, pool.empty", case]
    if case == "array in" and "cannot" in placed:
        yield f"pool.empty: {placed['cannot']}"
    elif case == "array in":
        for size, (_, beyond, _) in placed.items():
            if beyond > 0.001:
                yield f"pool.empty, {int(size) // KB} KB: {beyond * 1e3:.1f} ms, not 1"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once instead of 3 times")
    parser.add_argument("--only", choices=CASES, help="one case")
    parser.add_argument("--ours", action="store_true", help="offloop alone")
    args = parser.parse_args()
    sizes = QUICK_SIZES if args.quick else SIZES
    names = OURS if args.ours else CONTENDERS
    broken = []
    for case in [args.only] if args.only else CASES:
        results = run_case(case, sizes, 1 if args.quick else 3, names)
        if case == "memory":
            print_memory(results)
        else:
            print_times(case, sizes, results)
        broken += broken_promises(case, sizes, results)
        sys.stdout.flush()
    if broken:
        print("\nmissed:")
        print(*(f"    {one}" for one in broken), sep="\n")
    return bool(broken)


if __name__ == "__main__":
    if not report(measure):
        sys.exit(main())
