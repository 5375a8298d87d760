"""Large payloads: offloop beside its peers, in one run.

    python benchmarks/payloads.py [--quick] [--ours] [--only CASE]

One job at a time, one worker, 4 KB to 128 MB: numpy arrays in (the job adds them up),
bytes in, numpy arrays out. The contenders take turns, each time in a fresh process; the
figures are medians of three rounds for offloop and ProcessPoolExecutor, and of one
round for the others. "offloop, no arena" sends up to 64 KB through the socket. Then the
memory of all processes while one array of 128 MB goes, beyond what they took before,
the caller's own array included there. All of it takes six minutes; the tables are in
Markdown.

Exits with 1 if offloop misses what it promises:

- arrays in and out, 16 and 128 MB: 12 times as fast as ProcessPoolExecutor, ahead of
  ray; in: beyond the job's own time at most 1.4 times a warm `numpy.copyto`
- with `pool.empty`: at most 1 ms beyond the job's own time, at any size
- bytes in, 16 and 128 MB: 4 times as fast as ProcessPoolExecutor, ahead of ray
- up to 64 KB: no slower than ProcessPoolExecutor, nor than without the arena, but for
  5 % that are noise
- memory: at most 1.2 times the array, and back again within 5 s
"""

from __future__ import annotations

import argparse
import sys

from cases.payloads import ARRAY
from harness.alone import (
    OTHERS,
    in_turn,
    print_broken,
    print_machine,
    print_reasons,
    print_table,
)

KB, MB = 1024, 1024 * 1024
SMALL_SIZES = (4 * KB, 16 * KB, 64 * KB)
SIZES = (*SMALL_SIZES, MB, 16 * MB, 128 * MB)
QUICK_SIZES = (64 * KB, 16 * MB, 128 * MB)
CASES = ("array in", "bytes in", "array out", "bytes out", "memory")
OURS = ("offloop", "offloop, pool.empty")
NOISE = 1.05
#: seconds for each size
SECONDS = 0.2


def contenders(case, ours_only, quick):
    """Return who takes part, and in how many rounds."""
    rounds = 1 if quick else 3
    names = dict.fromkeys(OURS, rounds)
    if case != "array in":
        del names["offloop, pool.empty"]
    if case != "memory":
        names["offloop, no arena"] = rounds
    if not ours_only:
        names |= dict.fromkeys(OTHERS, 1)
        names["ProcessPoolExecutor"] = rounds if case != "memory" else 1
    return names


def text(seconds):
    return "-" if seconds is None else milliseconds(seconds)


def milliseconds(seconds):
    return f"{seconds * 1e3:.3f}" if seconds < 0.01 else f"{seconds * 1e3:.1f}"


def label(size):
    return f"{size // MB} MB" if size >= MB else f"{size // KB} KB"


def print_times(case, sizes, results):
    rows = [
        [name, *(text(whole(result, size)) for size in sizes)]
        for (name, _), result in results.items()
        if "cannot" not in result
    ]
    for name in OURS if case == "array in" else OURS[:1]:
        result = results[name, case]
        if case.endswith("in") and "cannot" not in result:
            times = (milliseconds(result[str(size)][1]) for size in sizes)
            rows.append([f"{name}: beyond the job", *times])
    ours = results["offloop", case]
    if case == "array in" and "cannot" not in ours:
        copies = (milliseconds(ours[str(size)][2]) for size in sizes)
        rows.append(["one `numpy.copyto`", *copies])
    print_table([f"{case}, ms", *map(label, sizes)], rows)
    print_reasons(results)


def whole(result, size):
    """Return the seconds that a call took, None if it was not tried."""
    found = result.get(str(size))
    return found[0] if isinstance(found, list) else found


def print_memory(results):
    rows = [
        [name, f"{result['peak'] / MB:.0f}", f"{result['after'] / MB:.0f}"]
        for (name, _), result in results.items()
        if "cannot" not in result
    ]
    print_table(["memory, MB", "peak", "5 s later"], rows)
    print_reasons(results)


def broken_promises(case, sizes, results):
    """Yield what offloop promises and did not do."""
    ours = results["offloop", case]
    if "cannot" in ours:
        yield f"{case}: {ours['cannot']}"
    elif case == "memory":
        if ours["peak"] > 1.2 * ARRAY:
            yield f"memory: {ours['peak'] / ARRAY:.2f} times the array at the peak"
        if ours["after"] > 0.2 * ARRAY:
            yield f"memory: {ours['after'] / MB:.0f} MB were kept"
    else:
        for size in sizes:
            for broken in broken_by_size(case, size, results):
                yield f"{case}, {label(size)}: {broken}"
    if case == "array in":
        yield from broken_promises_of_empty(results["offloop, pool.empty", case])


def broken_by_size(case, size, results):
    ours = results["offloop", case][str(size)]
    small = size in SMALL_SIZES
    if size < 16 * MB and not small:
        return
    wanted = {"ProcessPoolExecutor": 1.0}
    if small:
        wanted["offloop, no arena"] = 1 / NOISE
    else:
        wanted["ProcessPoolExecutor"] = 4.0 if case.startswith("bytes") else 12.0
        wanted["ray"] = 1.0
    for name, times in wanted.items():
        result = results.get((name, case), {"cannot": "was left out"})
        if "cannot" not in result and whole(result, size) < times * ours[0]:
            yield f"{whole(result, size) / ours[0]:.2f} times {name}, not {times:.2g}"
    if case == "array in" and not small and ours[1] > 1.4 * ours[2]:
        yield f"{ours[1] / ours[2]:.2f} copies, not 1.4"


def broken_promises_of_empty(result):
    if "cannot" in result:
        yield f"pool.empty: {result['cannot']}"
        return
    for size, (_, beyond, _) in result.items():
        if beyond > 0.001:
            yield f"pool.empty, {label(int(size))}: {beyond * 1e3:.1f} ms, not 1"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once instead of 3 times")
    parser.add_argument("--only", choices=CASES, help="one case")
    parser.add_argument("--ours", action="store_true", help="offloop alone")
    args = parser.parse_args()
    sizes = QUICK_SIZES if args.quick else SIZES
    broken = []
    print_machine()
    for case in [args.only] if args.only else CASES:
        names = contenders(case, args.ours, args.quick)
        settings = {"case": case, "sizes": sizes, "seconds": SECONDS}
        results = in_turn("cases.payloads", names, 60, **settings)
        if case == "memory":
            print_memory(results)
        else:
            print_times(case, sizes, results)
        broken += broken_promises(case, sizes, results)
    print_broken(broken)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
