"""Calls that share a run, and calls that run together."""

from __future__ import annotations

import asyncio
import signal

import pytest

import jobs
from jobs_many import halves, job_of
from offloop import Batch, Pool, offload
from offloop.errors import NotOffloadable, UsageError, WorkerLost


@offload(batch=Batch(max_size=3, max_wait=60))
def squares(numbers: list[int]) -> list[int]:
    return [n * n for n in numbers]


@offload
async def square_in_job(number: int) -> int:
    return await squares(number)


@pytest.mark.parametrize("value", [3, [1, 2], {"a": 1}])
async def test_equal_calls_share_a_run(lend, value):
    async with lend() as pool:
        view = pool.options(single_flight=True)
        same = await asyncio.gather(*(view.run(job_of, value) for _ in range(5)))
        assert len(set(same)) == 1
        other = await asyncio.gather(view.run(job_of, 1), view.run(job_of, True))
        assert len(set(other)) == 2
        assert await view.run(job_of, value) not in same
        assert not pool._gathering._flights


async def test_a_caller_that_gives_up_stops_nobody_else(gate):
    reached, until = gate(), gate()
    async with Pool(1) as pool:
        view = pool.options(single_flight=True)
        first, second = (
            asyncio.create_task(view.run(jobs.meet, str(reached), str(until)))
            for _ in range(2)
        )
        await reached.reached()
        first.cancel()
        await asyncio.wait([first])
        until.open()
        assert await second == "met"


async def test_the_last_caller_that_gives_up_stops_the_run(gate):
    reached = gate()
    async with Pool(1, grace=0.05) as pool:
        view = pool.options(single_flight=True)
        calls = [
            asyncio.create_task(view.run(jobs.loop_in_python, str(reached)))
            for _ in range(2)
        ]
        await reached.reached()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert not pool._gathering._flights
        assert await view.run(jobs.add, 1) == 1
        assert pool.stats().cancelled == 1


async def test_an_error_is_shared_too():
    async with Pool(1) as pool:
        view = pool.options(single_flight=True)
        errors = await asyncio.gather(
            *(view.run(jobs.raise_value_error) for _ in range(3)),
            return_exceptions=True,
        )
        assert [str(error) for error in errors] == ["bad"] * 3
        assert pool.stats().failed == 1
        with pytest.raises(NotOffloadable, match="single_flight"):
            await view.run(jobs.echo, [asyncio.get_running_loop()])


def die(_):
    jobs.die_by(signal.SIGKILL)


async def test_a_lost_worker_is_an_error_for_all_who_share_its_run(tmp_path):
    died = str(tmp_path / "died")
    async with Pool(1) as pool:
        for options in ({"single_flight": True}, {"batch": Batch(2, 60)}):
            view = pool.options(**options)
            calls = [view.run(die, 1) for _ in range(2)]
            errors = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in errors] == [WorkerLost] * 2
        again = pool.options(single_flight=True, retries=1)
        calls = [again.run(jobs.die_first_time, died) for _ in range(2)]
        assert await asyncio.gather(*calls) == [2, 2]
        assert pool.stats().lost == 2


async def test_a_batch_runs_when_it_is_full():
    async with Pool(1) as pool:
        view = pool.options(batch=Batch(max_size=3, max_wait=60))
        calls = [view.run(halves, n) for n in (2, 4, 6, 8, 10, 12)]
        assert await asyncio.gather(*calls) == [1, 2, 3, 4, 5, 6]
        assert pool.stats().submitted == 2


async def test_a_batch_runs_when_its_first_item_has_waited_enough():
    async with Pool(1) as pool:
        view = pool.options(batch=Batch(max_size=100, max_wait=0.001))
        assert await asyncio.gather(view.run(halves, 2), view.run(halves, 4)) == [1, 2]
        assert pool.stats().submitted == 1
        assert not pool._gathering._batches


async def test_an_item_of_a_batch_may_fail_alone(lend):
    async with lend() as pool:
        view = pool.options(batch=Batch(max_size=3, max_wait=60))
        calls = [view.run(halves, n) for n in (2, 3, 4)]
        one, error, two = await asyncio.gather(*calls, return_exceptions=True)
        assert (one, two) == (1, 2)
        assert str(error) == "3 is odd"


@pytest.mark.parametrize("function", [jobs.echo, len, jobs.raise_value_error])
async def test_a_batch_that_fails_fails_for_all(lend, function):
    async with lend() as pool:
        view = pool.options(batch=Batch(max_size=2, max_wait=60))
        calls = [view.run(function, n) for n in (1, 2)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} <= {TypeError, ValueError}


async def test_who_gives_up_before_the_batch_runs_is_not_in_it():
    async with Pool(1) as pool:
        view = pool.options(batch=Batch(max_size=3, max_wait=60))
        calls = [asyncio.create_task(view.run(halves, n)) for n in (2, 4)]
        await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        third = asyncio.create_task(view.run(halves, 6))
        assert await asyncio.gather(calls[1], third) == [2, 3]
        short = pool.options(batch=Batch(max_size=3, max_wait=0))
        alone = asyncio.create_task(short.run(halves, 2))
        await asyncio.sleep(0)
        alone.cancel()
        await asyncio.wait([alone])
        assert await short.run(halves, 8) == 4


async def test_a_batch_that_everybody_gave_up_is_stopped(gate):
    reached = gate()

    def stay(items):
        return jobs.loop_in_python(items[0])

    async with Pool(1, grace=0.05) as pool:
        view = pool.options(batch=Batch(max_size=2, max_wait=60))
        calls = [asyncio.create_task(view.run(stay, str(reached))) for _ in range(2)]
        await reached.reached()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert await pool.run(jobs.add, 1) == 1
        assert pool.stats().cancelled == 1


async def test_closing_the_pool_ends_those_who_wait_in_a_batch(gate):
    reached = gate()

    def stay(items):
        return jobs.loop_in_python(items[0])

    pool = await Pool(1, grace=0.05).start()
    view = pool.options(batch=Batch(max_size=1))
    call = asyncio.create_task(view.run(stay, str(reached)))
    await reached.reached()
    await pool.close()
    await asyncio.wait([call])
    assert call.cancelled()


async def test_the_decorator_gathers_too():
    assert await asyncio.gather(squares(1), squares(2), squares(3)) == [1, 4, 9]
    assert await square_in_job(5) == 25  # alone: it runs right there


async def test_what_does_not_go_together_is_refused():
    batch = Batch(max_size=2)
    with pytest.raises(ValueError, match="exclude"):
        offload(batch=batch, single_flight=True)(jobs.add)
    with pytest.raises(TypeError, match="Batch"):
        offload(batch=3)
    with pytest.raises(ValueError, match="max_size"):
        Batch(max_size=0)
    async with Pool(1) as pool:
        view = pool.options(batch=batch)
        with pytest.raises(TypeError, match="exactly one"):
            await view.run(halves, 1, 2)
        with pytest.raises(UsageError, match="submit"):
            view.submit(halves, 1)
        with pytest.raises(UsageError, match="map"):
            view.map(halves, [1])
