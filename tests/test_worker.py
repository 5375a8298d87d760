"""A worker, driven in this process by a parent's end of its channel and page.

All that the parent says is queued before the worker is run, or said by a job while it
runs (`_meanwhile`), so the order of things is certain. What only a process of its own
can show is shown by a forked one at the end.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import io
import os
import pickle
import random
import select
import signal
import sys
import threading
import time

import pytest

import jobs
from forkservers import forkserver, run
from offloop import context, current_job, messages
from offloop import worker as module
from offloop.errors import JobInterrupted, ResultNotEncodable
from offloop.wire import codec
from offloop.wire.channel import Channel, make_context
from offloop.wire.functions import APPLY, FunctionTable
from offloop.wire.status import SLOTS, StatusPage, create_file
from offloop.worker import Worker

NUMBER = 3

#: what the job `meanwhile` does; set by a test
_meanwhile = None


def meanwhile(*args):
    """Do what the test wants to happen while a job runs."""
    return _meanwhile(*args)


class Parent:
    """The parent's end of a worker that runs in this process."""

    def __init__(self, path, kind=Worker):
        self.contexts = make_context(), make_context()
        self.channel, self.theirs = map(Channel, self.contexts)
        self.channel.bind(path)
        self.theirs.connect(path)
        self.theirs.send(("here",))  # before that the parent must not send
        assert self.channel.receive() == ("here",)
        self.file = create_file()
        self.page, self.their_page = StatusPage(self.file), StatusPage(self.file)
        self.worker = kind(NUMBER, self.theirs, self.their_page)
        self.functions = FunctionTable()
        self._known = set()
        self._last_job = 0

    def call(self, fn, *args, attempt=1, deadline=None, many=False):
        """Return the call of a new job and its buffers, and define what it needs."""
        self._last_job += 1
        function, args = self.functions.prepare(fn, args)
        payload, buffers = codec.encode_call(args, {}, function.name)
        definition = []
        if function.id != APPLY and function.id not in self._known:
            self._known.add(function.id)
            definition = [(function.id, function.definition)]
        count = len(buffers)
        job = self._last_job
        call = (job, function.id, payload, count, attempt, deadline, many)
        return call, definition, buffers

    def send(self, *calls, forgotten=()):
        """Put jobs into the inbox; returns their numbers."""
        definitions = [one for _, definition, _ in calls for one in definition]
        buffers = [one for _, _, buffers in calls for one in buffers]
        bare = [call for call, _, _ in calls]
        message = (messages.JOBS, bare, definitions, list(forgotten))
        self.channel.send(message, buffers)
        return [call[0] for call in bare]

    def submit(self, fn, *args, **about):
        """Put one job into the inbox; returns its number."""
        (job,) = self.send(self.call(fn, *args, **about))
        return job

    def say(self, *message):
        self.channel.send(message)

    def run(self, setup=None):
        """Let the worker serve until it leaves; returns its exit code."""
        return self.worker.run(None if setup is None else pickle.dumps(setup))

    def serve(self, setup=None):
        """Let the worker serve until a job has it told to leave, or interrupted."""
        assert self.run(setup) == 0
        assert self.hear() == (messages.READY, os.getpid())

    def finish(self):
        """Let the worker do what it was given, and leave."""
        self.say(messages.STOP)
        self.serve()

    def hear(self):
        """Return the next message of the worker, with its answers as `Answer`s."""
        message = self.channel.receive()
        if message[0] != messages.RESULTS:
            return message
        _, answers, imported = message
        return messages.RESULTS, [Answer(self.channel, *a) for a in answers], imported

    def answers(self):
        """Return the answers of all messages up to now, in order."""
        found = []
        for kind, *rest in self.all():
            if kind == messages.RESULTS:
                found += rest[0]
        return found

    def all(self):
        """Return all messages up to now; the worker has ended."""
        self.theirs.send(("end",))
        found = []
        while (message := self.hear()) != ("end",):
            found.append(message)
        return found

    def close(self):
        for end in (self.channel, self.theirs, self.page, self.their_page):
            end.close()
        for one in self.contexts:
            one.destroy()
        os.close(self.file)


class Answer:
    """What a worker said of one job."""

    def __init__(self, channel, job, status, payload, count, started, run_time):
        self.job = job
        self.status = status
        self.buffers = channel.receive_buffers(count)
        self.value = None
        if status == messages.OK:
            self.value = codec.decode(payload, self.buffers)
        elif status == messages.ERROR:
            self.value = codec.decode_error(payload)
        self.started = started
        self.run_time = run_time


@pytest.fixture
def make(runtime, monkeypatch):
    """Return what makes a worker of a kind; what it does to this process is undone."""
    made = []

    def one(kind=Worker):
        made.append(Parent(f"{runtime}/line{len(made)}", kind))
        return made[-1]

    monkeypatch.setattr(context, "_source", None)
    monkeypatch.setattr(module, "_keep_freed_memory", lambda: None)
    handler = signal.getsignal(messages.WAKE_SIGNAL)
    yield one
    signal.signal(messages.WAKE_SIGNAL, handler)
    for parent in made:
        parent.close()


@pytest.fixture
def parent(make):
    return make()


@pytest.fixture
def during(monkeypatch):
    """Return what sets what the job `meanwhile` does."""

    def set_(what):
        monkeypatch.setattr(sys.modules[__name__], "_meanwhile", what)

    return set_


def wait_until_readable(channel):
    while not channel.wants_reading():
        assert select.select([channel.fd], [], [], 30)[0]


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
    assert kind == messages.RESULTS
    assert [a.value for a in answers] == list(range(20))


def test_an_answer_does_not_wait_long_for_companions(parent, monkeypatch):
    monkeypatch.setattr(module, "_HOLD_NS", 0)
    parent.send(*(parent.call(jobs.add, n) for n in range(3)))
    parent.finish()
    values = [[a.value for a in answers] for _, answers, _ in parent.all()]
    assert values == [[0, 1], [2]]


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
    (job, *rest), definition, _ = parent.call(jobs.add, 1)
    rest[1] = b"no pickle"
    parent.send(((job, *rest), definition, []))
    parent.submit(jobs.add, 1, 1)
    parent.finish()
    bad, fine = parent.answers()
    assert isinstance(bad.value, pickle.UnpicklingError)
    assert fine.value == 2


def test_many_calls_in_one_job(parent):
    parent.submit(jobs.add, [(1, 2), (3, 4), (5,)], many=True)
    parent.finish()
    (answer,) = parent.answers()
    assert answer.value == [3, 7, 5]


def test_coroutine_functions_run_to_their_end(parent):
    parent.submit(jobs.add_async, 1, 2)
    parent.submit(jobs.add_async, [(1, 2), (3, 4)], many=True)
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
    call, definition, _ = parent.call(jobs.add, 2)
    parent.send((call, definition, []), forgotten=[call[1]])
    parent.send(forgotten=[12345])  # never known: no error
    parent.finish()
    known, forgotten = parent.answers()
    assert known.value == 1
    assert isinstance(forgotten.value, LookupError)


def test_modules_that_functions_need_are_reported_if_they_start_no_thread(
    parent, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    thread = (
        "import threading\n"
        "ended = threading.Event()\n"
        "thread = threading.Thread(target=ended.wait)\n"
        "thread.start()\n"
    )
    for name, text in (("quiet_module", ""), ("loud_module", thread)):
        (tmp_path / f"{name}.py").write_text(f"{text}def fn(): return {name!r}\n")
        call = (parent._last_job + 1, 70 + len(name), pickle.dumps(((), {})), 0, 1)
        definition = (call[1], b"R" + f"{name}\0fn".encode())
        parent._last_job += 1
        parent.send(((*call, None, False), [definition], []))
    parent.finish()
    told = parent.all()
    assert [a.value for _, answers, _ in told for a in answers] == [
        "quiet_module",
        "loud_module",
    ]
    assert [name for _, _, imported in told for name in imported] == ["quiet_module"]
    loud = sys.modules.pop("loud_module")
    del sys.modules["quiet_module"]
    loud.ended.set()
    loud.thread.join()


def test_a_function_that_has_no_name_is_described(parent):
    call, _, _ = parent.call(jobs.add, 1)
    definition = b"V" + pickle.dumps(jobs.Point(1, 2))
    parent.send((call, [(call[1], definition)], []))
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
    during(lambda: [(job, status) for job, status, *_ in parent.page.kept()])
    parent.send(
        parent.call(jobs.add, 1),
        parent.call(jobs.raise_value_error),
        parent.call(meanwhile),
    )
    parent.finish()
    assert parent.answers()[-1].value == [(1, messages.OK), (2, messages.ERROR)]


@pytest.mark.parametrize("large", [b"x" * 40_000, "x" * 40_000])
def test_after_an_answer_that_cannot_be_kept_nothing_begins(parent, large):
    """In a buffer or in the payload, an answer may be too large to keep."""
    first, *rest = parent.send(
        parent.call(jobs.add, large, large[:0]),
        parent.call(jobs.add, 1),
        parent.call(jobs.add, 2),
    )
    again = parent.submit(jobs.add, 3)
    parent.finish()
    answered, returned, later = parent.all()
    assert [a.job for a in answered[1]] == [first]
    assert answered[1][0].value == large
    assert len(answered[1][0].buffers) == isinstance(large, bytes)
    assert returned == (messages.RETURNED, rest)
    assert [a.job for a in later[1]] == [again]


def test_a_large_answer_with_nothing_behind_it_returns_nothing(parent):
    parent.submit(jobs.echo, b"x" * 40_000)
    parent.finish()
    assert [message[0] for message in parent.all()] == [messages.RESULTS]


def test_after_a_large_answer_the_page_goes_on_naming_its_job(parent, monkeypatch):
    seen = []

    def idle():
        seen.append(parent.page.running())
        parent.say(messages.STOP)

    monkeypatch.setattr(module, "_IDLE", 0.001)
    monkeypatch.setattr(module, "_return_freed_memory", idle)
    job = parent.submit(jobs.echo, b"x" * 40_000)
    parent.serve()
    assert seen == [job]


def test_more_jobs_than_the_page_has_slots(parent):
    parent.send(*(parent.call(jobs.add, n) for n in range(SLOTS)))
    parent.send(*(parent.call(jobs.add, n) for n in range(SLOTS)))
    parent.finish()
    assert len(parent.answers()) == 2 * SLOTS
    assert [job for job, *_ in parent.page.kept()] == list(
        range(SLOTS + 1, 2 * SLOTS + 1)
    )


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


# Interrupts


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
    assert 0 <= second.run_time < 30
    assert told[0].cancelled
    assert told[1] == "cleaned up"


def test_an_interrupt_for_another_job_does_nothing(parent, during):
    during(lambda: interrupt(parent, 99))
    parent.submit(meanwhile)
    parent.finish()
    assert [a.status for a in parent.answers()] == [messages.OK]


def test_a_signal_outside_of_a_job_does_nothing(parent):
    parent.page.interrupt(1)
    parent.submit(jobs.add, 1)
    parent.finish()
    signal.raise_signal(messages.WAKE_SIGNAL)
    assert [a.status for a in parent.answers()] == [messages.OK]


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
    monkeypatch.setattr(module, "_return_freed_memory", trim)
    parent.serve()
    assert [a.value for a in parent.answers()] == [1, 1]
    assert len(trimmed) == 2


def test_memory_is_tuned_where_the_library_is_glibc(monkeypatch):
    asked = []

    class Library:
        gnu_get_libc_version = mallopt = malloc_trim = None

        def __init__(self):
            self.mallopt = lambda option, value: asked.append((option, value))
            self.malloc_trim = lambda pad: asked.append(pad)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    module._keep_freed_memory()
    module._return_freed_memory()
    assert asked == [(-3, 1 << 30), (-1, 1 << 30), 0]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_memory_is_left_alone_where_it_is_not(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    module._keep_freed_memory()
    module._return_freed_memory()
    assert module._glibc() is None


# A process of its own


async def run_and_leave(server, number, fn):
    """Return what a worker of one job gives; it ends in order."""
    worker = await server.hired(number)
    value = await run(worker, fn)
    worker.channel.send((messages.STOP,))
    assert (await server.heard(messages.EXITED))[2] == 0
    return value


async def test_a_forked_worker_is_a_clean_process(tmp_path):
    def signals():
        handlers = map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        return [*handlers, signal.set_wakeup_fd(-1)]

    def main_module():
        return sorted(vars(sys.modules["__main__"])), sys.argv

    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        assert await run(worker, jobs.pid) == worker.pid
        assert await run(worker, threading.active_count) == 1
        ignored, *usual = await run(worker, signals)
        assert ignored == signal.SIG_IGN
        assert usual == [signal.SIG_DFL, signal.SIG_DFL, -1]
        names, argv = await run(worker, main_module)
        assert names == ["__doc__", "__loader__", "__name__", "__package__", "__spec__"]
        assert argv == [""]


@pytest.mark.parametrize("preload", [[], ["numpy.random"]])
async def test_no_two_workers_have_the_same_random_numbers(tmp_path, preload):
    def numbers():
        numpy_random = sys.modules.get("numpy.random")
        return random.random(), numpy_random and numpy_random.random()

    one_thread = {"OPENBLAS_NUM_THREADS": "1"}
    async with forkserver(str(tmp_path), preload, **one_thread) as server:
        first, second = [
            await run_and_leave(server, number, numbers) for number in (1, 2)
        ]
        assert first[0] != second[0]
        assert (first[1] is None) == (second[1] is None) == (not preload)
        assert not preload or first[1] != second[1]


@pytest.mark.parametrize("words", ["unflushed words", None])
async def test_leaving_it_does_what_an_interpreter_does(tmp_path, capfd, words):
    touched = tmp_path / "touched"

    def prepare():
        atexit.register(touched.touch)
        if words is None:
            sys.stdout = sys.stderr = None
        else:
            sys.stdout.write(words)

    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        await run(worker, prepare)
        worker.channel.send((messages.STOP,))
        assert (await server.heard(messages.EXITED))[2] == 0
    assert touched.exists()
    assert capfd.readouterr() == (words or "", "")


@pytest.mark.parametrize("closed", [False, True])
def test_what_atexit_functions_print_is_flushed_too(monkeypatch, closed):
    class Stream(io.StringIO):
        def flush(self):
            told.append("flushed")

    told = []
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: told.append("functions"))
    monkeypatch.setattr(sys, "stdout", None if closed else Stream())
    monkeypatch.setattr(sys, "stderr", Stream())
    module._leave()
    assert told == ["functions", *["flushed"] * (1 if closed else 2)]


async def test_a_crash_leaves_its_last_words_and_names_its_job(tmp_path):
    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        crash = asyncio.create_task(run(worker, jobs.segfault))
        code = (await server.heard(messages.EXITED))[2]
        crash.cancel()
        assert code == -signal.SIGSEGV
        assert "in segfault" in worker.last_words()
        assert worker.page.running() == 1


async def test_a_signal_reaches_a_job_in_a_forked_worker(tmp_path, gate):
    reached = gate()
    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        endless = asyncio.create_task(run(worker, jobs.loop_in_python, str(reached)))
        await reached.reached()
        worker.page.interrupt(1)
        worker.send_signal(messages.WAKE_SIGNAL)
        with pytest.raises(AssertionError):
            await endless
        assert (await server.heard(messages.EXITED))[2] == 0
