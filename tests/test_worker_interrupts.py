"""A job that must stop is stopped once, answered for, and mistaken for no other."""

from __future__ import annotations

import signal

import pytest

import jobs
from offloop import current_job, messages
from offloop.errors import JobInterrupted
from offloop.worker import Worker
from worker_parent import meanwhile


def interrupt(parent, job):
    parent.page.interrupt(job)
    signal.raise_signal(messages.WAKE_SIGNAL)


def test_an_interrupted_job_is_stopped_and_the_worker_leaves(parent, during):
    told = []

    def loop():
        told.append(current_job())
        try:
            interrupt(parent, 2)
            raise AssertionError("unreachable: the signal comes first")
        finally:
            told.append("cleaned up")

    during(loop)
    parent.submit(jobs.add, 1)
    parent.send(parent.call(meanwhile), parent.call(jobs.add, 3))
    parent.serve()
    first, second = parent.answers()
    assert (first.job, first.status) == (1, messages.OK)
    assert (second.job, second.status) == (2, messages.INTERRUPTED)
    assert parent.kept()[-1] == (2, messages.INTERRUPTED), "should the message be lost"
    assert 0 <= second.run_time < 30
    assert told[0].cancelled
    assert told[1] == "cleaned up"


def test_an_interrupt_for_another_job_does_nothing(parent, during):
    during(lambda: interrupt(parent, 99))
    parent.submit(meanwhile)
    parent.finish()
    assert [a.status for a in parent.answers()] == [messages.OK]


def test_a_signal_outside_of_a_job_does_nothing(parent):
    parent.submit(jobs.add, 1)
    parent.finish()
    parent.page.interrupt(1)
    signal.raise_signal(messages.WAKE_SIGNAL)
    assert [a.status for a in parent.answers()] == [messages.OK]


def test_an_interrupt_whose_signal_came_too_early_is_not_missed(parent):
    parent.page.interrupt(1)
    parent.submit(jobs.add, 1)
    parent.finish()
    assert [a.status for a in parent.answers()] == [messages.INTERRUPTED]


def test_a_job_is_asked_to_stop_only_once(parent, during):
    def cleans_up_slowly():
        try:
            interrupt(parent, 1)
        finally:
            signal.raise_signal(messages.WAKE_SIGNAL)
            done.append(True)

    done = []
    during(cleans_up_slowly)
    parent.submit(meanwhile)
    parent.serve()
    assert [a.status for a in parent.answers()] == [messages.INTERRUPTED]
    assert done == [True]


def test_a_job_that_swallows_the_request_answers_and_the_next_can_be_asked(
    parent, during
):
    def swallow():
        try:
            interrupt(parent, current_job().id)
        except JobInterrupted:
            return "swallowed"

    def obey():
        interrupt(parent, current_job().id)

    steps = iter([swallow, obey])
    during(lambda: next(steps)())
    parent.submit(meanwhile)
    parent.submit(meanwhile)
    parent.say(messages.STOP)  # for a worker that would go on
    parent.serve()
    first, second = parent.answers()
    assert (first.status, first.value) == (messages.OK, "swallowed")
    assert second.status == messages.INTERRUPTED


class _Interrupted(Worker):
    """Is interrupted in the moment in which it notes that the user's code is over."""

    @property
    def _in_job(self):
        return self._number_in_job

    @_in_job.setter
    def _in_job(self, job):
        ends = job == 0 and getattr(self, "_number_in_job", 0) != 0
        if ends and not self._asked:
            self._asked = True
            raise JobInterrupted
        self._number_in_job = job


@pytest.mark.parametrize("fn", [jobs.nothing, jobs.raise_value_error])
def test_an_interrupt_at_the_very_end_of_a_job_counts_for_that_job(make, fn):
    parent = make(_Interrupted)
    job = parent.submit(fn)
    parent.serve()
    (answer,) = parent.answers()
    assert (answer.job, answer.status) == (job, messages.INTERRUPTED)
