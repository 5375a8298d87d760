"""How long the caller's event loop stands still: offloop beside its peers, in one run.

    python benchmarks/loop_lag.py [--quick] [--ours] [--only CASE]

A task on the loop wants to run every millisecond, and notes how late it is, while with
two workers

- nothing happens: what the machine itself does to a loop
- arrays of 16 MB go, four at a time, for some seconds
- one array of 128 MB goes, again and again
- 50,000 small jobs end that were submitted in one statement; the statement's own time
  does not count
- a list of a million numbers goes, and one of 100,000 pairs

Prints the worst lateness of each run and the 99th percentile, in milliseconds, as
tables in Markdown: medians of three runs of offloop and one of each of the others, each
in a fresh process, in turn. All of it takes four minutes. Exits with 1 if offloop is
later than it promises: 8 ms with the arrays of 16 MB, 4 ms with one of 128 MB and with
small jobs; lists have no limit, because pickling does one step in them that nobody can
interrupt.
"""

from __future__ import annotations

import argparse
import sys

from harness.alone import (
    OTHERS,
    in_turn,
    print_broken,
    print_machine,
    print_reasons,
    print_table,
)

#: case, and the worst lateness in seconds that is promised
CASES = {
    "idle": None,
    "4 x 16 MB": 0.008,
    "128 MB": 0.004,
    "small jobs": 0.004,
    "lists": None,
}


def print_case(case, results):
    rows = [
        [
            name,
            f"{result['worst'] * 1e3:.1f}",
            f"{result['p99'] * 1e3:.1f}",
            f"{result['done']:,.0f}",
        ]
        for (name, _), result in results.items()
        if "cannot" not in result
    ]
    print_table([case, "worst, ms", "p99, ms", "jobs/s"], rows)
    print_reasons(results)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once instead of 3 times")
    parser.add_argument("--only", choices=CASES, help="one case")
    parser.add_argument("--ours", action="store_true", help="offloop alone")
    args = parser.parse_args()
    broken = []
    print_machine()
    for case, limit in CASES.items():
        if args.only not in (None, case):
            continue
        names = {"offloop": 1 if args.quick else 3}
        if not args.ours and case != "idle":
            names |= dict.fromkeys(OTHERS, 1)
        results = in_turn("cases.lag", names, 60, case=case, seconds=2.5)
        print_case(case, results)
        ours = results["offloop", case]
        if "cannot" in ours:
            broken.append(f"{case}: {ours['cannot']}")
        elif limit is not None and ours["worst"] > limit:
            late, allowed = ours["worst"] * 1e3, limit * 1e3
            broken.append(f"{case}: {late:.1f} ms late, {allowed:g} are promised")
    print_broken(broken)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
