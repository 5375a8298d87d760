"""Memory that runs out costs the job that took it, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jobs
from offloop import Pool
from offloop.errors import MemoryLimitExceeded, WorkerLost

MB = 1_000_000


async def test_a_job_over_the_limit_fails_alone(gate):
    reached, until = gate(), gate()
    async with Pool(2, memory_limit=500 * MB) as pool:
        other = pool.submit(jobs.meet, str(reached), str(until))
        await reached.reached()
        with pytest.raises(MemoryLimitExceeded, match="raise memory_limit") as caught:
            await pool.run(jobs.take, 1000 * MB)
        assert isinstance(caught.value, MemoryError)
        assert caught.value.function == "take"
        assert await pool.run(jobs.take, 100 * MB) == 100 * MB
        until.open()
        assert await other == "met"
        stats = pool.stats()
    assert stats.failed == 1
    assert stats.workers_lost == 0
    assert pool.stats().exits["out-of-memory"] == 1, "its state is not to be trusted"


@pytest.mark.slow
async def test_what_a_job_starts_counts_too(gate):
    reached, until = gate(), gate()
    async with Pool(2, memory_limit=300 * MB) as pool:
        other = pool.submit(jobs.meet, str(reached), str(until))
        await reached.reached()
        worker = await pool.run(jobs.pid)
        why = "the children of that held"
        with pytest.raises(MemoryLimitExceeded, match=why) as caught:
            await pool.run(jobs.print_then, "last", jobs.hold_in_child, 600 * MB)
        lost = caught.value.__cause__
        assert isinstance(lost, WorkerLost)
        assert (lost.pid, lost.signal, lost.reason) == (
            worker,
            "SIGKILL",
            "out-of-memory",
        )
        assert "last to stderr" in lost.output
        assert await pool.run(jobs.add, 1, 1) == 2
        assert pool.stats().exits == {"out-of-memory": 1}
        until.open()
        assert await other == "met", "others go on"


def own_group():
    """Return a control group for a test, None if none can be made."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        path = next(li.split(":", 2)[2] for li in lines if ":memory:" in li)
        group = Path(f"/sys/fs/cgroup/memory{path}/offloop-test-{os.getpid()}")
        group.mkdir()
        return group
    return None


_PROGRAM = """
import asyncio, os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
from offloop import Pool
from offloop.errors import WorkerLost
import jobs

async def main():
    async with Pool(2) as pool:
        await pool.ready()
        other = pool.submit(jobs.add, 1, 1)
        try:
            await pool.run(jobs.leak, 400_000_000)
        except WorkerLost as error:
            print(error.signal, error.reason, "memory ran out" in str(error))
        print(await other, await pool.run(jobs.add, 2, 2), pool.stats().exits)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_kill_by_the_kernel_for_lack_of_memory_is_named():
    group = own_group()
    if group is None:
        pytest.skip("needs a memory control group (version 1) that it may divide")
    try:
        (group / "memory.limit_in_bytes").write_text("250000000")
        path = os.pathsep.join(p for p in sys.path if p)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(group)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        group.rmdir()
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "SIGKILL out-of-memory True",
        "2 4 {'out-of-memory': 1}",
    ]


async def test_many_workers_are_watched_in_turns():
    async with Pool(4, memory_limit=300 * MB) as pool:
        await pool.ready()
        pids = [pool.submit(jobs.pid) for _ in range(40)]
        assert len(await asyncio.gather(*pids)) == 40
