"""`map` as its users see it: order, reading ahead, errors."""

from __future__ import annotations

import asyncio
import threading

import pytest

import jobs
import jobs_odd
from jobs_many import die_at, lock_at, unlucky
from offloop import Pool
from offloop.errors import NotOffloadable, WorkerLost


def numbers(taken):
    """Count for ever, and note what was taken."""
    number = 0
    while True:
        taken.append(number)
        yield number
        number += 1


async def numbers_async(taken, until=None):
    for number in numbers(taken):
        await asyncio.sleep(0)
        if number == until:
            return
        yield number


async def collect(results, into):
    async for result in results:
        into.append(result)


async def warm(pool, fn, count=2000):
    """Let the pool see that a function is short: its items will share jobs."""
    async for _ in pool.map(fn, range(count), return_exceptions=True):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [True, False])
async def test_short_items_share_jobs(ordered):
    async with Pool(2) as pool:
        results = pool.map(jobs.add, range(100_000), ordered=ordered)
        got = [result async for result in results]
        assert (got if ordered else sorted(got)) == list(range(100_000))
        assert pool.stats().submitted < 2000


@pytest.mark.parametrize("ordered", [True, False])
async def test_awaited_it_gives_all_results_as_a_list(ordered):
    async with Pool(2) as pool:
        assert await pool.map(jobs.add, []) == []
        results = await pool.map(jobs.add, range(5000), [1] * 5000, ordered=ordered)
        assert sorted(results) == list(range(1, 5001))
        assert not ordered or results[0] == 1
        with pytest.raises(ValueError, match="13 is unlucky") as caught:
            await pool.map(unlucky, range(20))
        assert caught.value.item_index == 13
        kept = await pool.map(unlucky, range(20), return_exceptions=True)
        assert [str(one) for one in kept if isinstance(one, ValueError)] == [
            "13 is unlucky",
            "17 is unlucky",
        ]


async def test_its_results_are_read_once():
    async with Pool(1) as pool:
        results = pool.map(jobs.add, [1, 2])
        assert repr(results) == "<Results of add>"
        assert await anext(results) == 1
        with pytest.raises(RuntimeError, match="can be read once"):
            await results
        await results.aclose()
        results = pool.map(jobs.add, [1, 2])
        assert await results == [1, 2]
        with pytest.raises(RuntimeError, match="can be read once"):
            await results


async def test_who_stops_awaiting_stops_what_is_going(gate):
    reached, until = gate(), gate()
    async with Pool(1, grace=0.05) as pool:
        results = pool.map(jobs.meet, [str(reached)] * 9, [str(until)] * 9)
        waiting = asyncio.ensure_future(results)
        await reached.reached()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pool.stats().pending == 0
        assert await pool.run(jobs.add, 1) == 1


async def test_long_items_go_one_by_one(gate):
    reached, until = gate(), gate()
    async with Pool(1) as pool:
        results = pool.map(jobs.meet, [str(reached)] * 3, [str(until)] * 3)
        first = asyncio.ensure_future(anext(results))
        await reached.reached()
        assert pool.stats().pending == 3
        until.open()
        assert [await first] + [each async for each in results] == ["met"] * 3


async def test_several_iterables_end_with_the_shortest(lend):
    async with lend() as pool:
        got = [r async for r in pool.map(jobs.add, range(5), numbers([]))]
        assert got == [0, 2, 4, 6, 8]
        assert [r async for r in pool.map(jobs.add)] == []
        assert [r async for r in pool.map(jobs.add, [])] == []


async def test_every_kind_of_callable(lend):
    async with lend() as pool:
        point = jobs.Point(1, 2)
        for chunksize in (1, 3):
            got = [r async for r in pool.map(point, range(5), chunksize=chunksize)]
            assert got == [0, 1, 2, 3, 4]
            got = pool.map(lambda n: bytes(n), [9, 70_000], chunksize=chunksize)
            assert [len(r) async for r in got] == [9, 70_000]


async def test_large_items_of_every_kind(lend):
    items = [bytes(70_000), bytearray(20_000), memoryview(b"x" * 30_000), "ä" * 40_000]
    async with lend() as pool:
        for chunksize in (1, 4):
            got = [r async for r in pool.map(len, items, chunksize=chunksize)]
            assert got == [70_000, 20_000, 30_000, 40_000]
            pairs = pool.map(jobs.echo, items[:2], [1, 2], chunksize=chunksize)
            assert [len(args[0]) async for args, _ in pairs] == [70_000, 20_000]


async def test_asynchronous_iterables(lend):
    async with lend(2) as pool:
        got = [r async for r in pool.map(jobs.add, numbers_async([], until=500))]
        assert got == list(range(500))
        mixed = pool.map(jobs.add, range(7), numbers_async([]))
        assert [r async for r in mixed] == [0, 2, 4, 6, 8, 10, 12]
        nothing = pool.map(jobs.add, numbers_async([], until=0))
        assert [r async for r in nothing] == []


async def test_what_an_asynchronous_iterable_gives_is_not_held_back(lend):
    more = asyncio.Event()

    async def one_by_one():
        yield 1
        await more.wait()
        yield 2

    async with lend() as pool:
        results = pool.map(jobs.add, one_by_one(), chunksize=10)
        assert await anext(results) == 1
        more.set()
        assert [r async for r in results] == [2]


@pytest.mark.parametrize("source", [numbers, numbers_async])
@pytest.mark.parametrize("chunksize", ["auto", 1, 4])
async def test_it_never_reads_ahead_of_its_buffer(source, chunksize):
    taken = []
    async with Pool(1) as pool:
        results = pool.map(jobs.add, source(taken), buffersize=10, chunksize=chunksize)
        for number in range(300):
            assert await anext(results) == number
            assert len(taken) <= number + 11  # the one that it is at, and its buffer
        await results.aclose()
        assert len(taken) <= 311


async def test_without_a_buffersize_endless_iterables_work_too():
    for source in (numbers, numbers_async):
        async with Pool(1) as pool:
            results = pool.map(jobs.add, source([]))
            assert [await anext(results) for _ in range(1000)] == list(range(1000))
            await results.aclose()


async def test_who_leaves_early_stops_what_is_going(gate):
    reached, until = gate(), gate()
    async with Pool(1, grace=0.05) as pool:
        results = pool.map(jobs.meet, [str(reached)] * 9, [str(until)] * 9)
        first = asyncio.ensure_future(anext(results))
        await reached.reached()
        first.cancel()
        await asyncio.wait([first])
        await results.aclose()
        assert pool.stats().pending == 0
        assert await pool.run(jobs.add, 1) == 1


@pytest.mark.parametrize("source", [numbers, numbers_async])
async def test_who_breaks_out_stops_what_is_going_and_what_is_read(source, gate):
    taken, until = [], gate()

    def stay_after(number):
        return number if number < 20 else jobs.wait_for(str(until))

    # It is left while what was ahead is going, which would never end.
    async with Pool(1, grace=0.05) as pool:
        async for number in pool.map(stay_after, source(taken), buffersize=10):
            if number == 19:
                break
        while pool.stats().pending:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        seen = len(taken)
        assert seen <= 31
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(taken) == seen
        assert await pool.run(jobs.add, 1) == 1
    async with Pool(1, grace=0.05) as pool:
        async for number in pool.map(stay_after, source(taken), buffersize=10):
            if number == 19:
                break


async def test_results_come_as_jobs_end_if_order_does_not_matter(lend, gate):
    reached, until = gate(), gate()

    def slow_or_quick(index):
        return jobs.meet(str(reached), str(until)) if index == 0 else index

    async with lend(2) as pool:
        got = []
        async for result in pool.map(slow_or_quick, range(500), ordered=False):
            got.append(result)
            if len(got) == 400:
                until.open()
        assert sorted(got, key=str) == sorted([*range(1, 500), "met"], key=str)
        assert "met" not in got[:400]


@pytest.mark.parametrize("chunksize", ["auto", 1, 5, 1000])
async def test_results_before_an_error_are_not_lost(chunksize):
    async with Pool(2) as pool:
        got = []
        with pytest.raises(ValueError, match="13 is unlucky") as caught:
            await collect(pool.map(unlucky, range(30), chunksize=chunksize), got)
        assert got == list(range(13))
        assert caught.value.item_index == 13
        assert "in `map`, at the item with index 13" in caught.value.__notes__
        assert "is unlucky" in str(caught.value.__cause__)


async def test_an_error_that_refuses_attributes_names_its_item_too():
    async with Pool(1) as pool:
        with pytest.raises(jobs_odd.FrozenError) as caught:
            await pool.map(jobs_odd.raise_frozen_error, [8])
        assert (caught.value.code, caught.value.item_index) == (8, 0)
        assert caught.value.__notes__ == ["in `map`, at the item with index 0"]


@pytest.mark.parametrize("chunksize", ["auto", 1, 5, 1000])
@pytest.mark.parametrize("ordered", [True, False])
async def test_errors_may_take_the_place_of_results(chunksize, ordered):
    async with Pool(2) as pool:
        results = pool.map(
            unlucky,
            range(30),
            chunksize=chunksize,
            ordered=ordered,
            return_exceptions=True,
        )
        got = [result async for result in results]
        errors = {e.item_index: str(e) for e in got if isinstance(e, ValueError)}
        assert errors == {13: "13 is unlucky", 17: "17 is unlucky"}
        if ordered:
            assert (got[12], got[14], len(got)) == (12, 14, 30)


async def test_a_result_that_cannot_travel_costs_no_other_item_its_result():
    async with Pool(1) as pool:
        results = pool.map(
            lock_at, range(9), [4] * 9, chunksize=9, return_exceptions=True
        )
        got = [result async for result in results]
        assert [r for r in got if isinstance(r, int)] == [0, 1, 2, 3, 5, 6, 7, 8]
        assert "cannot be sent" in str(got[4])


async def test_an_item_that_cannot_travel_costs_no_other_item_its_result():
    items = [0, 1, threading.Lock(), 3]
    async with Pool(1) as pool:
        results = pool.map(
            jobs.echo, items, chunksize=4, return_exceptions=True, ordered=False
        )
        got = [result async for result in results]
        (error,) = (r for r in got if isinstance(r, NotOffloadable))
        assert error.item_index == 2
        assert len(got) == 4
        with pytest.raises(NotOffloadable):
            await collect(pool.map(jobs.echo, items), [])


async def test_a_lost_worker_names_the_first_item_of_its_job():
    async with Pool(1) as pool:
        got = []
        with pytest.raises(WorkerLost) as caught:
            await collect(pool.map(die_at, range(9), [5] * 9, chunksize=4), got)
        assert got == [0, 1, 2, 3]
        assert caught.value.item_index == 4


async def test_an_error_of_the_source_comes_after_the_results_of_its_items():
    def broken():
        yield from range(5)
        raise OSError("no more")

    async def broken_async():
        for number in broken():
            yield number

    for source in (broken, broken_async):
        async with Pool(1) as pool:
            got = []
            with pytest.raises(OSError, match="no more"):
                await collect(pool.map(jobs.add, source(), chunksize=2), got)
            assert got == [0, 1, 2, 3, 4]


async def test_what_is_no_iterable_is_an_error_at_the_call(lend):
    async with lend() as pool:
        with pytest.raises(TypeError, match="int"):
            pool.map(jobs.add, 3)
        with pytest.raises(TypeError, match="int"):
            pool.map(jobs.add, numbers_async([]), 3)
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(jobs.add, [1], chunksize=0)
        with pytest.raises(ValueError, match="buffersize"):
            pool.map(jobs.add, [1], buffersize=0)


async def test_items_that_may_be_tried_again_go_one_by_one(tmp_path):
    async with Pool(1) as pool:
        view = pool.options(retries=1)
        await warm(pool, jobs.add)
        before = pool.stats().submitted
        assert len([r async for r in view.map(jobs.add, range(50))]) == 50
        assert pool.stats().submitted == before + 50


async def test_it_waits_for_room_in_a_full_pool():
    async with Pool(1, max_pending=2) as pool:
        got = [r async for r in pool.map(jobs.add, range(200), chunksize=2)]
        assert got == list(range(200))
        items = [*range(3), threading.Lock()]
        with pytest.raises(NotOffloadable):
            await collect(pool.map(jobs.add, items, chunksize=4), [])


async def test_async_functions_and_inline():
    for engine in ("local", "inline"):
        async with Pool(1, engine=engine) as pool:
            got = [r async for r in pool.map(jobs.add_async, range(9), range(9))]
            assert got == [2 * n for n in range(9)]
            again = pool.map(jobs.add_async, range(9), range(9), chunksize=4)
            assert [r async for r in again] == got


async def test_the_loop_gets_its_turn_in_a_long_map():
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Pool(1) as pool:
        counting = asyncio.create_task(count())
        async for _ in pool.map(jobs.add, range(20_000), chunksize=5000):
            pass
        counting.cancel()
        assert turns > 20
