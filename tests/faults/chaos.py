"""A storm: everything that can go wrong goes wrong, at random, and nothing is lost.

    python tests/faults/chaos.py [--seconds S] [--jobs N] [--seed X]

Hundreds of jobs are always under way: short and long ones, small and large arguments
and results, some that raise, crash, take too much memory or too long, loop in C, leave
a daemon, or are cancelled. The memory that they share is too small for all of them.
Meanwhile workers and forkservers are killed and stopped, the pool is resized and
reloaded, and other pools, with a process for each job and a sandbox perhaps, are
opened, stopped and killed beside it. What must hold all the same:

- every job ends once, with its own result or an error that it can end with;
- no job begins more often than it may;
- the event loop's process keeps its size;
- in the end no process, thread, descriptor, file or shared block is left.

Ends after `--seconds` or `--jobs`, whichever comes first; prints the seed and figures,
and exits with 1 if something did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import itertools
import logging
import os
import random
import signal
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import zmq

import leaks
from offloop import Pool, Recycle
from offloop.errors import (
    JobTimeout,
    MemoryLimitExceeded,
    PoisonJob,
    PoolFull,
    Quarantined,
    WorkerLost,
)

MB = 1_000_000
IN_FLIGHT = 200
#: what other pools may be: a process for each job, with and without rights
_APART = ({"isolation": "process"}, {"isolation": "process", "sandbox": True})
#: a program that keeps one piece of memory of every so many jobs leaks
LEAST_LEAK = 0.05
#: pieces that come and go with what is under way
NOISE = 10_000
#: no job takes longer than this, or something hangs
PATIENCE = 60.0

# What jobs do. Each notes its number when it begins.

_log: dict[str, int] = {}


def begin(log: str, job: int) -> None:
    if log not in _log:
        _log[log] = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.write(_log[log], job.to_bytes(8, "little"))


def digest(log, job, data):
    begin(log, job)
    return zlib.crc32(data)


def produce(log, job, size):
    begin(log, job)
    return pattern(job, size)


def spin(log, job, seconds):
    begin(log, job)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return job


def loop_in_c(log, job):
    begin(log, job)
    sum(itertools.repeat(0))


def leave_a_daemon(log, job):
    begin(log, job)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvpe("sleep", ["sleep", "1000"], {"PATH": os.defpath})
        os._exit(0)
    os.wait()
    return job


def fail(log, job):
    begin(log, job)
    raise LookupError(job)


def crash(log, job, how):
    begin(log, job)
    if how == "exit":
        os._exit(job % 100)
    os.kill(os.getpid(), how)
    signal.pause()


def crash_twice(log, job, flag):
    begin(log, job)
    with open(flag, "a") as file:
        file.write("x")
    if os.path.getsize(flag) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    os.unlink(flag)
    return job


def grow(log, job, size):
    begin(log, job)
    return len(b"x" * size)


def pattern(job, size):
    return (job.to_bytes(8, "little") * (size // 8 + 1))[:size]


class Weight(NamedTuple):
    """What this process holds at one moment."""

    #: jobs that had begun
    jobs: int
    #: bytes that are in memory: those of its own, and those that it shares with workers
    own: int
    shared: int
    #: Python's own count of pieces of memory that objects have
    blocks: int

    @classmethod
    def now(cls, jobs: int) -> Weight:
        # What was dropped, or is kept for the next large payload, is nobody's.
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        own, shared = (
            1024 * int(lines[f"Rss{k}"].split()[0]) for k in ("Anon", "Shmem")
        )
        return cls(jobs, own, shared, sys.getallocatedblocks())


@dataclass
class Storm:
    """One run: what was done, what came of it, and what should not have."""

    seed: int
    folder: str
    seconds: float
    jobs: int
    random: random.Random = field(init=False)
    begun: int = 0
    endings: Counter = field(default_factory=Counter)
    events: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    #: how often a job may begin, if that is not once
    allowed: dict[int, int] = field(default_factory=dict)
    weights: list[Weight] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.log = f"{self.folder}/log"
        Path(self.log).touch()
        self.ends_at = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        late = time.monotonic() >= self.ends_at
        return late or self.begun >= self.jobs or len(self.wrong) > 100

    async def run(self) -> None:
        recycle = Recycle(max_jobs=2000, max_age=5, max_rss=200 * MB)
        options = {"grace": 0.05, "recycle": recycle, "memory_limit": 600 * MB}
        options |= {"max_pending": None, "arena_limit": 48 * MB, "spare_workers": 1}
        async with Pool(3, name="chaos", **options) as pool:
            works = (self.kill, self.stop, self.reshape, self.weigh, self.neighbour)
            demons = [asyncio.ensure_future(demon(pool)) for demon in works]
            await asyncio.gather(*(self.load(pool) for _ in range(IN_FLIGHT)))
            for demon in demons:
                demon.cancel()
            await asyncio.gather(*demons, return_exceptions=True)
            self.exits = dict(pool.stats().exits)

    # Jobs

    async def load(self, pool: Pool) -> None:
        kinds = [self.short, self.result, self.spins, self.fails, self.cancels]
        kinds += [self.large, self.late, self.crashes, self.retried, self.memory]
        kinds += [self.full, self.stuck, self.daemon]
        weights = [20_000, 5000, 200, 1000, 200, 80, 10, 10, 4, 4, 10, 4, 4]
        while not self.over:
            self.begun += 1
            (kind,) = self.random.choices(kinds, weights)
            await self.judge(kind, pool, self.begun)

    async def judge(self, kind, pool: Pool, job: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                ending = await kind(pool, job)
        except WorkerLost:  # anybody's worker may be killed at any time
            ending = "worker lost"
        except Quarantined:  # of a function none of whose jobs comes to its end
            never_live = (self.crashes, self.stuck)
            ending = "refused as expected" if kind in never_live else "quarantined"
        except PoisonJob:
            ending = "poison"
        except TimeoutError as error:
            ending = "hangs" if type(error) is TimeoutError else repr(error)
        except Exception as error:
            ending = repr(error)
        self.endings[f"{kind.__name__}: {ending or 'right'}"] += 1
        if ending not in (None, "worker lost", "expected", "refused as expected"):
            self.wrong.append(f"job {job} ({kind.__name__}): {ending}")

    async def short(self, pool, job):
        data = pattern(job, self.random.choice((0, 10, 1000, 30_000)))
        if await pool.run(digest, self.log, job, data) != zlib.crc32(data):
            return "wrong result"

    async def large(self, pool, job):
        data = pattern(job, self.random.randrange(8 * MB))
        if await pool.run(digest, self.log, job, data) != zlib.crc32(data):
            return "wrong result"

    async def full(self, pool, job):
        """Take all memory that arguments may have: some fit, the next is refused."""
        data = pattern(job, 7 * MB)
        going = []
        try:
            for _ in range(8):
                self.allowed[job] = len(going) + 1
                going.append(pool.submit(digest, self.log, job, data))
        except PoolFull:
            self.events["memory was full"] += 1
        await asyncio.wait(going) if going else None
        lost = [isinstance(one.exception(), WorkerLost) for one in going]
        right = [
            not bad and one.result() == zlib.crc32(data)
            for bad, one in zip(lost, going, strict=True)
        ]
        if not all(bad or good for bad, good in zip(lost, right, strict=True)):
            return "wrong result"

    async def result(self, pool, job):
        size = self.random.choice((0, 100, 5000, 20_000, 300_000, 3 * MB))
        if await pool.run(produce, self.log, job, size) != pattern(job, size):
            return "wrong result"

    async def spins(self, pool, job):
        seconds = self.random.random() * 0.01
        if await pool.run(spin, self.log, job, seconds) != job:
            return "wrong result"

    async def fails(self, pool, job):
        try:
            await pool.run(fail, self.log, job)
        except LookupError as error:
            return None if error.args == (job,) else f"wrong error {error!r}"
        return "did not fail"

    async def cancels(self, pool, job):
        running = pool.submit(spin, self.log, job, self.random.random() * 0.05)
        await asyncio.sleep(self.random.random() * 0.1)
        done = not running.cancel()
        try:
            return None if await running == job and done else "wrong result"
        except asyncio.CancelledError:
            return "expected" if not done else "cancelled by somebody else"

    async def late(self, pool, job):
        try:
            await pool.options(run_timeout=0.05).run(spin, self.log, job, 600)
        except JobTimeout:
            return "expected"
        return "did not time out"

    async def stuck(self, pool, job):
        """Never let go of the interpreter: only a kill from outside ends that."""
        try:
            await pool.options(run_timeout=0.05).run(loop_in_c, self.log, job)
        except JobTimeout:
            return "expected"
        return "did not time out"

    async def daemon(self, pool, job):
        """Leave a process that has left its worker's group and family."""
        if await pool.run(leave_a_daemon, self.log, job) != job:
            return "wrong result"

    async def crashes(self, pool, job):
        how = self.random.choice((signal.SIGKILL, signal.SIGSEGV, "exit"))
        await pool.run(crash, self.log, job, how)
        return "did not crash"

    async def retried(self, pool, job):
        self.allowed[job] = 4
        flag = f"{self.folder}/flag{job}"
        try:
            done = await pool.options(retries=3).run(crash_twice, self.log, job, flag)
        except PoisonJob:  # the third worker was killed by somebody else
            return "expected"
        return None if done == job else "wrong result"

    async def memory(self, pool, job):
        try:
            await pool.run(grow, self.log, job, 1000 * MB)
        except MemoryLimitExceeded:
            return "expected"
        return "got the memory"

    # Demons

    def victim(self, pool):
        supervisor = pool._engine._supervisor
        workers = [one.pid for one in supervisor.workers if supervisor.works(one)]
        return self.random.choice(workers) if workers else None

    async def kill(self, pool):
        last_forkserver = time.monotonic()
        while True:
            await asyncio.sleep(self.random.random() * 0.4)
            victim = self.victim(pool)
            with contextlib.suppress(ProcessLookupError, TypeError, psutil.Error):
                if time.monotonic() - last_forkserver > 15:
                    last_forkserver = time.monotonic()
                    victim = psutil.Process(victim).ppid()
                    self.events["kill forkserver"] += 1
                os.kill(victim, signal.SIGKILL)
                self.events["kill"] += 1

    async def stop(self, pool):
        while True:
            await asyncio.sleep(self.random.random())
            victim = self.victim(pool)
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(victim, signal.SIGSTOP)
                self.events["stop"] += 1
                await asyncio.sleep(self.random.random() * 0.2)
                os.kill(victim, signal.SIGCONT)

    async def reshape(self, pool):
        while True:
            await asyncio.sleep(self.random.random() * 3)
            if self.random.random() < 0.3:
                await pool.reload()
                self.events["reload"] += 1
            else:
                await pool.resize(self.random.randrange(1, 6))
                self.events["resize"] += 1

    async def neighbour(self, pool):
        """Open another pool, give it work, and end it in any way, in the middle."""
        while True:
            await asyncio.sleep(self.random.random() * 8)
            kind = self.random.choice(({}, *_APART))
            other = await Pool(1, name="neighbour", grace=0.05, **kind).start()
            try:
                going = [other.submit(spin, self.log, 0, 0.01) for _ in range(20)]
                self.allowed[0] = self.allowed.get(0, 0) + len(going)
                await asyncio.sleep(self.random.random() * 0.2)
                stop = partial(other.stop, 0.05)
                await self.random.choice((other.kill, other.close, stop))()
            finally:
                await other.kill()
            if not all(one.done() for one in going):
                self.wrong.append("a job of a pool that has ended has not")
            self.events["another pool ended"] += 1

    async def weigh(self, pool):
        while True:
            await asyncio.sleep(1)
            self.weights.append(Weight.now(self.begun))

    # Afterwards

    def check_runs(self) -> int:
        """Look how often each job began; returns the number of beginnings."""
        numbers = Path(self.log).read_bytes()
        runs = Counter(
            int.from_bytes(numbers[at : at + 8], "little")
            for at in range(0, len(numbers), 8)
        )
        for job, count in runs.items():
            if count > self.allowed.get(job, 1):
                self.wrong.append(f"job {job} began {count} times")
        return sum(runs.values())

    def check_size(self) -> str:
        """Compare what the process held in the second and in the last quarter.

        Memory goes up and down with the payloads that are under way, so there is some
        room; the number of pieces that Python has does not, and shows a slow leak.
        """
        quarter = len(self.weights) // 4
        if quarter < 10:
            return "too short to tell its size"
        quarters = [
            Weight(*map(median, zip(*self.weights[at : at + quarter], strict=True)))
            for at in range(0, 4 * quarter, quarter)
        ]
        _, early, _, late = quarters
        kept = late.blocks - early.blocks
        if late.own > early.own * 1.1 + 10 * MB:
            self.wrong.append("it grew")
        if kept > LEAST_LEAK * (late.jobs - early.jobs) + NOISE:
            self.wrong.append(f"{kept:,.0f} pieces of memory have stayed")
        own, shared = (
            ", ".join(f"{getattr(one, kind) / MB:.0f}" for one in quarters)
            for kind in ("own", "shared")
        )
        return (
            f"by quarters it held {own} MB, and shared {shared} MB with its workers; "
            f"{kept:+,.0f} pieces of memory from the second to the last"
        )


def run(seconds: float, jobs: int, seed: int) -> Storm:
    """Run a storm, and return it with whatever did not hold in `wrong`."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        storm = Storm(seed, folder, seconds, jobs)
        asyncio.run(storm.run())
        storm.runs = storm.check_runs()
        storm.size = storm.check_size()
    return storm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--jobs", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ol-") as runtime:
        os.environ["OFFLOOP_RUNTIME_DIR"] = runtime
        leaks.adopt_orphans()
        asyncio.run(warm_up())
        before = leaks.take(runtime)
        began = time.monotonic()
        storm = run(given.seconds, given.jobs, seed)
        took = time.monotonic() - began
        storm.wrong += leaks.find(before, runtime)
    for title, counts in (
        ("endings", storm.endings),
        ("events", storm.events),
        ("workers ended", storm.exits),
    ):
        print(f"{title}:")
        for name, count in sorted(counts.items(), key=lambda item: -item[1]):
            print(f"  {count:9,} {name}")
    print(f"{storm.begun:,} jobs in {took:.0f} s, {storm.runs:,} runs; {storm.size}")
    for text in storm.wrong[:50]:
        print(f"WRONG: {text}")
    print(f"{len(storm.wrong)} violations")
    return bool(storm.wrong)


async def warm_up() -> None:
    """Let libraries open what they keep for good."""
    zmq.Frame(bytes(100_000), copy=False)
    async with Pool(1) as pool:
        await pool.run(bytes, 100_000)


if __name__ == "__main__":
    warnings.simplefilter("error")
    logging.getLogger("offloop").setLevel(
        logging.ERROR
    )  # who hangs is killed: so be it
    sys.exit(main())
