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
import sys

from cases.payloads import ARRAY
from harness.alone import contenders, in_turn, print_reasons

KB, MB = 1024, 1024 * 1024
SIZES = (4 * KB, 16 * KB, 64 * KB, MB, 16 * MB, 128 * MB)
QUICK_SIZES = (64 * KB, 16 * MB, 128 * MB)
CASES = ("array in", "bytes in", "array out", "bytes out", "memory")


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
        if case.endswith("in") and "cannot" not in result:
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
    names = contenders(args.ours)
    broken = []
    for case in [args.only] if args.only else CASES:
        rounds = 1 if args.quick else 3
        results = in_turn("cases.payloads", names, rounds, 120, case=case, sizes=sizes)
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
    sys.exit(main())
