"""From nothing to the first result, and from a kill to the next one.

    python benchmarks/start_and_recovery.py [--quick]

The start is measured in fresh interpreters, from `Pool()` to the first result, beside
`ProcessPoolExecutor`. The recovery is the time from the SIGKILL of a busy worker until
its replacement has answered, on a loop that only waits. Exits with 1 if offloop misses
what it promises: 350 ms and 20 ms (medians).
"""

from __future__ import annotations

import argparse
import sys

from cases import recovery, start
from harness.alone import compare

MAX_START = 0.35
MAX_RECOVERY = 0.02


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a third of the work")
    rounds = 5 if parser.parse_args().quick else 15
    _, cold, theirs, _ = compare(start, "ProcessPoolExecutor", rounds)["first"]
    arguments = recovery.CASES[0].arguments
    _, again, *_ = compare(recovery, None, rounds, **arguments)["next"]
    print(f"first result, offloop:   {cold * 1e3:6.1f} ms")
    print(f"first result, executor:  {theirs * 1e3:6.1f} ms")
    print(f"kill to next result:     {again * 1e3:6.1f} ms")
    return cold > MAX_START or again > MAX_RECOVERY


if __name__ == "__main__":
    sys.exit(main())
