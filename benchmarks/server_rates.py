"""How many requests several servers answer, beside one and beside uvicorn's.

    python -m benchmarks.server_rates

Two loads over connections that stay open: an answer that costs nothing, and one that
costs 20 ms of Python. The servers take turns; medians of the rounds are printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.servers import free_port, live

ROUNDS = 3
SECONDS = 3.0
CONNECTIONS = 16
BURN = 0.02

APP = "benchmarks.server_rates:app"

_BODY = b"hello"
_HEADERS = [(b"content-length", str(len(_BODY)).encode())]


async def app(scope, receive, send):
    """Answer; below /burn after 20 ms of the processor's time."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    if scope["path"] == "/burn":
        until = time.thread_time() + BURN
        while time.thread_time() < until:
            sum(range(1000))
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def commands(port):
    """Return how each server is started."""
    python = [sys.executable, "-m"]
    offloop = [*python, "offloop", "serve", APP, "--compute", "0", "--no-access-log"]
    offloop += ["--bind", f"127.0.0.1:{port}"]
    uvicorn = [*python, "uvicorn", APP, "--port", str(port), "--no-access-log"]
    return {
        "offloop serve -w 1": [*offloop, "-w", "1"],
        "offloop serve -w 2": [*offloop, "-w", "2"],
        "uvicorn --workers 2": [*uvicorn, "--workers", "2"],
    }


async def visit(port, path, deadline):
    """Ask over one connection until the deadline; returns how often."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode()
    count = 0
    while time.monotonic() < deadline:
        writer.write(request)
        await reader.readuntil(_BODY)
        count += time.monotonic() < deadline
    writer.close()
    return count


async def rate(port, path):
    """Return the requests that are answered in a second."""
    deadline = time.monotonic() + SECONDS
    visits = (visit(port, path, deadline) for _ in range(CONNECTIONS))
    return sum(await asyncio.gather(*visits)) / SECONDS


async def load(port):
    """Return the rates of both loads, once the server is up."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            await visit(port, "/", 0)
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)  # the second server may need a moment more
    return await rate(port, "/"), await rate(port, "/burn")


def measure(name):
    """Return what one round of a server has shown."""
    port = free_port()
    process = subprocess.Popen(
        commands(port)[name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return asyncio.run(load(port))
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main():
    """Print the table."""
    figures = {}
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        os.environ["OFFLOOP_RUNTIME_DIR"] = folder
        for _ in range(ROUNDS):
            for name in commands(0):
                figures.setdefault(name, []).append(measure(name))
    print(f"{'requests/s':<22}{'trivial':>10}{'20 ms of Python':>18}")
    for name, rounds in figures.items():
        trivial, burn = (
            statistics.median(column) for column in zip(*rounds, strict=True)
        )
        print(f"{name:<22}{trivial:>10.0f}{burn:>18.1f}")


if __name__ == "__main__":
    main()
