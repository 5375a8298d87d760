"""Requests without a pause while everything that can happen to a server does.

    python -m benchmarks.cluster_storm                500 GET/s, straight to the port
    python -m benchmarks.cluster_storm --haproxy      the same through HAProxy

Twenty servers are killed, the application is reloaded five times, servers are scaled
from 2 to 4, to 1 and back, the coordinator is killed, and a new primary takes over. A
part of the requests needs the shared pool, most come over connections of their own, the
others over some that stay open. Each request that gets no answer, or a bad one, is told
with the kill that it met; one that met none is a fault, and the exit code is 1. With
HAProxy in front there may be none at all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks.servers import free_port
from offloop import offload
from offloop.cluster import control
from offloop.cluster.proxies import Front, haproxy

APP = "benchmarks.cluster_storm:app"

# Connections that stay open, and the share of requests that use them.
KEPT = 8
SHARE_KEPT = 0.3

# Of so many requests one needs the shared pool.
OFFLOADED = 10

# Seconds after a process was killed in which clients notice it.
SLACK = 0.05

# Seconds after which a request counts as lost.
PATIENCE = 20.0

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
HAPROXY = shutil.which("haproxy", path=_PATH)


@offload
def double(number):
    return 2 * number


async def app(scope, receive, send):
    """Tell which process answers; below /offloaded after a job in the shared pool."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"].endswith("shutdown"):
                return
    if scope["path"] == "/offloaded":
        assert await double(21) == 42
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Clients:
    """Ask at a steady rate, whatever becomes of the answers.

    Args:
        port: to ask at.
        rate: requests a second.
        seed: of their choices.
    """

    def __init__(self, port, rate, seed=1):
        self._port = port
        self._rate = rate
        self._random = random.Random(seed)
        self._idle = []
        self._asking = set()
        self.answered = 0
        #: of each failure: when it was sent, when it was known, and what it was
        self.failures = []
        #: processes that have answered
        self.pids = set()
        #: the longest time until an answer
        self.longest = 0.0

    async def run(self, ended):
        """Ask until an event is set; returns when the last answer has come."""
        begun, count = time.monotonic(), 0
        while not ended.is_set():
            due = int((time.monotonic() - begun) * self._rate)
            for _ in range(due - count):
                task = asyncio.ensure_future(self._ask(count))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                count += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 1 / self._rate)
        await asyncio.gather(*self._asking)
        for _, writer in self._idle:
            writer.close()

    async def _ask(self, number):
        begun = time.monotonic()
        path = "/" if number % OFFLOADED else "/offloaded"
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._answer(path)
            if not answer.startswith("HTTP/1.1 200 "):
                raise ConnectionError(f"answer {answer!r}")
            self.answered += 1
            self.pids.add(int(answer.rpartition("\n")[2]))
            self.longest = max(self.longest, time.monotonic() - begun)
        except (OSError, EOFError, TimeoutError) as error:
            self.failures.append((begun, time.monotonic(), path, repr(error)))

    async def _answer(self, path):
        """Return an answer, over a new connection or one that stays open."""
        keep = self._random.random() < SHARE_KEPT
        while keep and self._idle:
            reader, writer = self._idle.pop(0)
            if not (reader.at_eof() or writer.is_closing()):
                with contextlib.suppress(ConnectionError, EOFError):
                    return await self._over(reader, writer, path, keep)
                # It was closed in that very moment: who asks again asks over a new
                # one (RFC 9112, 9.3.1).
                keep = False
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            return await self._over(reader, writer, path, keep)
        except BaseException:
            writer.close()
            raise

    async def _over(self, reader, writer, path, keep):
        last = "" if keep else "connection: close\r\n"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n{last}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.decode().lower()
        length = words.partition("content-length: ")[2].split("\r\n")[0]
        body = await reader.readexactly(int(length or 0))
        if keep and "connection: close" not in words and len(self._idle) < KEPT:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return (head + body).decode()


class Storm:
    """All that happens meanwhile.

    Args:
        name: of the `offloop serve` that it happens to.
        seed: of what is chosen.
    """

    def __init__(self, name, seed=1):
        self._name = name
        self._random = random.Random(seed)
        #: when each killed process was there no more, at the latest
        self.kills = []
        self.events = []

    async def do(self, command, **details):
        """Have a command done."""
        begun = time.monotonic()
        answer = await asyncio.to_thread(control.ask, self._name, command, **details)
        if not answer["ok"]:
            raise RuntimeError(f"{command}: {answer['error']}")
        if command != "status":
            self.events.append((f"{command} {details or ''}", time.monotonic() - begun))
        return answer

    async def kill(self, role):
        """Kill a process, and wait until another one works in its place."""
        found = await self._ready(role)
        pid = self._random.choice(found)
        begun = time.monotonic()
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        gone = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, lambda: gone.done() or gone.set_result(None))
        await gone
        loop.remove_reader(descriptor)
        os.close(descriptor)
        self.kills.append((begun, time.monotonic() + SLACK, role))
        # It is asked over a socket.
        while len(await self._ready(role)) < len(found):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self.events.append((f"kill a {role}", time.monotonic() - begun))

    async def _ready(self, role):
        seen = (await self.do("status"))[f"{role}s"]
        return [one["pid"] for one in seen if one["state"] == "ready"]

    def cause_of(self, failure):
        """Return which kill a failure met; None: none."""
        sent, known, *_ = failure
        for begun, ended, role in self.kills:
            if sent <= ended and known >= begun:
                return role
        return None


async def weather(storm, kills, reloads, most):
    """Let all of it happen, evenly mixed."""
    await storm.do("scale", servers=most)
    for number in range(reloads):
        for _ in range(kills // reloads):
            await storm.kill("server")
        if number == reloads // 2:
            await storm.kill("coordinator")
            await storm.do("scale", servers=1)
            await storm.do("upgrade")
            await storm.do("scale", servers=2)
        await storm.do("reload")


@contextlib.contextmanager
def serving(port, name):
    """Serve at a port until the end, whichever process has taken over meanwhile."""
    command = [sys.executable, "-m", "offloop", "serve", APP, "--workers", "2"]
    command += ["--compute", "1", "--name", name, "--no-access-log"]
    command += ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "10"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while not _serves(name):
                if process.poll() is not None:
                    raise RuntimeError("it has not begun")
                time.sleep(0.05)
            yield log
        finally:
            home = control.runtime.home_of(name)
            with contextlib.suppress(Exception):
                control.ask(name, "stop")
            while home.exists():
                time.sleep(0.05)
            process.wait()


def _serves(name):
    try:
        return control.ask(name, "status")["state"] == "serving"
    except Exception:
        return False


@contextlib.contextmanager
def balancing(port):
    """Put HAProxy in front of a port; gives its own."""
    front = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as config:
        address = f"127.0.0.1:{port}"
        config.write(haproxy(Front((address,), listen=f"127.0.0.1:{front}")))
        config.flush()
        process = subprocess.Popen([HAPROXY, "-f", config.name])
        try:
            time.sleep(0.5)  # it listens
            yield front
        finally:
            process.terminate()
            process.wait()


async def measure(port, name, rate, kills, reloads, seed, most=4):
    """Return the clients and the storm, when it is over."""
    clients, storm = Clients(port, rate, seed), Storm(name, seed)
    ended = asyncio.Event()
    asking = asyncio.ensure_future(clients.run(ended))
    try:
        await weather(storm, kills, reloads, most)
        await asyncio.sleep(0.5)
    finally:
        ended.set()
        await asking
    return clients, storm


def main():
    """Print what happened, and what became of the requests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--haproxy", action="store_true", help="put it in front")
    parser.add_argument("--rate", type=int, default=500, help="requests a second")
    parser.add_argument("--kills", type=int, default=20, help="servers to kill")
    parser.add_argument("--reloads", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="b", ignore_cleanup_errors=True)
        os.environ["OFFLOOP_RUNTIME_DIR"] = stack.enter_context(folder)
        port = front = free_port()
        log = stack.enter_context(serving(port, "storm"))
        if chosen.haproxy:
            front = stack.enter_context(balancing(port))
        begun = time.monotonic()
        clients, storm = asyncio.run(
            measure(
                *(front, "storm", chosen.rate, chosen.kills, chosen.reloads),
                chosen.seed,
            )
        )
        took = time.monotonic() - begun
        faults = [one for one in clients.failures if storm.cause_of(one) is None]
        if faults:
            log.seek(0)
            sys.stderr.write(log.read().decode()[-20_000:])
    for event, seconds in storm.events:
        print(f"{event:<28}{seconds:>7.2f} s")
    asked = clients.answered + len(clients.failures)
    print(f"{asked} requests in {took:.1f} s ({asked / took:.0f}/s)")
    print(f"{clients.answered} answered by {len(clients.pids)} processes")
    print(f"{clients.longest:.2f} s was the longest wait for an answer")
    met = len(clients.failures) - len(faults)
    print(f"{met} were in flight when a process was killed")
    for sent, known, path, what in clients.failures:
        cause = storm.cause_of((sent, known))
        print(f"  {path} after {known - sent:.3f} s, {cause or 'NO KILL'}: {what}")
    print(f"{len(faults)} failed for no reason")
    sys.exit(bool(clients.failures if chosen.haproxy else faults))


if __name__ == "__main__":
    main()
