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


def test_reports_are_told_in_turn_and_one_that_is_held_back_is_noted():
    told, held = [], []

    def tell(number, report):
        told.append((number, report))

    job = JobContext(7, 1, None, 3, tell=tell, hold=held.append, pause=60.0)
    job.tell_report()
    assert told == [], "it has said nothing"
    job.report(1)
    for done in (2, 3):
        job.report(done, 9, "soon")
    assert (told, held) == ([(7, (1, None, ""))], [True])
    for _ in range(2):
        job.tell_report()
    assert (told[1:], held) == ([(7, (3, 9, "soon"))], [True, False])


def test_a_report_is_told_once_even_if_a_signal_comes_while_it_is_told():
    told = []

    def hold(held):
        if not held:
            job.tell_report()  # as the handler of a signal does

    job = JobContext(7, 1, None, 3, tell=lambda *a: told.append(a), hold=hold, pause=60)
    job.report(1)
    job.report(2)
    job.tell_report()
    assert [report[0] for _, report in told] == [1, 2]


def test_who_cannot_tell_leaves_it_to_who_can():
    told, asked = [], []
    here = False

    def may():
        asked.append(here)
        return here

    job = JobContext(7, 1, None, 3, tell=lambda *a: told.append(a), here=may, pause=60)
    job.report(1)
    job.report(2)
    assert (told, asked) == ([], [False]), "nobody is woken for each report"
    here = True
    job.tell_report()
    assert told == [(7, (2, None, ""))]


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
