"""No-op jobs: offloop beside `ProcessPoolExecutor`, in one run.

    python benchmarks/against_executor.py [--quick]

Prints the median round trip of one job at a time with one worker, and the throughput
with 64 jobs in flight, for both pools in turn, several times, each time in a fresh
process, and the median of the ratios. Exits with 1 if offloop misses what it promises:
15 times the throughput, half the round trip.
"""

from __future__ import annotations

import argparse
import sys

from cases import round_trip, throughput
from harness.alone import compare
from harness.figures import CORES, readable

MIN_THROUGHPUT_RATIO = 15
MAX_ROUND_TRIP_RATIO = 0.5

FIGURES = (
    ("round trip, 1 worker", round_trip, "p50"),
    ("64 in flight, 1 worker", throughput, "one"),
    (f"64 in flight, {CORES} workers", throughput, "many"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less work, more noise")
    quick = parser.parse_args().quick
    rounds, seconds = (3, 0.3) if quick else (7, 0.8)
    found = {
        module: compare(module, "ProcessPoolExecutor", rounds, seconds=seconds)
        for module in (round_trip, throughput)
    }
    print(f"{'':24}{'offloop':>12}{'executor':>12}{'better by':>11}")
    times = []
    for words, module, key in FIGURES:
        metric, ours, theirs, better = found[module][key]
        texts = readable(ours, metric.unit), readable(theirs, metric.unit)
        print(f"{words:24}{texts[0]:>12}{texts[1]:>12}{better:>10.1f}x")
        times.append(better)
    trip, *flows = times
    return 1 / trip > MAX_ROUND_TRIP_RATIO or max(flows) < MIN_THROUGHPUT_RATIO


if __name__ == "__main__":
    sys.exit(main())
