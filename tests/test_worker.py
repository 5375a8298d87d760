"""Receive, run, reply: a worker, driven in this process by its parent's end."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
import time

import pytest

import jobs
from offloop import context, current_job, heap, messages, meter
from offloop import worker as module
from offloop.errors import MemoryLimitExceeded, ResultNotEncodable
from offloop.wire.status import SLOTS, StatusPage
from test_meter import private_bytes
from worker_parent import NUMBER, meanwhile, wait_until_readable

# Jobs and answers


def test_jobs_run_in_order_and_are_answered(parent):
    before = time.monotonic()
    numbers = [parent.submit(jobs.add, n, 1) for n in range(3)]
    parent.finish()
    answers = parent.answers()
    assert [a.job for a in answers] == numbers
    assert [a.value for a in answers] == [1, 2, 3]
    starts = [a.started for a in answers]
    assert before < starts[0] < starts[1] < starts[2] < time.monotonic()
    assert all(0 < a.run_time < 30 for a in answers)
    assert parent.page.running() == 0


def test_short_jobs_of_one_message_share_one_answer(parent, monkeypatch):
    monkeypatch.setattr(module, "_HOLD_NS", 60 * 10**9)
    parent.send(*(parent.call(jobs.add, n) for n in range(20)))
    parent.finish()
    ((kind, answers, _),) = parent.all()
    assert kind == messages.ANSWERS
    assert [a.value for a in answers] == list(range(20))


def test_an_answer_does_not_wait_long_for_companions(parent, monkeypatch):
    monkeypatch.setattr(module, "_HOLD_NS", 0)
    parent.send(*(parent.call(jobs.add, n) for n in range(3)))
    parent.finish()
    values = [[a.value for a in answers] for _, answers, _ in parent.all()]
    assert values == [[0], [1], [2]]


def test_an_exception_is_an_answer_too(parent):
    parent.submit(jobs.raise_value_error, "bad")
    parent.submit(jobs.system_exit)
    parent.submit(jobs.add, 1, 1)
    parent.finish()
    bad, exits, fine = parent.answers()
    assert [bad.status, exits.status, fine.status] == [1, 1, 0]
    assert repr(bad.value) == "ValueError('bad')"
    assert exits.value.type_name == "SystemExit"
    assert fine.value == 2


def test_what_cannot_be_sent_back_is_that_jobs_error(parent):
    parent.submit(jobs.unpicklable_result)
    parent.submit(jobs.add, 1, 1)
    parent.finish()
    bad, fine = parent.answers()
    assert isinstance(bad.value, ResultNotEncodable)
    assert bad.value.function == "unpicklable_result"
    assert fine.value == 2


def test_a_call_that_cannot_be_read_is_that_jobs_error(parent):
    (job, *rest), definition = parent.call(jobs.add, 1)
    rest[1] = b"no pickle"
    parent.send(((job, *rest), definition))
    parent.submit(jobs.add, 1, 1)
    parent.finish()
    bad, fine = parent.answers()
    assert isinstance(bad.value, pickle.UnpicklingError)
    assert fine.value == 2


def test_arguments_in_the_memory_of_a_client_that_has_gone_are_that_jobs_error(parent):
    (job, function, payload, _, *more), definition = parent.call(jobs.add, 1, attempt=2)
    place = (1, 0, 20_000, messages.READONLY, (3, "/proc/self/fd/9999", 1))
    parent.send(((job, function, payload, [place], *more), definition))
    parent.submit(jobs.add, 1, 1)
    parent.finish()
    bad, fine = parent.answers()
    assert isinstance(bad.value, FileNotFoundError)
    assert fine.value == 2


def test_many_calls_in_one_job(parent):
    parent.submit(jobs.add, [(1, 2), (3, 4), (5,)], True, False, many=True)
    parent.finish()
    (answer,) = parent.answers()
    assert answer.value == [3, 7, 5]


def test_coroutine_functions_run_to_their_end(parent):
    parent.submit(jobs.add_async, 1, 2)
    parent.submit(jobs.add_async, [(1, 2), (3, 4)], True, False, many=True)
    parent.finish()
    assert [a.value for a in parent.answers()] == [3, [3, 7]]


def test_a_callable_in_the_arguments_is_applied(parent):
    parent.submit(jobs.Point(2, 0), 21)
    parent.finish()
    assert [a.value for a in parent.answers()] == [42]


def test_large_arguments_come_as_buffers_with_their_call(parent, during):
    during(lambda *args: [(len(value), set(value)) for value in args])
    large = [bytes([n]) * (20_000 + n) for n in range(3)]
    parent.send(
        parent.call(meanwhile, large[0], large[1]),
        parent.call(meanwhile, b"small"),
        parent.call(meanwhile, large[2]),
    )
    parent.finish()
    first, second, third = parent.answers()
    assert first.value == [(20_000, {0}), (20_001, {1})]
    assert second.value == [(5, set(b"small"))]
    assert third.value == [(20_002, {2})]


# Functions


def test_a_function_that_was_forgotten_is_not_known_any_more(parent):
    parent.submit(jobs.add, 1)
    call, definition = parent.call(jobs.add, 2)
    parent.send((call, definition), forgotten=[call[1]])
    parent.send(forgotten=[12345])  # never known: no error
    parent.finish()
    known, forgotten = parent.answers()
    assert known.value == 1
    assert isinstance(forgotten.value, LookupError)


_THREAD = """
import threading
ended = threading.Event()
thread = threading.Thread(target=ended.wait)
thread.start()
def close(): ended.set(); thread.join()
"""
_FILE = """
import os
close = open(os.devnull).close
"""


@pytest.mark.parametrize(
    ("text", "harmless"),
    [("def close(): pass", True), (_THREAD, False), (_FILE, False)],
)
def test_a_module_that_a_function_needs_is_reported_if_it_leaves_nothing_running(
    parent, tmp_path, monkeypatch, text, harmless
):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "needed.py").write_text(f"{text}\ndef fn(): return 'ran'\n")
    call, _ = parent.call(jobs.nothing)
    parent.send((call, [(call[1], b"Rneeded\0fn")]))
    parent.finish()
    ((_, (answer,), imported),) = parent.all()
    assert answer.value == "ran"
    assert imported == (["needed"] if harmless else [])
    sys.modules.pop("needed").close()


def test_a_function_that_has_no_name_is_described(parent):
    call, _ = parent.call(jobs.add, 1)
    definition = b"V" + pickle.dumps(jobs.Point(1, 2))
    parent.send((call, [(call[1], definition)]))
    parent.finish()
    (answer,) = parent.answers()
    assert answer.value == 1  # the point, called with a factor of 1


# What a job is told of itself


def test_a_job_is_told_who_it_is(parent, during):
    seen = []

    def look():
        seen.append(current_job())
        return current_job() is seen[-1]

    during(look)
    parent.submit(meanwhile, attempt=2, deadline=123.5)
    parent.submit(meanwhile)
    parent.finish()
    assert [a.value for a in parent.answers()] == [True, True]
    told = [(j.id, j.attempt, j.deadline, j.worker) for j in seen]
    assert told == [(1, 2, 123.5, NUMBER), (2, 1, None, NUMBER)]
    assert not context.in_job()


def test_the_page_names_the_job_that_runs(parent, during):
    during(lambda: (parent.page.running(), parent.page.since()))
    job = parent.submit(meanwhile)
    parent.finish()
    (answer,) = parent.answers()
    assert answer.value[0] == job
    assert answer.value[1] == pytest.approx(answer.started)


# Answers that survive


def test_answers_are_kept_in_the_page_before_the_next_job_begins(parent, during):
    during(parent.kept)
    parent.send(
        parent.call(jobs.add, 1),
        parent.call(jobs.raise_value_error),
        parent.call(meanwhile),
    )
    parent.finish()
    assert parent.answers()[-1].value == [(1, messages.OK), (2, messages.ERROR)]


@pytest.mark.parametrize("large", [b"x" * 40_000, "x" * 40_000])
def test_after_an_answer_that_cannot_be_kept_nothing_begins(parent, large):
    """One that found no room in shared memory is only in ZeroMQ's hands."""
    parent.fill_results()
    first, *rest = parent.send(
        parent.call(jobs.add, large, large[:0]),
        parent.call(jobs.add, 1),
        parent.call(jobs.add, 2),
    )
    again = parent.submit(jobs.add, 3)
    parent.finish()
    answered, *returned = parent.all()
    assert [a.job for a in answered[1]] == [first]
    assert answered[1][0].value == large
    assert len(answered[1][0].buffers) == 1
    assert returned == [(messages.DECLINED, rest), (messages.DECLINED, [again])]
    assert parent.page.running() == first


def test_once_a_large_answer_was_heard_the_worker_goes_on(parent):
    parent.fill_results()
    numbers = parent.send(
        parent.call(jobs.add, "x" * 40_000, ""), parent.call(jobs.add, 1)
    )
    parent.page.note_heard(numbers[0])
    parent.finish()
    assert [a.job for a in parent.answers()] == numbers
    assert parent.page.running() == 0


def test_a_large_answer_with_nothing_behind_it_returns_nothing(parent):
    parent.submit(jobs.echo, b"x" * 40_000)
    parent.finish()
    assert [message[0] for message in parent.all()] == [messages.ANSWERS]


def test_after_a_large_answer_the_page_goes_on_naming_its_job(parent, monkeypatch):
    seen = []

    def idle():
        seen.append(parent.page.running())
        parent.say(messages.STOP)

    monkeypatch.setattr(module, "_IDLE", 0.001)
    monkeypatch.setattr(heap, "return_freed", idle)
    parent.fill_results()
    job = parent.submit(jobs.echo, b"x" * 40_000)
    parent.serve()
    assert seen == [job]


def test_more_jobs_than_the_page_has_slots(parent):
    parent.send(*(parent.call(jobs.add, n) for n in range(SLOTS)))
    parent.send(*(parent.call(jobs.add, n) for n in range(SLOTS)))
    parent.finish()
    assert len(parent.answers()) == 2 * SLOTS
    assert [job for job, _ in parent.kept()] == list(range(SLOTS + 1, 2 * SLOTS + 1))


# Recalls


def recall(parent, *numbers):
    """Ask jobs back, and see to it that the worker can read that; STOP follows."""
    assert not parent.theirs.wants_reading()
    parent.page.ask_attention(True)
    parent.say(messages.RECALL, list(numbers))
    wait_until_readable(parent.theirs)
    parent.say(messages.STOP)


def test_jobs_that_have_not_begun_are_given_back(parent, during):
    during(lambda: recall(parent, 1, 3, 4, 99))
    parent.send(
        parent.call(meanwhile),
        parent.call(jobs.add, 2),
        parent.call(jobs.add, 3),
        parent.call(jobs.add, 4),
    )
    parent.serve()
    returned, results = parent.all()
    assert returned == (messages.RETURNED, [3, 4])
    assert [a.job for a in results[1]] == [1, 2]


def test_all_that_waits_may_be_recalled(parent, during):
    during(lambda: recall(parent, 2))
    parent.send(parent.call(meanwhile), parent.call(jobs.add, 2))
    parent.serve()
    returned, results = parent.all()
    assert returned == (messages.RETURNED, [2])
    assert [a.job for a in results[1]] == [1]


def test_a_recall_that_comes_too_late_is_answered_too(parent):
    parent.submit(jobs.add, 1)
    parent.say(messages.RECALL, [1])
    parent.finish()
    results, returned = parent.all()
    assert [a.job for a in results[1]] == [1]
    assert returned == (messages.RETURNED, [])


def test_the_signal_gives_jobs_back_while_a_long_one_runs(parent, during):
    def run_long():
        parent.hear()
        recall(parent, 2)
        signal.raise_signal(messages.WAKE_SIGNAL)
        return parent.hear()

    during(run_long)
    parent.send(parent.call(meanwhile), parent.call(jobs.add, 2))
    assert parent.run() == 0
    (answer,) = parent.answers()
    assert answer.value == (messages.RETURNED, [2])


# Stopping


def test_a_worker_that_is_used_up_says_so_before_its_last_answer(parent):
    parent.page.allow(2, 0)
    first, second, *rest = parent.send(*(parent.call(jobs.add, n) for n in range(4)))
    again = parent.submit(jobs.add, 9)
    parent.finish()
    said, *returned, answered, more = parent.all()
    assert said == (messages.SPENT, meter.JOBS)
    assert returned == [(messages.DECLINED, rest)]
    assert [a.job for a in answered[1]] == [first, second]
    assert more == (messages.DECLINED, [again])
    assert parent.page.used() == (2, 0)
    assert parent.page.running() == 0


def test_after_a_large_last_answer_nothing_begins_either(parent):
    parent.page.allow(1, 0)
    parent.fill_results()
    large, _ = parent.send(
        parent.call(jobs.add, "x" * 40_000, ""), parent.call(jobs.add, 1)
    )
    parent.page.note_heard(large)
    parent.finish()
    first, *others = [message[0] for message in parent.all()]
    assert first == messages.SPENT
    assert sorted(others) == [messages.ANSWERS, messages.DECLINED]


@pytest.fixture
def limited(parent):
    """Return a parent whose worker may take 100 MB for a job."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    parent.page.limit_memory(private_bytes() + 100_000_000)
    yield parent
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_job_that_takes_too_much_memory_ends_with_an_error_and_so_does_the_worker(
    limited,
):
    small, large, rest = limited.send(
        limited.call(jobs.take, 1_000_000),
        limited.call(jobs.take, 200_000_000),
        limited.call(jobs.take, 1),
    )
    limited.finish()
    said, *others = limited.all()
    assert said == (messages.SPENT, meter.LIMIT)
    # The error takes a while to be encoded, so either may come first.
    (_, answers, _), returned = sorted(others)
    assert returned == (messages.DECLINED, [rest])
    assert [(a.job, a.status) for a in answers] == [
        (small, messages.OK),
        (large, messages.ERROR),
    ]
    assert isinstance(answers[1].value, MemoryLimitExceeded)
    assert answers[1].value.job_id == large


def test_other_errors_are_no_reason_to_leave(limited):
    limited.submit(jobs.raise_value_error)
    limited.finish()
    (answered,) = limited.all()
    assert isinstance(answered[1][0].value, ValueError)


def test_used_up_in_two_ways_is_said_once(limited):
    limited.page.allow(1, 0)
    limited.submit(jobs.take, 200_000_000)
    limited.finish()
    assert [message[0] for message in limited.all()] == [
        messages.SPENT,
        messages.ANSWERS,
    ]


def test_an_interrupted_job_limits_nothing_any_more(limited):
    limited.page.interrupt(1)
    limited.submit(jobs.add, 1)
    limited.serve()
    assert [a.status for a in limited.answers()] == [messages.INTERRUPTED]


def test_a_worker_that_leaves_anyway_is_not_measured(parent):
    parent.page.allow(1, 0)
    parent.page.interrupt(1)
    parent.send(parent.call(jobs.add, 1))
    parent.serve()
    (answered,) = parent.all()
    assert [a.status for a in answered[1]] == [messages.INTERRUPTED]


def test_told_to_leave_it_finishes_its_inbox_first(parent, during):
    def stop():
        parent.page.ask_attention(True)
        parent.say(messages.STOP)
        wait_until_readable(parent.theirs)

    during(stop)
    parent.send(parent.call(meanwhile), parent.call(jobs.add, 2))
    parent.serve()
    assert [a.job for a in parent.answers()] == [1, 2]


def test_messages_that_it_does_not_know_are_passed_over(parent):
    parent.say(99, "from a later version")
    parent.submit(jobs.add, 1)
    parent.finish()
    assert [a.value for a in parent.answers()] == [1]


# Set-up


def test_the_set_up_runs_before_it_says_that_it_is_ready(parent):
    parent.say(messages.STOP)
    assert parent.run((jobs.initialize, ("set up",))) == 0
    assert parent.hear() == (messages.READY, os.getpid())
    assert jobs.initialized() == "set up"


@pytest.mark.parametrize(
    ("setup", "says"),
    [
        ((jobs.fail_to_initialize, ()), "RuntimeError: no database today"),
        ((jobs.system_exit, ()), "SystemExit: 3"),
        ((jobs.nothing,), "not enough values to unpack"),
    ],
)
def test_a_set_up_that_fails_is_told_and_ends_it(parent, setup, says):
    assert parent.run(setup) == 1
    kind, report = parent.hear()
    assert kind == messages.BROKEN
    assert says in report
    assert says in StatusPage.last_words(parent.file)  # should that message be lost
    assert parent.all() == []


# Idling


def test_idle_it_gives_memory_back_once_and_waits_on(parent, monkeypatch):
    trimmed = []

    def trim():
        trimmed.append(True)
        parent.submit(jobs.add, 1)
        if len(trimmed) == 2:
            parent.say(messages.STOP)

    monkeypatch.setattr(module, "_IDLE", 0.001)
    monkeypatch.setattr(heap, "return_freed", trim)
    parent.serve()
    assert [a.value for a in parent.answers()] == [1, 1]
    assert len(trimmed) == 2
