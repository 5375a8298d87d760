"""Who may run now, and who waits: limits, shares, and room in a full pool."""

from __future__ import annotations

import asyncio
import gc

import pytest

import jobs
from offloop import Pool
from offloop.core import job_queue
from offloop.errors import PoolFull


async def test_a_full_pool_refuses_and_run_waits(gate):
    reached, until = gate(), gate()
    async with Pool(1, max_pending=2) as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        pool.submit(jobs.nothing)
        with pytest.raises(PoolFull, match="max_pending") as caught:
            pool.submit(jobs.nothing)
        assert (caught.value.pending, caught.value.limit) == (2, 2)
        with pytest.raises(PoolFull):
            await pool.options(on_full="raise").run(jobs.nothing)
        waiting = [asyncio.create_task(pool.run(jobs.add, n)) for n in range(5)]
        given_up = asyncio.create_task(pool.run(jobs.add, 9))
        await asyncio.sleep(0)
        given_up.cancel()
        until.open()
        await running
        assert await asyncio.gather(*waiting) == list(range(5))
        assert given_up.cancelled() or (await asyncio.wait([given_up]))[0]
        assert pool.stats().submitted == 7


async def test_a_function_with_a_limit_leaves_workers_to_others(gate):
    reached, until = gate(), gate()
    async with Pool(2) as pool:
        await pool.ready()
        limited = pool.options(max_concurrency=1)
        slow = [limited.submit(jobs.meet, str(reached), str(until)) for _ in range(3)]
        await reached.reached()
        assert await pool.run(jobs.add, 1, 2) == 3
        assert [job.state for job in slow] == ["sent", "queued", "queued"]
        until.open()
        assert await asyncio.gather(*slow) == ["met"] * 3


async def test_jobs_of_low_priority_get_their_turn_among_higher_ones(
    gate, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        job_queue, "_PATIENCE", 0.0
    )  # seconds until one has waited long
    log, until = tmp_path / "log", gate()
    async with Pool(1) as pool:
        running = pool.submit(jobs.meet, str(gate()), str(until))
        low, high = pool.options(priority=-1), pool.options(priority=1)
        going = [low.submit(jobs.note_and_add, str(log), -1, 0)]
        going += [high.submit(jobs.note_and_add, str(log), n, 0) for n in range(100)]
        until.open()
        await asyncio.gather(running, *going)
        assert log.read_text().split().index("-1") <= 16


async def test_a_limit_is_for_each_function():
    async with Pool(2) as pool:
        limited = pool.options(max_concurrency=1)
        going = [limited.submit(fn, 1, 1) for fn in (jobs.add, jobs.add_async) * 20]
        assert await asyncio.gather(*going) == [2] * 40
        del going
        await asyncio.sleep(0)  # until then the loop holds what it has just delivered
        gc.collect()
        assert not pool._engine._limits


async def test_keys_share_the_workers(tmp_path, gate):
    log, reached, until = tmp_path / "log", gate(), gate()
    async with Pool(1) as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        greedy, modest = pool.options(key="greedy"), pool.options(key="modest")
        going = [greedy.submit(jobs.note_and_add, str(log), n, 0) for n in range(40)]
        going += [modest.submit(jobs.note_and_add, str(log), n, 0) for n in (77, 88)]
        until.open()
        await asyncio.gather(running, *going)
        order = log.read_text().split()
        assert order.index("77") == 1
        assert order.index("88") < 10


async def test_bytes_are_a_limit_too(gate):
    reached, until = gate(), gate()
    async with Pool(1, max_pending_bytes="100KB") as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        data = bytes(60_000)
        waiting = [pool.submit(len, data) for _ in range(2)]
        assert 120_000 < pool.stats().pending_bytes < 125_000
        with pytest.raises(PoolFull, match="max_pending_bytes is 100,000") as caught:
            pool.submit(len, b"")
        assert caught.value.pending == pool.stats().pending_bytes
        later = asyncio.create_task(pool.run(len, data))
        until.open()
        assert await asyncio.gather(running, *waiting, later) == ["met"] + [60_000] * 3
        assert pool.stats().pending_bytes == 0


async def test_wait_capacity_comes_in_turn_and_passes_it_on(gate):
    reached, until = gate(), gate()
    async with Pool(1, max_pending=1) as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        order = []

        async def wait_only(name):
            await pool.wait_capacity()
            order.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abc":  # none of them uses the room
                group.create_task(wait_only(name))
            cancelled = group.create_task(wait_only("x"))
            group.create_task(wait_only("d"))
            await asyncio.sleep(0)
            cancelled.cancel()
            until.open()
            await running
        assert order == list("abcd")
        await pool.wait_capacity()
        assert await pool.submit(jobs.add, 1) == 1


async def test_map_waits_in_the_same_line_as_run(gate, tmp_path):
    log, until = str(tmp_path / "log"), gate()
    async with Pool(1, max_pending=1) as pool:
        running = pool.submit(jobs.meet, str(gate()), str(until))

        async def map_three():
            items = [log] * 3, range(3), [0] * 3
            return [r async for r in pool.map(jobs.note_and_add, *items, chunksize=1)]

        going = [asyncio.create_task(map_three())]
        await _in_line(pool, 1)
        for number in (77, 88):
            call = pool.run(jobs.note_and_add, log, number, 0)
            going.append(asyncio.create_task(call))
        await _in_line(pool, 3)
        until.open()
        assert await asyncio.gather(running, *going) == ["met", [0, 1, 2], 77, 88]
    assert (tmp_path / "log").read_text().split() == ["0", "77", "88", "1", "2"]


async def _in_line(pool, count):
    while pool._engine._turns.waiting < count:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)


async def test_who_waits_for_room_keeps_its_place_when_the_room_is_taken(gate):
    async with Pool(1, max_pending=1) as pool:
        first, second = gate(), gate()
        running = pool.submit(jobs.meet, str(gate()), str(first))
        order = []

        async def use(name):
            order.append(await pool.run(jobs.echo, name))

        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(use(name))
            await asyncio.sleep(0)
            stolen = []
            running.add_done_callback(
                lambda _: stolen.append(
                    pool.submit(jobs.meet, str(gate()), str(second))
                )
            )
            first.open()
            await running
            await asyncio.sleep(0)
            second.open()
        assert await stolen[0] == "met"
        assert order == [(("a",), {}), (("b",), {})]


async def test_one_who_waits_for_room_and_is_cancelled_at_its_turn_hands_it_on():
    async with Pool(1, max_pending=1) as pool:
        job = pool.submit(jobs.nothing)
        waiting = [asyncio.create_task(pool.wait_capacity()) for _ in range(2)]
        await asyncio.sleep(0)
        job.add_done_callback(lambda _: waiting[0].cancel())
        await asyncio.wait(waiting)
        assert [task.cancelled() for task in waiting] == [True, False]


@pytest.mark.slow
async def test_ten_thousand_who_wait_for_room_may_give_up_at_once(gate):
    reached, until = gate(), gate()
    async with Pool(1, max_pending=1) as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        waiting = [asyncio.create_task(pool.wait_capacity()) for _ in range(10_000)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert pool._engine._turns.waiting == 0
        until.open()
        assert await running == "met"
