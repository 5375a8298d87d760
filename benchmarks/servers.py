"""What a blocked server and a burst cost new connections, beside other servers.

    python -m benchmarks.servers

Starts each server with four processes, in turns, and gives it two loads with the same
settings: one process is blocked for 3 s and 100 connections come; then 40 requests come
at once, each of which blocks its process for 100 ms (1.0 s would be perfect). Peers
that are not installed are left out.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

WORKERS = 4
BLOCKED = 3.0
CONNECTIONS = 100
BURST = 40
BUSY = 0.1
ROUNDS = 3

APP = "benchmarks.servers:app"

# A connection that waits for longer has waited for the blocked process.
STALLED = 1.0


async def live(receive, send):
    """Begin when the server does, and end with it: all of ASGI's lifespan."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"].endswith("shutdown"):
            return


async def app(scope, receive, send):
    """Block for as many seconds as the path says, then tell the process's number."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    time.sleep(float(scope["path"].strip("/") or 0))  # noqa: ASYNC251
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def commands(port):
    """Return how each server is started."""
    python = [sys.executable, "-m"]
    workers = ["--workers", str(WORKERS)]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    bind = ["--bind", f"127.0.0.1:{port}"]
    quiet = ["--no-access-log"]
    offloop = [*python, "offloop", "serve", APP, *workers, "--compute", "0"]
    gunicorn = [*python, "gunicorn", APP, *workers, *bind]
    return {
        "offloop serve": [*offloop, *bind, *quiet],
        "uvicorn": [*python, "uvicorn", APP, *workers, *where, *quiet],
        "gunicorn -k asgi": [*gunicorn, "-k", "asgi"],
        "granian": [*python, "granian", "--interface", "asgi", APP, *workers, *where],
        "hypercorn": [*python, "hypercorn", APP, *workers, *bind],
    }


async def ask(port, seconds):
    """Return which process has answered, and after how long."""
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /{seconds} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    writer.write(request.encode())
    answer = await reader.read()
    writer.close()
    return answer.rpartition(b"\r\n")[2], time.perf_counter() - begin


async def until_up(port, process):
    """Wait until all processes have answered, or some of them for long enough."""
    seen = set()
    deadline = time.monotonic() + 20
    while len(seen) < WORKERS and time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it has ended with {process.returncode}")
        with contextlib.suppress(OSError):
            answers = await asyncio.gather(*(ask(port, 0.01) for _ in range(8)))
            seen |= {answer for answer, _ in answers}
        await asyncio.sleep(0.05)


async def blocked(port):
    """Return how many connections wait for a process that is blocked."""
    first = asyncio.ensure_future(ask(port, BLOCKED))
    await asyncio.sleep(0.2)  # it has begun
    others = await asyncio.gather(*(ask(port, 0) for _ in range(CONNECTIONS)))
    await first
    return sum(took > STALLED for _, took in others)


async def burst(port):
    """Return how long a burst takes, and the share of each process."""
    begin = time.perf_counter()
    answers = await asyncio.gather(*(ask(port, BUSY) for _ in range(BURST)))
    took = time.perf_counter() - begin
    shares = collections.Counter(answer for answer, _ in answers)
    return took, sorted(shares.values(), reverse=True)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as some:
        return some.getsockname()[1]


async def load(port, process):
    """Return what one round has shown."""
    await until_up(port, process)
    stalled = await blocked(port)
    return (stalled, *await burst(port))


def measure(name, figures):
    """Add one round of a server to its figures."""
    port = free_port()
    process = subprocess.Popen(
        commands(port)[name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        figures.setdefault(name, []).append(asyncio.run(load(port, process)))
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_there(name):
    """Tell whether a server can be started."""
    package = name.split()[0]
    program = os.path.join(os.path.dirname(sys.executable), package)
    return shutil.which(program) is not None


def main():
    """Print the table."""
    figures = {}
    names = [name for name in commands(0) if is_there(name)]
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        os.environ["OFFLOOP_RUNTIME_DIR"] = folder
        for _ in range(ROUNDS):
            for name in names:
                measure(name, figures)
    print(f"{'':<18}{'stalled of ' + str(CONNECTIONS):>16}{'burst, s':>10}  shares")
    for name, rounds in figures.items():
        stalled = max(one[0] for one in rounds)
        took = statistics.median(one[1] for one in rounds)
        shares = next("/".join(map(str, r[2])) for r in rounds if r[1] == took)
        print(f"{name:<18}{stalled:>16}{took:>10.2f}  {shares}")


if __name__ == "__main__":
    main()
