"""Who is told which job runs."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from offloop import context, current_job
from offloop.context import JobContext


@pytest.fixture(autouse=True)
def _own_source(monkeypatch):
    """Undo what a test names as the source."""
    monkeypatch.setattr(context, "_source", None)


def test_outside_a_job_it_is_an_error_that_says_where_it_works():
    assert not context.in_job()
    with pytest.raises(RuntimeError, match="outside a job: it works only in code that"):
        current_job()


def test_inside_a_job_all_is_known():
    job = JobContext(7, 2, 123.5, 3)

    def work():
        context.enter(job)
        assert context.in_job()
        assert current_job() is job

    contextvars.Context().run(work)
    assert (job.id, job.attempt, job.deadline, job.worker) == (7, 2, 123.5, 3)
    assert job.cancelled is False
    assert not context.in_job()


async def test_each_asyncio_task_has_a_job_of_its_own():
    async def work(number):
        context.enter(JobContext(number, 1, None, 0))
        await asyncio.sleep(0)
        return current_job().id

    assert await asyncio.gather(*map(work, range(5))) == list(range(5))
    assert not context.in_job()


def test_a_source_is_asked_each_time():
    now = None
    context.set_source(lambda: now)
    assert not context.in_job()
    with pytest.raises(RuntimeError, match="outside a job"):
        current_job()
    now = JobContext(9, 1, None, 4)
    assert context.in_job()
    assert current_job() is now


def test_a_source_also_answers_in_a_context_that_is_empty():
    job = JobContext(9, 1, None, 4)
    context.set_source(lambda: job)
    assert contextvars.Context().run(current_job) is job
