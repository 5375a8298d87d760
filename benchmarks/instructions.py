"""How many instructions a job costs: a guard against growth that no clock disturbs.

    python benchmarks/instructions.py [--check | --write]

Counted by valgrind (callgrind), for a no-op job from its submission to its result:

    coordinator   `await pool.run(...)`, with a worker that answers at once
    worker        a message of jobs, with a parent that only listens

    stream        64 callers at a time: jobs and answers travel in bundles
    lone          one job after the other

Each side runs alone in its process, and what is on the other side is a loopback that
answers with bytes that were made before: so the figures are the same on an idle and on
a busy machine. They contain the interpreter, asyncio and our code. They do not contain
ZeroMQ, the kernel, or waiting: a change that makes more messages of the same jobs shows
in `messages`, which are counted too, and not in the instructions. Time is not real: the
clocks of both move on by a microsecond with each look at them.

Two builds of one version of Python differ by some 6 %, so `instructions.json`, beside
this file, has a column for each full version it was written with. ``--check`` exits
with 1 if a figure has grown by more than 10 % over it; a version that it lacks is held
against the nearest one of the same feature release, and another release is not checked.
``--write`` writes the column of this version.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import marshal
import operator
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from offloop import Pool, messages
from offloop import worker as module
from offloop.engines import local, scheduled
from offloop.wire.status import StatusPage, create_file
from offloop.workspace import Workspace

KEPT = Path(__file__).with_suffix(".json")
GROWTH = 1.10
VERSION = platform.python_version()

IN_FLIGHT = 64
#: jobs that are counted of each kind; as many run before, so that all is warm
JOBS = {"stream": 2048, "lone": 256}
SIDES = ("coordinator", "worker")


#: a no-op that workers can import
nothing = operator.pos


def mark():
    """Let valgrind write down what was counted since the last mark.

    It is told to do so when this function of the C library is entered, which nobody
    else calls meanwhile.
    """
    os.getppid()


class SlowClock:
    """The module `time`, but time passes by looking at it: a microsecond each."""

    def __init__(self):
        self._ns = time.monotonic_ns()

    def __getattr__(self, name):
        return getattr(time, name)

    def monotonic_ns(self):
        self._ns += 1000
        return self._ns

    def monotonic(self):
        return self.monotonic_ns() / 1e9


# ---- the coordinator -----------------------------------------------------------------


class LoopbackChannel:
    """Stands for a worker: answers each message of jobs in the next turn of the loop.

    The answers' bytes are made by `marshal`, as the real ones, and cost as much here as
    reading the message would: two halves of what the worker's side counts.
    """

    def __init__(self, engine, line):
        self._answer = lambda: engine.loop.call_soon(engine._read, line)
        self._real = line.worker.channel
        self._answers = deque()
        self.sent = 0

    def send(self, message, buffers=()):
        self.sent += 1
        marshal.dumps(message, 2)
        results = [(row[0], (row[2], 1.0), 1e-6) for row in message[1]]
        self._answers.append(marshal.dumps((messages.RESULTS, results), 2))
        self._answer()

    def receive_nowait(self):
        return marshal.loads(self._answers.popleft()) if self._answers else None

    def wants_reading(self):
        return False

    def __getattr__(self, name):
        return getattr(self._real, name)


async def run_coordinator():
    """Run jobs of both kinds; returns the messages that they took."""

    async def caller(count):
        for value in range(count):
            await pool.run(nothing, value)

    async def stream(count):
        await asyncio.gather(*(caller(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))

    kinds = {"stream": stream, "lone": caller}
    sent = {}
    async with Pool(1) as pool:
        await pool.ready()
        await pool.run(nothing, 0)
        engine = pool._engine
        (line,) = engine._lines.values()
        real = line.worker.channel
        loopback = line.worker.channel = LoopbackChannel(engine, line)
        clock = scheduled.time = local.time = SlowClock()
        loop = asyncio.get_running_loop()
        loop.time = clock.monotonic
        for kind, run in kinds.items():
            await run(JOBS[kind])
            before = loopback.sent
            mark()
            await run(JOBS[kind])
            mark()
            sent[kind] = loopback.sent - before
        line.worker.channel = real
        scheduled.time = local.time = time
        del loop.time
    return sent


# ---- the worker ----------------------------------------------------------------------


class ScriptedChannel:
    """Stands for the parent: hands out messages that were made before."""

    def __init__(self, script):
        self._script = script
        self.sent = 0

    def receive(self):
        while callable(step := next(self._script)):
            step()
        return marshal.loads(step)

    receive_soon = receive

    def receive_nowait(self):
        return None

    def send(self, message, buffers=()):
        self.sent += 1
        marshal.dumps(message, 2)

    def set_timeout(self, seconds):
        pass


def run_worker():
    """Run jobs of both kinds; returns the messages that they took."""
    module.time = SlowClock()
    sent = {}

    def jobs(kind, count):
        size = IN_FLIGHT // 2 if kind == "stream" else 1
        for first in range(0, count, size):
            calls = [(job + 1, 1, (job,)) for job in range(first, first + size)]
            yield marshal.dumps((messages.JOBS, calls), 2)

    def script():
        definition = b"R_operator\0pos"
        yield marshal.dumps((messages.JOBS, [], [(1, definition)], [], [], [], []), 2)
        for kind, count in JOBS.items():
            yield from jobs(kind, count)
            counted = list(jobs(kind, count))
            before = channel.sent
            mark()
            yield from counted
            mark()
            sent[kind] = channel.sent - before
        yield marshal.dumps((messages.STOP,), 2)

    channel = ScriptedChannel(script())
    files = (os.memfd_create("requests"), os.memfd_create("results"))
    worker = module.Worker(1, channel, StatusPage(create_file()), Workspace(*files))
    worker.run(None)
    return sent


# ---- counting ------------------------------------------------------------------------


def start(side, folder):
    """Start counting one side; its dumps go to `folder`."""
    command = [
        "valgrind",
        "--tool=callgrind",
        "--dump-before=getppid",
        f"--callgrind-out-file={folder}/{side}",
        sys.executable,
        __file__,
        "--side",
        side,
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read(side, folder, sent):
    """Return what one side costs for each kind of job."""
    # One dump for each mark: after a warm run, and after a counted one, of each kind.
    found = {}
    for index, (kind, count) in enumerate(JOBS.items()):
        text = Path(folder, f"{side}.{2 * index + 2}").read_text()
        total = int(re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)[1])
        found[f"{side}, {kind}"] = {
            "instructions": round(total / count),
            "messages": round(sent[kind] / count, 4),
        }
    return found


def count():
    """Count both sides at once; returns the figures by side and kind."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        running = {side: start(side, folder) for side in SIDES}
        for side, process in running.items():
            said, errors = process.communicate(timeout=180)
            if process.returncode:
                raise SystemExit(f"the {side} cannot be counted:\n{errors[-2000:]}")
            found |= read(side, folder, json.loads(said.splitlines()[-1]))
    return found


def nearest(columns):
    """Return the column that this interpreter is held against; {} for none."""
    feature = VERSION.rpartition(".")[0]
    alike = [name for name in columns if name.rpartition(".")[0] == feature]
    return columns.get(VERSION) or (columns[max(alike)] if alike else {})


def show(found, kept):
    """Print the table; returns the names of the figures that have grown too much."""
    print(f"{'a job':22}{'instructions':>13}{'kept':>9}{'messages':>10}{'kept':>8}")
    grown = []
    for name, now in found.items():
        before = kept.get(name, {"instructions": 0, "messages": 0})
        if kept and any(now[what] > before[what] * GROWTH for what in now):
            grown.append(name)
        print(
            f"{name:22}{now['instructions']:13,}{before['instructions']:9,}"
            f"{now['messages']:10.3f}{before['messages']:8.3f}"
            f"{'  has grown' if name in grown else ''}"
        )
    return grown


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help="fail if a job costs more")
    parser.add_argument("--write", action="store_true", help="keep what is counted now")
    options = parser.parse_args()
    if options.side is not None:
        run = run_worker() if options.side == "worker" else run_coordinator()
        print(json.dumps(run if options.side == "worker" else asyncio.run(run)))
        return 0
    if shutil.which("valgrind") is None:
        print("instructions are not counted: valgrind is not installed")
        return 0 if options.check else 1
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    found = count()
    expected = nearest(kept)
    grown = show(found, expected)
    if options.write:
        kept[VERSION] = found
        KEPT.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    elif not expected:
        print(f"nothing is kept for Python {VERSION}: see --write")
    elif options.check and grown:
        print(f"more than {GROWTH - 1:.0%} over {KEPT.name}: {', '.join(grown)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
