"""Parts on their way out of a worker that runs in this process."""

from __future__ import annotations

import os

import pytest

from offloop import messages, outflow
from offloop.errors import ResultNotEncodable
from offloop.wire.channel import Channel
from worker_parent import meanwhile, wait_until_readable


@pytest.fixture
def parts(parent):
    """Return what tells the parts of each message, up to now."""

    def told():
        found = [one[2] for one in parent.all() if one[0] == messages.PARTS]
        return [[one[0] for one in payloads] for payloads in found]

    return told


def wake():
    os.kill(os.getpid(), messages.WAKE_SIGNAL)


def test_quick_parts_share_a_message(parent, during, monkeypatch, parts):
    monkeypatch.setattr(outflow, "_HOLD_NS", 1 << 62)
    during(lambda: iter(range(5)))
    parent.submit(meanwhile, many=100)
    parent.say(messages.STOP)
    parent.run()
    assert parts() == [[0, 1, 2, 3, 4]]
    assert not parent.page.holds_parts()


def test_slow_parts_go_at_once(parent, during, monkeypatch, parts):
    monkeypatch.setattr(outflow, "_HOLD_NS", 0)
    during(lambda: iter(range(3)))
    parent.submit(meanwhile, many=100)
    parent.say(messages.STOP)
    parent.run()
    assert parts() == [[0], [1], [2]]


def test_many_bytes_make_a_message_full(parent, during, monkeypatch, parts):
    monkeypatch.setattr(outflow, "_HOLD_NS", 1 << 62)
    during(lambda: iter(["x" * 12_000] * 4))
    parent.submit(meanwhile, many=100)
    parent.say(messages.STOP)
    parent.run()
    assert [len(message) for message in parts()] == [3, 1]


def test_what_is_held_back_goes_upon_a_signal(parent, during, monkeypatch, parts):
    monkeypatch.setattr(outflow, "_HOLD_NS", 1 << 62)

    def generate():
        yield 1
        yield 2
        assert parent.page.holds_parts()
        wake()
        assert not parent.page.holds_parts()
        yield 3

    during(generate)
    parent.submit(meanwhile, many=100)
    parent.say(messages.STOP)
    parent.run()
    assert parts() == [[1, 2], [3]]


def test_a_signal_within_the_handler_of_another_sends_nothing_twice(
    parent, during, monkeypatch, parts
):
    monkeypatch.setattr(outflow, "_HOLD_NS", 1 << 62)
    send = Channel.send

    def send_and_wake(channel, message, buffers=()):
        send(channel, message, buffers)
        if message[0] == messages.PARTS:
            wake()

    def generate():
        yield 1
        yield 2
        monkeypatch.setattr(Channel, "send", send_and_wake)
        wake()
        monkeypatch.setattr(Channel, "send", send)
        yield 3

    during(generate)
    parent.submit(meanwhile, many=100)
    parent.say(messages.STOP)
    parent.run()
    assert parts() == [[1, 2], [3]]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_that_was_closed_before_it_began_does_not_begin(
    parent, during, asynchronous
):
    begun = []

    def generate():
        begun.append(True)
        yield 1

    async def generate_async():
        begun.append(True)
        yield 1

    def make():
        parent.say(messages.RECALL, [1])
        parent.page.ask_attention(True)
        wait_until_readable(parent.theirs)
        wake()
        parent.say(messages.STOP)  # not before: it would be readable instead
        return generate_async() if asynchronous else generate()

    during(make)
    parent.submit(meanwhile, many=100)
    parent.run()
    assert begun == []


def test_it_waits_for_its_consumer_and_hears_of_its_own_parts_only(parent, during):
    asked = []

    def generate():
        for number in range(9):
            asked.append(number)
            if number == 3:
                parent.say(messages.RECALL, [1])
                wait_until_readable(parent.theirs)
            yield number

    during(generate)
    job = parent.submit(meanwhile, many=2)
    parent.say(messages.MORE, job + 1, 100, 100)  # of a stream that has ended
    parent.say(messages.MORE, job, 2, 16)
    parent.say(messages.STOP)
    parent.run()
    assert asked == [0, 1, 2, 3]  # as many as it was let, and then it was closed


def test_a_word_for_a_stream_that_has_ended_is_dropped(parent):
    parent.say(messages.MORE, 1, 100, 100)
    parent.finish()
    assert parent.answers() == []


def test_closing_is_an_answer_and_the_worker_goes_on(parent, during):
    ended = []

    def generate():
        try:
            yield 1
        finally:
            ended.append(True)

    during(generate)
    job = parent.submit(meanwhile, many=1)
    parent.say(messages.RECALL, [job])
    parent.page.note_heard(job)
    during_next = parent.submit(len, "four")
    parent.finish()
    closed, next_one = parent.answers()
    assert (closed.job, closed.status, closed.value) == (job, messages.OK, None)
    assert (next_one.job, next_one.value) == (during_next, 4)
    assert ended == [True]
    assert parent.kept() == [(during_next, messages.OK)]  # not the end of a stream


def test_an_interrupt_between_two_parts_is_obeyed_at_the_next(parent, during):
    ended = []

    class Wakes:
        """A part whose encoding meets the signal: no code of the user runs then."""

        def __reduce__(self):
            parent.page.interrupt(1)
            wake()
            return str, ("woken",)

    def generate():
        try:
            yield Wakes()
            ended.append("went on")
            yield 2
        finally:
            ended.append("closed")

    during(generate)
    job = parent.submit(meanwhile, many=100)
    assert job == 1
    assert parent.run() == 0
    (answer,) = parent.answers()
    assert answer.status == messages.INTERRUPTED
    assert ended == ["closed"]


def test_an_interrupt_while_it_waits_is_obeyed(parent, during, monkeypatch):
    def wait():
        parent.page.interrupt(1)
        wake()

    monkeypatch.setattr(parent.worker, "_wait", wait)
    during(lambda: iter([1, 2]))
    parent.submit(meanwhile, many=1)
    assert parent.run() == 0
    (answer,) = parent.answers()
    assert answer.status == messages.INTERRUPTED


def test_a_signal_between_two_parts_may_mean_nothing(parent, during):
    class Wakes:
        def __reduce__(self):
            wake()
            return str, ("woken",)

    during(lambda: iter([Wakes(), 2]))
    parent.submit(meanwhile, many=100)
    parent.finish()
    (answer,) = parent.answers()
    assert answer.status == messages.OK


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_generator_that_fails_to_close_does_not_hide_the_first_error(
    parent, during, kind
):
    def generate():
        try:
            yield lambda: parent  # which nobody can pickle
        finally:
            raise OSError("while closing")

    async def generate_async():
        try:
            yield lambda: parent
        finally:
            raise OSError("while closing")

    during({"plain": generate, "async": generate_async}[kind])
    parent.submit(meanwhile, many=100)
    parent.finish()
    (answer,) = parent.answers()
    assert isinstance(answer.value, ResultNotEncodable)


@pytest.mark.parametrize("closing", [False, True])
def test_an_asynchronous_iterator_need_not_have_a_close(parent, during, closing):
    class Three:
        left = 3

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    during(Three)
    job = parent.submit(meanwhile, many=1 if closing else 100)
    if closing:
        parent.say(messages.RECALL, [job])
    parent.finish()
    (answer,) = parent.answers()
    assert (answer.status, answer.value) == (messages.OK, None)


def test_a_cancellation_of_its_own_is_the_error_of_an_asynchronous_one(parent, during):
    import asyncio

    async def generate():
        yield 1
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    during(generate)
    parent.submit(meanwhile, many=100)
    parent.finish()
    (answer,) = parent.answers()
    assert answer.status == messages.ERROR
    assert answer.value.type_name.endswith("CancelledError")
