"""Two ends of a channel in one process: what goes in comes out, and nothing is left."""

from __future__ import annotations

import errno
import os
import select

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from offloop.wire.channel import Channel, make_context


class Ends:
    """A bound and a connected end, each in a context of its own as in two processes."""

    def __init__(self, path):
        self.path = path
        self.contexts = make_context(), make_context()
        self.parent, self.worker = map(Channel, self.contexts)
        self.parent.bind(path)
        self.worker.connect(path)
        self.worker.send(("here",))  # before that the parent must not send
        assert self.parent.receive() == ("here",)

    def close(self):
        self.parent.close()
        self.worker.close()
        for context in self.contexts:
            context.destroy()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


@pytest.fixture
def ends(own_runtime):
    """Return two ends; the directory's name is short enough for a socket."""
    with Ends(f"{own_runtime}/line") as both:
        yield both
    assert os.listdir(own_runtime) == []


def test_a_settled_channel_has_all_threads_and_works(own_runtime):
    """They name themselves after they have set their priority."""
    for _ in range(20):
        contexts = make_context(), make_context()
        parent, worker = Channel(contexts[0]), Channel.settled(contexts[1])
        names = names_of_threads()
        parent.bind(f"{own_runtime}/line")
        worker.connect(f"{own_runtime}/line")
        worker.send(("here",))
        assert parent.receive() == ("here",)
        for channel in (parent, worker):
            channel.close()
        for context in contexts:
            context.destroy()
        if any(name.startswith("ZMQbg") for name in names):  # this libzmq has names
            assert "ZMQbg/Reaper" in names


class OddSecondTime(Channel):
    """A channel that can be made once, for a reason of its own."""

    made = 0

    def __init__(self, context):
        type(self).made += 1
        if self.made > 1:
            raise OSError(errno.EINVAL, "odd")
        super().__init__(context)


def test_a_settled_channel_waits_for_nothing_but_room():
    context = make_context()
    with pytest.raises(OSError, match="odd"):
        OddSecondTime.settled(context)
    context.destroy()


def names_of_threads():
    names = []
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/comm") as file:
            names.append(file.read().strip())
    return names


def wait_readable(channel):
    """Wait until a message is there, as an event loop would."""
    while not channel.wants_reading():
        assert select.select([channel.fd], [], [], 30)[0]


def test_messages_go_both_ways(ends):
    ends.parent.send((1, "down", [None]))
    assert ends.worker.receive() == (1, "down", [None])
    ends.worker.send((2, "up"))
    assert ends.parent.receive() == (2, "up")


MESSAGES = st.lists(
    st.tuples(st.text(), st.lists(st.binary(max_size=50), max_size=4)), max_size=10
)


def test_any_messages_and_buffers_arrive_whole_and_in_order(ends):
    @given(MESSAGES)
    def check(messages):
        for text, buffers in messages:
            ends.parent.send((text, len(buffers)), buffers)
        for text, buffers in messages:
            assert ends.worker.receive() == (text, len(buffers))
            got = ends.worker.receive_buffers(len(buffers))
            assert [bytes(buffer) for buffer in got] == buffers
        assert ends.worker.receive_nowait() is None

    check()


def test_large_buffers_of_any_kind_come_as_views(ends):
    size = 3_000_000
    sent = [b"a" * size, bytearray(b"b" * size), memoryview(b"c" * size)]
    ends.worker.send(("large", 3), sent)
    assert ends.parent.receive() == ("large", 3)
    got = ends.parent.receive_buffers(3)
    assert all(type(buffer) is memoryview for buffer in got)
    assert got == sent


def test_sending_never_waits_for_the_other_end(runtime):
    context = make_context()
    worker, parent = Channel(context), Channel(context)
    worker.connect(f"{runtime}/line")
    for number in range(3000):  # far more than ZeroMQ's usual 1000
        worker.send((number,))
    parent.bind(f"{runtime}/line")
    assert [parent.receive()[0] for _ in range(3000)] == list(range(3000))
    worker.close()
    parent.close()
    context.term()


@pytest.mark.parametrize("buffers", [[], [b"x" * 100_000]])
def test_what_is_sent_to_an_end_that_is_gone_is_lost(ends, buffers):
    ends.worker.send(("last",))
    ends.worker.close(linger=30.0)
    while ends.parent._socket.poll(1, zmq.POLLOUT):  # until ZeroMQ has noticed
        select.select([ends.parent.fd], [], [], 0.01)
    ends.parent.send(("lost", len(buffers)), buffers)
    assert ends.parent.receive() == ("last",)


def test_without_a_message_there_is_nothing_to_read(ends):
    assert ends.worker.receive_nowait() is None
    assert not ends.worker.wants_reading()
    ends.worker.set_timeout(0.001)
    assert ends.worker.receive() is None


def test_a_message_makes_the_descriptor_readable(ends):
    ends.parent.send(("a",))
    ends.parent.send(("b",))
    wait_readable(ends.worker)
    assert ends.worker.receive_nowait() == ("a",)
    wait_readable(ends.worker)
    assert ends.worker.receive_nowait() == ("b",)
    assert not ends.worker.wants_reading()


def test_a_timeout_can_be_taken_back(ends):
    ends.worker.set_timeout(0.001)
    ends.worker.set_timeout(None)
    ends.parent.send(("late",))
    assert ends.worker.receive() == ("late",)


def test_sealing_removes_the_address_and_keeps_the_line(ends):
    assert os.path.exists(ends.path)
    ends.parent.seal()
    assert not os.path.exists(ends.path)
    ends.parent.seal()
    ends.parent.send(("still here",))
    assert ends.worker.receive() == ("still here",)


def test_sealing_bears_that_somebody_else_removed_the_address(ends):
    os.unlink(ends.path)
    ends.parent.seal()
    ends.parent.close()


def test_only_the_end_that_made_the_address_removes_it(ends):
    ends.worker.seal()
    assert os.path.exists(ends.path)


def test_closing_removes_the_address(ends):
    ends.parent.close()
    assert not os.path.exists(ends.path)


def test_closing_gives_unsent_messages_time_to_leave(ends):
    ends.worker.send(("last words", 1), [b"x" * 5_000_000])
    ends.worker.close(linger=30.0)
    assert ends.parent.receive() == ("last words", 1)
    (buffer,) = ends.parent.receive_buffers(1)
    assert len(buffer) == 5_000_000


def test_what_comes_soon_is_taken_without_sleep(ends):
    assert ends.parent.receive_soon() is None
    ends.worker.send(("soon",))
    wait_readable(ends.parent)
    assert ends.parent.receive_soon() == ("soon",)
