"""How long large data lives, and what happens when there is no room for it."""

from __future__ import annotations

import asyncio
import gc
import resource
import weakref

import numpy as np
import pytest

import jobs
import jobs_payloads as payloads
from offloop import Pool
from offloop.errors import PoolClosed, PoolFull, WorkerLost
from waiting import given_back, until, used

MB = 1024 * 1024
LIMIT = 4 * MB
MEDIUM = 100_000


# ---- who keeps what ------------------------------------------------------------------


async def test_arguments_that_a_job_keeps_never_change():
    async with Pool(1, arena_limit=LIMIT) as pool:
        for value in range(5):
            await pool.run(payloads.keep, np.full(MEDIUM, value, "u1"))
        for value in range(20):  # what was free is used again
            await pool.run(payloads.total, np.full(MEDIUM, 50 + value, "u1"))
        expected = [MEDIUM * value for value in range(5)]
        assert await pool.run(payloads.total_of_kept) == expected
        await given_back(pool, 6 * (MEDIUM + 25_000))
        assert used(pool) >= 5 * MEDIUM


async def test_arguments_that_no_job_keeps_come_back():
    async with Pool(2, arena_limit=LIMIT) as pool:
        for _ in range(100):
            await pool.run(payloads.total, np.ones(MEDIUM))
        await given_back(pool)


@pytest.mark.parametrize("make", [payloads.ones, payloads.fill])
async def test_results_outlive_their_worker_and_the_pool(make):
    async with Pool(1, arena_limit=LIMIT) as pool:
        if make is payloads.ones:
            results = [await pool.run(make, MEDIUM * n) for n in (1, 5)]
        else:
            results = [await pool.run(make, MEDIUM * n, 1) for n in (1, 5)]
        with pytest.raises(WorkerLost):
            await pool.run(jobs.die_by, 9)
        for _ in range(10):
            await pool.run(payloads.fill, 5 * MEDIUM, 9)
        assert [int(result.sum()) for result in results] == [MEDIUM, 5 * MEDIUM]
    assert [int(result.sum()) for result in results] == [MEDIUM, 5 * MEDIUM]
    results[0][:] = 3
    assert int(results[0].sum()) == 3 * MEDIUM
    assert int(results[1].sum()) == 5 * MEDIUM


async def test_a_result_that_is_dropped_makes_room_for_the_next():
    async with Pool(1, arena_limit=LIMIT) as pool:
        kept = await pool.run(payloads.fill, MB, 1)
        for value in range(20):
            result = await pool.run(payloads.fill, MB, value)
            assert result[0] == result[-1] == value
            assert kept[0] == kept[-1] == 1


async def test_results_for_which_there_is_no_room_come_all_the_same():
    async with Pool(1, arena_limit=LIMIT) as pool:
        results = [await pool.run(payloads.ones, MB + n) for n in range(8)]
        larger = await pool.run(payloads.fill, 3 * LIMIT, 7)
        assert [result.sum() for result in results] == [MB + n for n in range(8)]
        assert larger.sum() == 7 * 3 * LIMIT
        assert larger.flags.writeable


async def test_arrays_in_shared_memory_outlive_the_pool():
    async with Pool(1, arena_limit=LIMIT) as pool:
        shared = pool.empty(MEDIUM)
        shared[:] = 1
        await pool.run(payloads.total, shared)
    assert shared.sum() == MEDIUM
    shared[:] = 2
    assert shared.sum() == 2 * MEDIUM
    with pytest.raises(PoolClosed):
        pool.empty(5)
    with pytest.raises(PoolClosed):
        await pool.put(5)


async def test_the_memory_of_a_killed_worker_comes_back(gate):
    reached, until_open = gate(), gate()
    async with Pool(1, arena_limit=LIMIT) as pool:
        await pool.run(payloads.keep, np.ones(MEDIUM))
        array = np.ones(MB // 8)
        kill = pool.options(on_cancel="kill")
        job = kill.submit(payloads.hold, array, str(reached), str(until_open))
        await reached.reached()
        assert used(pool) > MB
        job.cancel()
        await asyncio.wait([job])
        await given_back(pool)
        assert await pool.run(payloads.total, array) == [MB // 8]


async def test_a_job_that_is_tried_again_gets_what_was_submitted(tmp_path):
    for size in (1_000, MEDIUM, MB):  # small, copied and mapped where it is changed
        path = tmp_path / str(size)
        array = np.ones(size)
        async with Pool(1) as pool:
            run = pool.options(retries=2).run
            result = await run(payloads.add_in_place, array, 1.0, str(path), 2)
            assert result == 2.0 * size
            assert path.read_text() == f"{float(size)}\n" * 3
            again = pool.options(retries=1, retry_on=(ValueError,))
            assert await again.run(payloads.fail_in_place, array) == 2.0 * size
        assert array.sum() == size


async def test_a_job_changes_its_own_copy_only(lend):
    async with lend(2) as pool:
        array = np.ones(MEDIUM)
        runs = [
            pool.run(payloads.add_in_place, array, 1.0, "/dev/null", 0)
            for _ in range(8)
        ]
        assert await asyncio.gather(*runs) == [2.0 * MEDIUM] * 8
        assert array.sum() == MEDIUM


async def test_what_was_put_goes_with_the_last_reference(gate):
    reached, until_open = gate(), gate()
    async with Pool(2, arena_limit=LIMIT) as pool:
        ref = await pool.put(np.ones(MEDIUM))
        job = pool.submit(payloads.hold, ref, str(reached), str(until_open))
        await reached.reached()
        del ref
        gc.collect()
        assert used(pool) > MEDIUM
        until_open.open()
        assert await job == (MEDIUM, MEDIUM)
        await given_back(pool)
        assert pool._engine._transfers.keeps == 0


async def test_what_was_put_and_is_kept_by_a_job_never_changes():
    async with Pool(1, arena_limit=LIMIT) as pool:
        ref = await pool.put(np.ones(MEDIUM))
        await pool.run(payloads.keep, ref)
        del ref
        for value in range(30):
            await pool.run(payloads.total, np.full(MEDIUM, value))
        assert await pool.run(payloads.total_of_kept) == [MEDIUM]


async def test_what_was_put_for_jobs_that_wait_stays(gate):
    reached, until_open = gate(), gate()
    async with Pool(1, arena_limit=LIMIT) as pool:
        blocking = pool.submit(jobs.meet, str(reached), str(until_open))
        await reached.reached()
        waiting = pool.submit(payloads.total, await pool.put(np.ones(MEDIUM)))
        gc.collect()
        until_open.open()
        assert await waiting == [MEDIUM]
        assert await blocking == "met"


async def test_nothing_of_the_caller_is_kept():
    async with Pool(1) as pool:
        for size in (1_000, MEDIUM, MB):
            array, gone = np.ones(size), asyncio.Event()
            call = asyncio.get_running_loop().call_soon_threadsafe
            weakref.finalize(array, call, gone.set)
            job = pool.submit(payloads.total, array)
            del array
            assert await job == [size]
            await gone.wait()


@pytest.fixture
def no_collections():
    """What goes must go without a garbage collection: those come when they like."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_what_a_job_gave_goes_with_the_last_reference(no_collections):
    async with Pool(1, arena_limit=LIMIT) as pool:
        for size in (MEDIUM, 2 * MB):
            for _ in range(9):
                result = await pool.submit(payloads.ones, size)
            del result
            (line,) = pool._engine._lines.values()
            await pool.run(jobs.add, 1, 2)  # the step that woke us up knew it still
            line.exchange.given_back()
            assert line.exchange.seen == 0


async def test_what_failed_keeps_no_memory(no_collections):
    async with Pool(1, arena_limit=LIMIT) as pool:
        for call in (pool.submit, pool.run):
            for function, size in ((payloads.hold, MEDIUM), (payloads.total, MB)):
                if function is payloads.total:  # there is no memory for it
                    resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))
                failed = False
                try:
                    await call(function, np.ones(size, "u1"))
                except (TypeError, MemoryError):  # `raises` would keep it
                    failed = True
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
                assert failed
                # The thread that has failed may still be in the middle of saying so.
                await given_back(pool)


# ---- no room -------------------------------------------------------------------------


async def test_submit_says_that_there_is_no_room():
    async with Pool(1, arena_limit=LIMIT) as pool:
        held = pool.empty(3 * MB, "u1")
        with pytest.raises(PoolFull, match="arena_limit") as caught:
            pool.submit(payloads.total, np.ones(2 * MB, "u1"))
        full = caught.value
        assert (full.pending, full.limit, full.never) == (3 * MB, LIMIT, False)
        assert f"{3 * MB} of {LIMIT} bytes" in str(full)
        with pytest.raises(PoolFull):
            pool.empty(2 * MB, "u1")
        raising = pool.options(on_full="raise")
        with pytest.raises(PoolFull):
            await raising.run(payloads.total, np.ones(2 * MB, "u1"))
        assert pool.stats().pending == 0
        assert await pool.run(payloads.total, held[:0], np.ones(1000)) == [0.0, 1000.0]
        del held
        assert await pool.submit(payloads.total, np.ones(2 * MB, "u1")) == [2 * MB]


@pytest.mark.parametrize("sizes", [[LIMIT + 1], [3 * MB, 3 * MB], [MB] * 5])
async def test_what_can_never_fit_is_refused_at_once(sizes):
    async with Pool(1, arena_limit=LIMIT) as pool:
        arrays = [np.ones(size, "u1") for size in sizes]
        for call in (pool.run, pool.submit):
            with pytest.raises(
                PoolFull, match=f"{sum(sizes)} bytes.*raise it"
            ) as caught:
                await call(payloads.total, *arrays)
            assert caught.value.never
        with pytest.raises(PoolFull, match="raise it"):
            async for _ in pool.map(payloads.total, *([array] for array in arrays)):
                pass
        with pytest.raises(PoolFull, match="raise it"):
            await pool.put(arrays)
        assert used(pool) == 0
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_what_cannot_be_had_as_a_whole_is_not_held_in_part():
    async with Pool(1, arena_limit=LIMIT) as pool:
        held = pool.empty(2 * MB, "u1")
        arrays = np.ones(MB, "u1"), np.ones(2 * MB, "u1")
        with pytest.raises(PoolFull) as caught:
            pool.submit(payloads.total, *arrays)
        assert caught.value.__traceback__ is not None  # which has all those frames
        assert used(pool) == 2 * MB
        runs = [asyncio.create_task(pool.run(payloads.total, *arrays)) for _ in "ab"]
        await until(lambda: pool._engine._turns.waiting == 2)
        del held
        assert await asyncio.gather(*runs) == [[MB, 2 * MB]] * 2


async def test_run_waits_for_room_in_turn():
    async with Pool(1, arena_limit=LIMIT) as pool:
        held = pool.empty(3 * MB, "u1")
        ended = []

        async def run(name, size):
            ended.append((name, await pool.run(payloads.total, np.ones(size, "u1"))))

        large = asyncio.create_task(run("large", 3 * MB))
        await until(lambda: pool._engine._turns.waiting == 1)
        # Not both at once: then the one that is copied first would end first.
        medium = asyncio.create_task(run("medium", 5 * MB // 4))
        await until(lambda: pool._engine._turns.waiting == 2)
        # What needs no room goes on; there would be room for this, but others wait.
        assert await pool.run(jobs.add, 1, 2) == 3
        with pytest.raises(PoolFull, match="others wait"):
            pool.submit(payloads.total, np.ones(MB // 2, "u1"))
        assert ended == []
        del held
        await asyncio.gather(large, medium)
        assert ended == [("large", [3 * MB]), ("medium", [5 * MB // 4])]


async def test_who_gives_up_waiting_lets_the_others_pass():
    async with Pool(1, arena_limit=LIMIT) as pool:
        held = pool.empty(3 * MB, "u1")
        large = asyncio.create_task(pool.run(payloads.total, np.ones(3 * MB, "u1")))
        await until(lambda: pool._engine._turns.waiting == 1)
        medium = asyncio.create_task(pool.run(payloads.total, np.ones(MB // 2, "u1")))
        await until(lambda: pool._engine._turns.waiting == 2)
        large.cancel()
        assert await medium == [MB // 2]
        assert held.nbytes == 3 * MB
        assert pool._engine._turns.waiting == 0


async def test_map_takes_no_more_than_there_is_room_for():
    async with Pool(1, arena_limit=LIMIT) as pool:
        arrays = (np.full(MB, value, "u1") for value in range(20))
        totals = [each async for each in pool.map(payloads.total, arrays, buffersize=9)]
        assert totals == [[MB * value] for value in range(20)]


async def test_put_waits_for_room():
    async with Pool(1, arena_limit=LIMIT) as pool:
        held = pool.empty(3 * MB, "u1")
        putting = asyncio.create_task(pool.put(np.ones(2 * MB, "u1")))
        await until(lambda: pool._engine._transfers._memory_waiters)
        del held
        assert await pool.run(payloads.total, await putting) == [2 * MB]


async def test_closing_ends_all_waiting_for_room():
    pool = await Pool(1, arena_limit=LIMIT).start()
    held = pool.empty(3 * MB, "u1")
    waiting = [
        asyncio.create_task(pool.put(np.ones(2 * MB, "u1"))),
        asyncio.create_task(pool.run(payloads.total, np.ones(2 * MB, "u1"))),
        asyncio.create_task(pool.run(payloads.total, np.ones(2 * MB, "u1"))),
    ]
    await until(lambda: pool._engine._turns.waiting == 2)
    await until(lambda: pool._engine._transfers._memory_waiters)
    await pool.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in ended] == [PoolClosed] * 3
    assert held.nbytes == 3 * MB


async def test_a_result_for_which_the_system_has_no_memory_fails_alone():
    async with Pool(1, arena_limit=LIMIT) as pool:
        for _ in range(2):
            with pytest.raises(MemoryError, match=r"no shared memory .* lower the"):
                await pool.run(payloads.ones_without_memory, MB)
            assert await pool.run(jobs.add, 1, 2) == 3
        await pool.run(payloads.end_lack_of_memory)
        assert (await pool.run(payloads.ones, MB)).sum() == MB
        assert pool.stats().workers_lost == 0


async def test_memory_goes_back_to_the_system(monkeypatch):
    async with Pool(1, arena_limit=64 * MB) as pool:
        await pool.run(payloads.total, np.ones(4 * MB))
        arena = pool._engine._memory.arena
        assert arena.backed >= 32 * MB
        trim, trimmed = arena.trim, asyncio.Event()

        def trim_and_tell(now):
            trimmed.set()
            return trim(now)

        monkeypatch.setattr(arena, "trim", trim_and_tell)
        while arena.backed:
            trimmed.clear()
            await trimmed.wait()
