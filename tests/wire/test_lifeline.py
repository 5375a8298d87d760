"""The line to a forkserver: messages and descriptors arrive whole and in order."""

from __future__ import annotations

import contextlib
import marshal
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.wire.lifeline import Lifeline


@contextlib.contextmanager
def lines():
    """Open both ends of a line, neither of which blocks."""
    ours, socket_of_theirs = Lifeline.pair()
    socket_of_theirs.setblocking(False)
    theirs = Lifeline(socket_of_theirs)
    with contextlib.closing(ours), contextlib.closing(theirs):
        yield ours, theirs


@pytest.fixture
def ends():
    with lines() as both:
        yield both


@pytest.fixture
def raw():
    """Return an end of the line, and the bare socket at its other end."""
    ours, theirs = Lifeline.pair()
    with contextlib.closing(ours), theirs:
        yield ours, theirs


@contextlib.contextmanager
def numbered_file(number):
    """Open a file whose content tells which one it is."""
    descriptor = os.memfd_create("numbered")
    os.write(descriptor, str(number).encode())
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_number(descriptor):
    """Read what `numbered_file` wrote, and close the descriptor."""
    text = os.pread(descriptor, 100, 0)
    os.close(descriptor)
    return int(text)


def frame(message):
    body = marshal.dumps(message)
    return len(body).to_bytes(4, "little") + body


def test_messages_go_both_ways(ends):
    ours, theirs = ends
    ours.send((1, "down"))
    ours.send((2, "down"))
    assert theirs.receive() == [(1, "down"), (2, "down")]
    theirs.send((3, "up"))
    assert ours.receive() == [(3, "up")]


def test_without_a_message_there_is_nothing(ends):
    ours, _ = ends
    assert ours.receive() == []
    assert not ours.ended


def test_the_descriptor_is_that_of_the_line(raw):
    ours, theirs = raw
    theirs.send(frame(("a",)))
    with socket.socket(fileno=os.dup(ours.fileno())) as same:
        assert marshal.loads(same.recv(1000)[4:]) == ("a",)


@given(
    st.lists(st.tuples(st.integers(), st.text(max_size=30)), max_size=8),
    st.lists(st.integers(1, 60)),
)
def test_however_the_bytes_are_cut_messages_come_out_whole(messages, cuts):
    ours, theirs = Lifeline.pair()
    stream = b"".join(map(frame, messages))
    got = []
    with contextlib.closing(ours), theirs:
        for cut in [*cuts, len(stream)]:
            piece, stream = stream[:cut], stream[cut:]
            if piece:
                theirs.send(piece)
            got += ours.receive()
    assert got == messages


# A message with or without a descriptor, or a look at the other end.
STEPS = st.lists(st.sampled_from(["message", "with a descriptor", "receive"]))


@given(STEPS, st.sampled_from([10, 50_000]))
def test_descriptors_stay_with_their_messages(steps, size):
    with lines() as (ours, theirs), contextlib.ExitStack() as files:
        sent, got = [], []
        for number, step in enumerate([*steps, "receive"]):
            if step == "receive":
                while not ours.flush() or len(got) < len(sent):
                    got += theirs.receive()
                continue
            sent.append((number, step, b"x" * size))
            file = None
            if step == "with a descriptor":
                file = files.enter_context(numbered_file(number))
            ours.send(sent[-1], *([] if file is None else [file]))
        assert got == sent
        for number, step, _ in got:
            if step == "with a descriptor":
                assert read_number(theirs.take_descriptor()) == number


def test_what_the_kernel_has_no_room_for_waits_for_a_flush(ends):
    ours, theirs = ends
    with numbered_file(1) as first, numbered_file(2) as second:
        ours.send(("long", b"a" * 1_000_000), first)
        ours.send(("longer", b"b" * 2_000_000), second)
        assert not ours.flush()
        got = theirs.receive()
        while not ours.flush():
            got += theirs.receive()
    while len(got) < 2:
        got += theirs.receive()
    assert [(name, len(data)) for name, data in got] == [
        ("long", 1_000_000),
        ("longer", 2_000_000),
    ]
    assert read_number(theirs.take_descriptor()) == 1
    assert read_number(theirs.take_descriptor()) == 2


@pytest.mark.parametrize("heard", [True, False])
def test_a_descriptor_that_waits_is_the_lines_own(ends, heard):
    ours, theirs = ends
    count = 0
    while ours.flush():
        ours.send(("small",))
        count += 1
    reader, writer = os.pipe()
    ours.send(("with",), writer)
    os.close(writer)
    got = 0
    while heard and not (ours.flush() and got == count + 1):
        got += len(theirs.receive())
    assert theirs.has_descriptor is heard
    ours.close()
    theirs.close()
    assert os.read(reader, 1) == b""  # no writer is left
    os.close(reader)


def test_a_descriptor_is_a_copy_that_no_program_inherits(ends):
    ours, theirs = ends
    with numbered_file(5) as file:
        ours.send(("with",), file)
    theirs.receive()
    copy = theirs.take_descriptor()
    assert not os.get_inheritable(copy)
    assert read_number(copy) == 5


def test_descriptors_that_nobody_took_are_closed_with_the_line(ends):
    ours, theirs = ends
    reader, writer = os.pipe()
    ours.send(("with",), writer)
    os.close(writer)
    theirs.receive()
    theirs.close()
    assert os.read(reader, 1) == b""  # no writer is left
    os.close(reader)


def test_other_things_that_come_along_are_no_descriptors():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with contextlib.closing(Lifeline(ours)) as line, theirs:
        theirs.send(frame(("a",)))
        assert line.receive() == [("a",)]
        with pytest.raises(IndexError):
            line.take_descriptor()


def test_what_came_before_the_end_is_still_delivered(raw):
    ours, theirs = raw
    theirs.send(frame(("last",)) + frame(("cut off",))[:-1])
    theirs.close()
    assert ours.receive() == [("last",)]
    assert ours.receive() == []
    assert ours.ended


def test_an_end_that_was_closed_with_unread_messages_is_noticed(raw):
    ours, theirs = raw
    ours.send(("unread",))
    theirs.close()
    assert ours.receive() == []
    assert ours.ended


def test_sending_to_an_end_that_is_gone_is_no_error_and_does_not_pile_up(raw):
    ours, theirs = raw
    theirs.close()
    ours.send(("lost",))
    assert ours.flush()


def test_what_waits_is_given_up_when_the_other_end_goes(raw):
    ours, theirs = raw
    ours.send(("long", bytes(1_000_000)))
    assert not ours.flush()
    theirs.close()
    assert ours.flush()


def test_the_last_word_is_heard_after_a_vain_send(raw):
    ours, theirs = raw
    theirs.send(frame(("last",)))
    theirs.close()
    ours.send(("lost",))
    assert not ours.ended
    assert ours.receive() == [("last",)]
    assert ours.receive() == []
    assert ours.ended
