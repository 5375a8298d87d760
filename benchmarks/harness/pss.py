"""Memory of a process and all below it, sampled from a process outside.

    python benchmarks/harness/pss.py PID    for each line: least, most, present bytes

PSS (proportional set size) counts a page that several processes share once in all, so
the sum over processes is what they really take.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys


def pss(root):
    """Return the bytes that a process and its descendants take, this one left out."""
    sum_of_all, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        if pid == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                line = next(line for line in file if line.startswith("Pss:"))
                sum_of_all += int(line.split()[1]) * 1024
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    waiting.extend(map(int, file.read().split()))
        except OSError:  # it has just ended
            continue
    return sum_of_all


class Sampler:
    """Asks a process outside, which goes on while this one is busy."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def since_last(self):
        """Return the least and the most bytes since the last call, and those now."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return map(int, self._process.stdout.readline().split())

    def close(self):
        self._process.communicate()


def main():
    root = int(sys.argv[1])
    values = []
    while True:
        values.append(pss(root))
        ready, _, _ = select.select([sys.stdin], [], [], 0.001)
        if not ready:
            continue
        if not sys.stdin.readline():
            return
        values.append(pss(root))
        print(min(values), max(values), values[-1], flush=True)
        values = []


if __name__ == "__main__":
    main()
