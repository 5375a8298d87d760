"""Event loops that end while a pool is at work, and the loops that come after them.

That nothing is left is checked after each test, as after all others; here it is also
looked at before, where a process would show that the end did not come with the loop.
"""

from __future__ import annotations

import asyncio
import gc

import psutil
import pytest

import jobs
from offloop import Pool, offload

forever = offload(jobs.loop_in_python)


def unclosed():
    return pytest.warns(ResourceWarning, match="was never closed")


def descendants():
    return set(psutil.Process().children(recursive=True))


async def add_in_a_pool():
    async with Pool(1) as pool:
        return await pool.run(jobs.add, 1, 2)


async def leave_a_pool_at_work(gate):
    """Return with a job that runs, one that waits, and a task that awaits another."""
    pool = await Pool(1).start()
    first = pool.submit(jobs.loop_in_python, str(gate))
    pool.submit(jobs.nothing)
    task = asyncio.create_task(pool.run(jobs.nothing))
    await gate.reached()
    return first, task


@pytest.mark.slow
@pytest.mark.loops
def test_a_pool_ends_with_its_loop_and_the_next_loop_has_its_own(loop_factory, gate):
    before = descendants()
    with asyncio.Runner(loop_factory=loop_factory) as runner, unclosed():
        job, task = runner.run(leave_a_pool_at_work(gate()))
        assert descendants() > before
        runner.close()
    assert descendants() == before
    assert job.cancelled()
    assert task.cancelled()
    assert asyncio.run(add_in_a_pool()) == 3


@pytest.mark.slow
def test_the_default_pool_ends_with_each_loop(gate):
    async def leave_it_at_work():
        reached = gate()
        job, task = forever.submit(str(reached)), asyncio.create_task(forever("/none"))
        await reached.reached()
        return job, task

    before = descendants()
    for _ in range(2):
        for one in asyncio.run(leave_it_at_work()):
            assert one.cancelled()
        assert descendants() == before


@pytest.mark.slow
@pytest.mark.parametrize("dropped", [True, False])
def test_a_loop_that_is_closed_without_a_word_does_not_keep_its_workers(gate, dropped):
    pools = []

    async def leave():
        pool = await Pool(1).start()
        reached = gate()
        pool.submit(jobs.loop_in_python, str(reached))
        await reached.reached()
        pools.append(pool)

    before = descendants()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    left = descendants() - before
    assert left  # nobody was told
    if dropped:
        with unclosed():
            pools.clear()
            gc.collect()
    else:
        assert asyncio.run(add_in_a_pool()) == 3
    _, alive = psutil.wait_procs(left, timeout=30)
    assert not alive
    if pools:
        with unclosed():
            pools.clear()
            gc.collect()


@pytest.mark.slow
async def test_loops_in_several_threads_do_not_disturb_one_another():
    def work(number):
        assert asyncio.run(add_in_a_pool()) == 3
        return number

    calls = [asyncio.to_thread(work, number) for number in range(3)]
    async with Pool(1) as pool:
        mine = pool.map(jobs.add, range(200), [1] * 200)
        assert await asyncio.gather(*calls) == [0, 1, 2]
        assert [each async for each in mine] == list(range(1, 201))
