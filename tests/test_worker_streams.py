"""A worker that runs a generator or in a sandbox, driven by a parent here."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import jobs
import jobs_streams as streams
from offloop import current_job, messages, sandbox
from offloop import worker as module
from worker_parent import meanwhile, meanwhile_count


def numbers_of(parent):
    """Return the parts that have come, and the answers."""
    parts, answers = [], []
    for kind, *rest in parent.all():
        if kind == messages.PARTS:
            parts += [payload[0] for payload in rest[1]]
        elif kind == messages.ANSWERS:
            answers += rest[0]
    return parts, answers


def test_parts_go_ahead_of_the_answer(parent):
    job = parent.submit(streams.count, 3, many=10)
    parent.finish()
    parts, (answer,) = numbers_of(parent)
    assert parts == [0, 1, 2]
    assert (answer.job, answer.status, answer.value) == (job, messages.OK, None)


def test_it_waits_until_its_consumer_has_taken_some(parent, during):
    def let_on(number):
        if number in (0, 2):
            parent.say(messages.MORE, 99, 50, 0)  # of another stream: it has ended
            parent.say(messages.MORE, 1, 2, 2)

    during(let_on)
    parent.submit(meanwhile_count, 4, many=1)
    parent.say(messages.MORE, 1, 50, 50)  # before it has begun: for nobody
    parent.finish()
    parts, (answer,) = numbers_of(parent)
    assert parts == [0, 1, 2, 3]
    assert answer.status == messages.OK


def test_a_recall_closes_it_where_it_waits(parent, during):
    during(lambda number: parent.say(messages.RECALL, [1]))
    parent.submit(meanwhile_count, 4, many=1)
    parent.finish()
    parts, (answer,) = numbers_of(parent)
    assert parts == [0]
    assert (answer.status, answer.value) == (messages.OK, None)


@pytest.mark.parametrize("inside", [True, False])
def test_a_signal_has_what_was_gathered_sent(parent, during, monkeypatch, inside):
    """Within the generator at once; else, it is looked at before that goes on."""
    seen = []

    def wake(number):
        flow = parent.worker._flow
        if number == 1:
            flow.inside = inside
            signal.raise_signal(messages.WAKE_SIGNAL)
            seen.append(flow.alarmed)
            flow.inside = True

    during(wake)
    parent.submit(meanwhile_count, 3, many=10)
    parent.finish()
    parts, _ = numbers_of(parent)
    assert parts == [0, 1, 2]
    assert seen == [not inside]


def test_rights_are_given_up_once_before_the_first_job(parent, monkeypatch):
    entered = []
    monkeypatch.setattr(sandbox, "enter", lambda: entered.append(True))
    parent.page.put_in_sandbox()
    parent.send(*(parent.call(jobs.add, n) for n in range(2)))
    parent.finish()
    assert len(parent.answers()) == 2
    assert entered == [True]


def told_by(parent):
    return [rest for kind, *rest in parent.all() if kind == messages.PROGRESS]


def test_progress_that_another_thread_reports_is_told_while_the_job_runs(
    parent, during
):
    def report_and_wait():
        thread = threading.Thread(target=current_job().report, args=(7, 9))
        thread.start()
        thread.join()
        assert parent.hear()[0] == messages.READY
        said.append(parent.hear())

    said = []
    during(report_and_wait)
    parent.submit(meanwhile)
    parent.say(messages.STOP)
    parent.run()
    assert said == [(messages.PROGRESS, 1, (7, 9, ""))]
    assert told_by(parent) == []


def test_progress_that_is_held_back_is_told_upon_a_signal_and_at_the_end(
    parent, during, monkeypatch
):
    monkeypatch.setattr(messages, "REPORT_PAUSE", 60.0)

    def work():
        report = current_job().report
        report(1)
        report(2)
        assert parent.page.holds_report()
        signal.raise_signal(messages.WAKE_SIGNAL)
        assert not parent.page.holds_report()
        report(3)
        report(4)

    during(work)
    parent.submit(meanwhile)
    parent.finish()
    assert [report[0] for _, report in told_by(parent)] == [1, 2, 4]
    assert not parent.page.holds_report()


def test_progress_of_a_generator_is_told_before_it_waits(parent, during, monkeypatch):
    monkeypatch.setattr(messages, "REPORT_PAUSE", 60.0)
    told = []

    def generate():
        report = current_job().report
        report(1)
        report(2)
        yield 1

    def take_when_told():
        while len(told) < 2:
            kind, *rest = parent.channel.receive()
            if kind == messages.PROGRESS:
                told.append(rest[1][0])
        parent.say(messages.MORE, job, 1, 16)
        parent.say(messages.STOP)

    during(generate)
    job = parent.submit(meanwhile, many=1)
    consumer = threading.Thread(target=take_when_told)
    consumer.start()
    parent.run()
    consumer.join()
    assert told == [1, 2]
    assert told_by(parent) == []


def test_threads_and_files_are_counted_as_far_as_can_be(monkeypatch):
    def no_proc(path):
        raise FileNotFoundError(path)

    assert module._footprint() == (module.thread_count(), len(os.listdir("/dev/fd")))
    monkeypatch.setattr(os, "listdir", no_proc)
    threads, files = module._footprint()
    assert threads >= 1
    assert files == 0
