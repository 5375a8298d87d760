"""New code reaches all workers, or none of them; no job is lost on the way."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading

import psutil
import pytest

import jobs
from offloop import Pool, Recycle, renewal
from offloop.errors import NotOffloadable, PoolClosed, StartError

_CODE = """
VERSION = {version}
{more}

def version():
    return VERSION

def prepare():
    {prepare}
"""


_STARTS_A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return what writes the module `reloaded_program`, and imports its first text."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def write(version, more="", prepare="pass"):
        text = _CODE.format(version=version, more=more, prepare=prepare)
        (tmp_path / "reloaded_program.py").write_text(text)

    write(1)
    module = importlib.import_module("reloaded_program")
    yield write, module
    del sys.modules["reloaded_program"]


async def versions(pool, module, count=8):
    return set(await asyncio.gather(*(pool.run(module.version) for _ in range(count))))


async def versions_for_ever(pool, module):
    while True:
        await pool.run(module.version)


async def gone(processes):
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 30)
    assert not alive


async def test_new_code_is_new_and_no_job_is_lost(program, tmp_path):
    write, module = program
    stop = asyncio.Event()
    results, states = [], []

    async def load(pool):
        while not stop.is_set():
            results.append(await pool.run(module.version))

    def look(event):
        states.append([one.state for one in pool.workers()])

    async with Pool(2, preload=["reloaded_program"]) as pool:
        await pool.ready()
        for kind in ("worker_started", "worker_ready", "worker_ended"):
            pool.on(kind, look)
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(load(pool))
            forkserver = psutil.Process(await pool.run(jobs.pid)).parent()
            write(2)
            await pool.reload()
            seen = list(states)
            assert await versions(pool, module) == {2}
            stop.set()
        await gone([forkserver])
        stats = pool.stats()
    assert set(results) == {1, 2}
    assert stats.failed == stats.lost == stats.workers_lost == 0
    assert stats.workers_started == 5, "one was tried"
    working = [one.count("idle") + one.count("busy") for one in seen]
    assert min(working) == 2, "capacity never drops"
    assert max(one.count("starting") for one in seen) == 1, "one by one"


async def test_who_works_finishes_first(gate):
    reached, passed = gate(), gate()
    async with Pool(1) as pool:
        job = pool.submit(jobs.meet, str(reached), str(passed))
        await reached.reached()
        await pool.reload()
        assert await pool.run(jobs.add, 1, 1) == 2, "beside the one that still works"
        passed.open()
        assert await job == "met"


async def test_code_that_cannot_be_imported_changes_nothing(program):
    write, module = program
    async with Pool(1) as pool:
        assert await versions(pool, module) == {1}
        write(2, more="1 / 0")
        with pytest.raises(StartError, match="the pool was not reloaded") as caught:
            await pool.reload()
        assert "importing reloaded_program failed: ZeroDivisionError" in str(
            caught.value
        )
        assert await versions(pool, module) == {1}
        assert pool.stats().workers_started == 2, "and one that was tried"
        assert pool.stats().workers_lost == 0
        write(3)
        await pool.reload()
        assert await versions(pool, module) == {3}


async def test_an_initializer_that_fails_changes_nothing(program):
    write, module = program
    async with Pool(1, initializer=module.prepare) as pool:
        write(2, prepare="raise RuntimeError('no database today')")
        with pytest.raises(StartError, match="exited with code 1") as caught:
            await pool.reload()
        assert "no database today" in caught.value.output
        assert "the workers that there were go on" in str(caught.value)
        assert await versions(pool, module) == {1}


async def test_a_worker_that_does_not_get_ready_changes_nothing(gate, monkeypatch):
    monkeypatch.setattr(renewal, "_PATIENCE", 0.05)
    passes = gate()
    passes.open(1)  # for the first worker, and for no other one
    async with Pool(1, initializer=jobs.wait_for, initargs=(str(passes),)) as pool:
        before = await pool.run(jobs.pid)
        why = "the pool was not reloaded: its worker was not ready within 0.05 s"
        with pytest.raises(StartError, match=why):
            await pool.reload()
        assert await pool.run(jobs.pid) == before


async def test_a_pool_that_gives_up_in_a_reload_keeps_what_works(tmp_path):
    """The first worker of the new code is well, and those that follow it are not."""
    cause = tmp_path / "cause"
    async with Pool(1, initializer=jobs.fail_while, initargs=(str(cause),)) as pool:
        before = await pool.run(jobs.pid)
        pool._engine._supervisor._supervision._restarts._limit = 0
        with pytest.raises(StartError, match="gave up in the middle of a reload"):
            await pool.reload(cause.touch)
        assert "exited with code 1" in pool.stats().failure
        assert await pool.run(jobs.pid) == before


async def test_a_preload_that_fails_changes_nothing(program):
    write, module = program
    async with Pool(1, preload=["reloaded_program"]) as pool:
        write(2, more="1 / 0")
        with pytest.raises(StartError, match="preload of reloaded_program failed"):
            await pool.reload()
        assert await versions(pool, module) == {1}


async def test_a_module_that_starts_a_thread_now_is_refused(program):
    write, module = program
    async with Pool(1) as pool:
        assert await versions(pool, module) == {1}
        write(2, more=_STARTS_A_THREAD)
        with pytest.raises(StartError, match="its import starts a thread"):
            await pool.reload()
        assert await versions(pool, module) == {1}


def refuse():
    raise LookupError("the model is missing")


def say_no():
    return False


def die():
    os._exit(7)


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        (refuse, "the probe failed: LookupError: the model is missing"),
        (say_no, "the probe failed: ValueError: it returned False"),
        (die, "the probe failed: StartError: its worker exited with code 7"),
    ],
)
async def test_a_probe_that_fails_changes_nothing(program, probe, why):
    write, module = program
    async with Pool(1) as pool:
        before = await pool.run(jobs.pid)
        assert await versions(pool, module) == {1}
        write(2)
        with pytest.raises(StartError, match=why):
            await pool.reload(probe)
        assert await versions(pool, module) == {1}
        assert await pool.run(jobs.pid) == before


async def test_a_probe_runs_new_code(program):
    write, module = program
    write(5)
    async with Pool(1) as pool:
        seen = await pool.run(module.version)
        write(6)
        await pool.reload(module.version)
        assert (seen, await pool.run(module.version)) == (5, 6)


async def test_a_probe_that_cannot_travel_is_the_callers_mistake():
    async with Pool(1) as pool:
        with pytest.raises(NotOffloadable):
            await pool.reload(threading.Lock().acquire)


@pytest.mark.filterwarnings("default")
async def test_a_pool_that_gave_up_works_again_once_the_cause_is_removed(program):
    write, module = program
    async with Pool(2, initializer=module.prepare) as pool:
        assert await versions(pool, module) == {1}
        write(2, prepare="raise RuntimeError('no database today')")
        psutil.Process(await pool.run(jobs.pid)).parent().kill()
        with pytest.raises(StartError, match="no database today"):
            await versions_for_ever(pool, module)
        write(3)
        await pool.reload()
        assert await versions(pool, module) == {3}


async def test_reloads_come_one_after_the_other(program):
    write, module = program
    async with Pool(2) as pool:
        write(2)
        await asyncio.gather(pool.reload(), pool.reload(), versions(pool, module))
        assert await versions(pool, module) == {2}
        assert pool.stats().workers_started == 2 + 2 * 3


async def test_a_pool_without_workers_can_be_reloaded(program):
    write, module = program
    async with Pool(2, min_workers=0) as pool:
        write(2)
        await pool.reload()
        assert await versions(pool, module) == {2}


async def test_workers_that_stand_by_are_replaced_too(program):
    write, module = program
    async with Pool(2, recycle=Recycle(max_jobs=3)) as pool:
        assert await versions(pool, module, 30) == {1}
        write(2)
        await pool.reload(module.version)
        assert await versions(pool, module, 30) == {2}
        assert pool.stats().workers_lost == 0


async def test_closing_ends_a_reload(gate):
    reached, never = gate(), gate()
    async with Pool(1) as pool:
        going = asyncio.ensure_future(pool.reload(BoundProbe(str(reached), str(never))))
        await reached.reached()
    with pytest.raises(PoolClosed):
        await going


class BoundProbe:
    """A probe that takes for ever."""

    def __init__(self, reached, never):
        self.gates = reached, never

    def __call__(self):
        jobs.meet(*self.gates)


async def test_inline_there_is_nothing_to_reload():
    async with Pool(engine="inline") as pool:
        await pool.reload()
        assert await pool.run(jobs.add, 1, 1) == 2
