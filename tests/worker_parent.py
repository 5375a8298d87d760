"""The parent's end of a worker that runs in the test's own process and thread.

All that the parent says is queued before the worker is run, or said by a job while it
runs (`meanwhile`), so the order of things is certain.
"""

from __future__ import annotations

import marshal
import os
import pickle
import select
import signal
import sys

import pytest

from offloop import context, heap, messages, worker
from offloop.engines.memory import Exchange, Memory
from offloop.wire import arena, codec
from offloop.wire.channel import Channel, make_context
from offloop.wire.functions import APPLY, FunctionTable
from offloop.wire.status import StatusPage, create_file
from offloop.worker import Worker
from offloop.workspace import Workspace

NUMBER = 3

#: what the job `meanwhile` does; set by a test
_meanwhile = None


def meanwhile(*args):
    """Do what the test wants to happen while a job runs."""
    return _meanwhile(*args)


def meanwhile_count(stop):
    """Yield numbers, and do what the test wants to happen before each."""
    for number in range(stop):
        _meanwhile(number)
        yield number


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
        self.memory = Memory(64 << 20, 1)
        self.results = arena.create_file(self.memory.results_size)
        self.exchange = Exchange(self.results, self.memory.results_size)
        self.workspace = Workspace(
            os.dup(self.memory.arena.fileno()), os.dup(self.results)
        )
        self.worker = kind(NUMBER, self.theirs, self.their_page, self.workspace)
        self.functions = FunctionTable()
        self._known = set()
        self._last_job = 0
        self.filling = None

    def call(self, fn, *args, attempt=1, deadline=None, many=False, carried=None):
        """Return the call of a new job and its buffers, and define what it needs."""
        self._last_job += 1
        function, args = self.functions.prepare(fn, args)
        payload, buffers = codec.encode_call(args, {}, function.name)
        definition = []
        if function.id != APPLY and function.id not in self._known:
            self._known.add(function.id)
            definition = [(function.id, function.definition)]
        places = [self._place(buffer) for buffer in buffers]
        job = self._last_job
        call = (job, function.id, payload, places, attempt, deadline, many, carried)
        return call, definition

    def _place(self, buffer):
        large = self.memory.hold(buffer)
        self.memory.arena.write(large.block, buffer)
        return self.exchange.lend(large, retriable=False)

    def send(self, *calls, forgotten=()):
        """Put jobs into the inbox; returns their numbers."""
        definitions = [one for _, definition in calls for one in definition]
        bare = [call for call, _ in calls]
        freed = self.exchange.given_back()
        news = (definitions, list(forgotten), [], [], freed)
        self.channel.send((messages.JOBS, bare, *news))
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
        """Return the next message of the worker, with its answers as `Answer`s.

        Results, which are answers without a further word, are shown as such.
        """
        message = self.channel.receive()
        if message[0] not in (messages.RESULTS, messages.ANSWERS):
            return message
        _, answers, *imported = message
        if len(imported) > 1:
            self.exchange.released(imported.pop())
        heard = [Answer(self, *answer) for answer in answers]
        return messages.ANSWERS, heard, *(imported or [[]])

    def answers(self):
        """Return the answers of all messages up to now, in order."""
        found = []
        for kind, *rest in self.all():
            if kind == messages.ANSWERS:
                found += rest[0]
        return found

    def kept(self):
        """Return number and status of the answers that the page keeps."""
        answers = map(marshal.loads, self.page.kept())
        return [(a[0], a[3] if len(a) > 3 else messages.OK) for a in answers]

    def fill_results(self):
        """Leave no room for large results, which then travel as frames."""
        memory = self.workspace._open_arena()
        self.filling = memory.allocate(memory.limit)

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
        self.workspace.close()
        for _ in self.exchange.close():
            pass
        self.memory.close()
        os.close(self.results)
        os.close(self.file)


class Answer:
    """What a worker said of one job."""

    def __init__(self, parent, job, body, run_time, status=messages.OK, places=()):
        payload, started = body
        self.job = job
        self.status = status
        frames = parent.channel.receive_buffers(places.count(None))
        self.buffers = parent.exchange.see(places, frames)
        if payload is None:
            payload = self.buffers.pop()
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
    # However slow this machine is, short jobs share an answer.
    monkeypatch.setattr(worker, "_HOLD_NS", 60 * 10**9)
    monkeypatch.setattr(heap, "keep_freed", lambda: None)
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
