"""Memory runs out, by a real limit of the system: an error of that job alone.

Each program fills what there is, and goes on when it is free again. It may not be
killed: neither by the kernel for lack of memory, nor by SIGBUS.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

TESTS = Path(__file__).parent.parent
GROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")

PROGRAM = """
import asyncio, inspect, os, sys
sys.path.insert(0, sys.argv[1])
exec(sys.argv[2])
import numpy as np
import jobs, jobs_payloads as payloads
from offloop import Pool
from offloop.errors import WorkerLost
from offloop.wire import arena

SIZE = 16 * 1024 * 1024
arena.KEEP = 0.05

async def attempt(what, call):
    try:
        result = call()
        if inspect.isawaitable(result):
            result = await result
    except MemoryError as error:
        print(what, "refused:", str(error)[:16])
        return None
    except WorkerLost:
        print(what, "lost its worker")
        return None
    print(what, "done")
    return result

async def main():
    array = np.ones(SIZE, "u1")
    async with Pool(2, arena_limit="1GiB") as pool:
        await pool.ready()
        total = lambda: pool.run(payloads.total, array)
        one_more = lambda: pool.empty(SIZE, "u1")
        await attempt("run", total)
        held = []
        while (one := await attempt("empty", one_more)) is not None:
            one[:] = 1
            held.append(one)
        await attempt("run", total)
        await attempt("submit", lambda: pool.submit(payloads.total, array))
        await attempt("put", lambda: pool.put(array))
        result = await attempt("result", lambda: pool.run(payloads.ones, SIZE))
        whole = {int(one.sum()) for one in held} == {SIZE}
        print(await pool.run(jobs.add, 1, 2), whole)
        held.clear()
        while pool._engine._memory.arena.backed > SIZE:
            await pool._engine._wait_memory()
        await attempt("run", total)
        result = await attempt("result", lambda: pool.run(payloads.ones, SIZE))
        print(pool.stats().workers_lost, "lost")

asyncio.run(main())
"""


def check(command):
    """Run the program; return the lines that a test can expect."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    if "unshare" in ended.stderr or "mount" in ended.stderr:
        pytest.skip(f"not allowed to make a small file system: {ended.stderr}")
    assert ended.returncode == 0, ended.stderr  # which may tell of a lost worker
    lines = ended.stdout.splitlines()
    assert lines[:2] == ["run done", "empty done"]  # of which the first has memory
    return [line for line in lines[2:] if line != "empty done"]


REFUSED = [f"{what} refused: no shared memory" for what in ("empty", "run", "submit")]
REFUSED += ["put refused: no shared memory"]


@pytest.mark.slow
def test_a_full_file_system_where_there_is_no_memfd():
    inside = [
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
        'mount -t tmpfs -o size=72m full /dev/shm && exec "$@"',
        *("sh", sys.executable, "-c", PROGRAM, str(TESTS), "del os.memfd_create"),
    ]
    try:
        lines = check(inside)
    except FileNotFoundError:
        pytest.skip("there is no `unshare` to make a small file system with")
    rest = ["3 True", "run done", "result done", "0 lost"]
    assert lines == [*REFUSED, "result refused: no shared memory", *rest]


@pytest.fixture
def group():
    """A control group that may have 256 MiB of memory."""
    base = next((one for one in GROUPS if (one / "cgroup.procs").exists()), GROUPS[0])
    folder = base / f"offloop-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"not allowed to make a control group: {error}")
    try:
        limit = folder / "memory.max"
        if base is GROUPS[0]:
            limit = folder / "memory.limit_in_bytes"
        try:
            limit.write_text(str(256 << 20))
        except OSError as error:
            pytest.skip(f"no control group for memory: {error}")
        yield folder
    finally:
        inside = map(int, (folder / "cgroup.procs").read_text().split())
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.wait_procs([psutil.Process(pid) for pid in inside], timeout=10)
        folder.rmdir()


@pytest.mark.slow
def test_a_control_group_that_is_full(group):
    first = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')"
    command = [sys.executable, "-c", PROGRAM, str(TESTS), first]
    lines = check(command)
    assert lines[: len(REFUSED)] == REFUSED
    # What a job takes for itself can end its worker: the kernel lets nobody ask.
    result = lines[len(REFUSED)]
    assert result in ("result refused: no shared memory", "result lost its worker")
    assert lines[-4:-1] == ["3 True", "run done", "result done"]
