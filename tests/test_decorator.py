"""`@offload` as its users see it."""

from __future__ import annotations

import asyncio
import inspect

import fastapi
import httpx
import pytest

import jobs
import offloop
from offloop import configure, default_pools, offload
from offloop.errors import NotOffloadable, StartError


@pytest.fixture(autouse=True)
def _two_workers(monkeypatch):
    """Give default pools of these tests two workers, and nothing from test to test."""
    monkeypatch.setattr(default_pools, "_options", {"max_workers": 2})


@pytest.mark.loops
async def test_awaiting_the_function_runs_it_in_a_worker():
    assert await jobs.doubled(4) == 8
    assert await jobs.doubled_async(5) == 10


async def test_it_works_in_gather_and_task_groups():
    assert await asyncio.gather(*(jobs.doubled(n) for n in range(20))) == [
        2 * n for n in range(20)
    ]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(jobs.doubled(3))
    assert task.result() == 6


async def test_its_other_faces():
    job = jobs.doubled.submit(4)
    assert isinstance(job, offloop.Job)
    assert await job == 8
    assert jobs.doubled.local(4) == 8
    assert [r async for r in jobs.doubled.map(range(5))] == [0, 2, 4, 6, 8]
    assert await jobs.doubled.options(timeout=30)(4) == 8
    assert await jobs.doubled.options(timeout=30).options(priority=1).submit(4) == 8


async def test_methods_are_bound_like_any_other():
    painter = jobs.Painter("red")
    assert await painter.paint("wall") == "red wall"
    assert await jobs.Painter.paint.submit(painter, "door") == "red door"
    with pytest.raises(TypeError, match=r"Painter\.paint\.submit\(obj, \.\.\.\)"):
        painter.paint.submit("door")


async def test_options_reach_the_job():
    deadlines = offload(timeout=60, priority=3)(jobs.describe_job)
    _, _, deadline, _ = await deadlines()
    assert deadline is not None
    job = deadlines.submit()
    assert job._call.terms.priority == 3
    await job


async def test_inside_a_job_an_offloaded_function_runs_right_there():
    assert await jobs.doubled_of_doubled(3) == 12


async def test_a_function_of_this_scope_works_too():
    factor = 3

    @offload
    def times(value):
        return value * factor

    assert await times(5) == 15
    factor = 4
    assert await times(5) == 20


async def test_the_default_pool_is_one_and_closes_with_the_loop():
    async def use():
        first = await offload(jobs.pid)()
        pool = default_pools.default_pool()
        assert first is not None
        assert default_pools.default_pool() is pool
        return pool

    pool = await asyncio.to_thread(asyncio.run, use())
    assert not pool.is_open


async def test_a_default_pool_that_was_closed_is_replaced():
    assert await jobs.doubled(1) == 2
    await default_pools.default_pool().close()
    assert await jobs.doubled(2) == 4


async def test_configure_sets_the_default_pool():
    configure(max_workers=1, initializer=jobs.initialize, initargs=("here",))
    assert await offload(jobs.initialized)() == "here"
    with pytest.raises(TypeError, match="max_workers"):
        configure(workers=3)
    assert default_pools._options["max_workers"] == 1


async def test_a_default_pool_that_cannot_start_fails_its_jobs():
    configure(max_workers=1, initializer=jobs.fail_to_initialize)
    with pytest.raises(StartError, match="no database today"):
        await jobs.doubled(1)
    with pytest.raises(StartError, match="no database today"):
        jobs.doubled.submit(1)


def test_it_looks_like_the_function_and_like_a_coroutine_function():
    assert inspect.iscoroutinefunction(jobs.doubled)
    assert asyncio.iscoroutinefunction(jobs.doubled)
    assert inspect.isfunction(jobs.doubled)
    assert list(inspect.signature(jobs.doubled).parameters) == ["value"]
    assert jobs.doubled.__name__ == "doubled"
    assert "Call another" in jobs.doubled_of_doubled.__doc__


async def test_it_is_an_endpoint():
    app = fastapi.FastAPI()
    app.get("/doubled")(jobs.doubled)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/doubled?value=4")).json() == 8
        assert (await client.get("/doubled?value=four")).status_code == 422


def test_mistakes_are_errors_at_the_decorator():
    with pytest.raises(TypeError, match="run_timeout"):
        offload(time_limit=3)
    with pytest.raises(ValueError, match="retries"):
        offload(retries=-1)
    with pytest.raises(NotOffloadable, match="function"):
        offload(3)
    with pytest.raises(NotOffloadable, match="below @staticmethod"):
        offload(staticmethod(jobs.add))
    with pytest.raises(TypeError, match="there are"):
        jobs.doubled.options(colour=3)


async def test_calling_it_without_a_loop_is_an_error():
    def call():
        return jobs.doubled.submit(1)

    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(call)
