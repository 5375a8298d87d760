"""Two processes and a Unix socket: what waking each other costs.

python benchmarks/limits/unix_socket.py
"""

from __future__ import annotations

import os
import socket
from time import perf_counter

NAME = "floor: Unix socket"


def measure(case: str, seconds: float) -> dict:
    ours, theirs = socket.socketpair()
    if not (child := os.fork()):
        ours.close()
        while message := theirs.recv(100):
            theirs.send(message)
        os._exit(0)
    theirs.close()
    times = []
    end = perf_counter() + seconds
    while (began := perf_counter()) < end:
        ours.send(b"x" * 64)
        ours.recv(100)
        times.append(perf_counter() - began)
    ours.close()
    os.waitpid(child, 0)
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}


if __name__ == "__main__":
    print(measure("round-trip", 1.0))
