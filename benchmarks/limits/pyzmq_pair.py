"""Two processes and a pair of ZeroMQ sockets: the transport without a pool around it.

    python benchmarks/limits/pyzmq_pair.py

A message of 64 bytes goes and comes back, one at a time; then 64 and 1,000 are always
on their way, as many as there are in each message that is sent.
"""

from __future__ import annotations

import os
import tempfile
from time import perf_counter

import zmq

NAME = "floor: raw pyzmq PAIR"
MESSAGE = b"x" * 64


def echo(address: str) -> None:
    """Send back whatever comes, until an empty message does."""
    socket = zmq.Context().socket(zmq.PAIR)
    socket.connect(address)
    while message := socket.recv():
        socket.send(message)
    socket.close()


def measure(case: str, seconds: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/pair"
        if not (child := os.fork()):
            echo(address)
            os._exit(0)
        context = zmq.Context()
        socket = context.socket(zmq.PAIR)
        socket.bind(address)
        for _ in range(100):
            socket.send(MESSAGE)
            socket.recv()
        found = ping_pong(socket, seconds) if case == "round-trip" else {}
        if case == "throughput":
            found = {
                "one": pipeline(socket, 64, seconds),
                "crowd": pipeline(socket, 1000, seconds),
            }
        socket.send(b"")
        os.waitpid(child, 0)
        socket.close()
        context.term()
    return found


def ping_pong(socket: zmq.Socket, seconds: float) -> dict:
    times = []
    end = perf_counter() + seconds
    while (began := perf_counter()) < end:
        socket.send(MESSAGE)
        socket.recv()
        times.append(perf_counter() - began)
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}


def pipeline(socket: zmq.Socket, in_flight: int, seconds: float) -> float:
    """Return messages a second, there and back, with so many on their way."""
    for _ in range(in_flight):
        socket.send(MESSAGE)
    done, began = 0, perf_counter()
    while perf_counter() < began + seconds:
        for _ in range(in_flight):
            socket.recv()
            socket.send(MESSAGE)
        done += in_flight
    took = perf_counter() - began
    for _ in range(in_flight):
        socket.recv()
    return done / took


if __name__ == "__main__":
    print(measure("round-trip", 1.0), measure("throughput", 1.0))
