"""Addresses of what has bytes, whoever made it."""

from __future__ import annotations

import array
import ctypes

import numpy as np
import pytest

from offloop.wire.pointers import (
    Held,
    array_type,
    copied,
    copy,
    new_ascii,
    text_bytes,
)


def content(obj):
    held = Held(obj)
    try:
        return ctypes.string_at(held.address, held.size)
    finally:
        held.release()


@pytest.mark.parametrize(
    "obj",
    [
        b"read-only",
        bytearray(b"writable"),
        memoryview(b"only a part")[5:6],
        array.array("d", [1.5, 2.5]),
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        b"",
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_the_bytes_are_where_the_address_says(obj):
    flat = obj.tobytes(order="A") if isinstance(obj, np.ndarray) else bytes(obj)
    assert content(obj) == flat


def test_an_object_does_not_move_while_it_is_held():
    data = bytearray(b"stay")
    held = Held(data)
    with pytest.raises(BufferError):
        data.append(0)
    held.release()
    data.append(0)


def test_no_address_is_0():
    held = Held(memoryview((ctypes.c_char * 0)()))
    held.release()
    assert held.size == 0


@pytest.mark.parametrize(
    ("obj", "error"),
    [
        (memoryview(b"every other")[::2], BufferError),
        (np.arange(10)[::2], ValueError),
        (5, TypeError),
    ],
)
def test_what_has_no_contiguous_bytes_is_refused(obj, error):
    with pytest.raises(error):
        Held(obj)


def test_a_new_text_is_what_is_written_to_it():
    text, characters = new_ascii(1000)
    characters[:] = b"abcde" * 200
    assert text == "abcde" * 200
    assert bytes(text_bytes(text)) == text.encode()
    assert text_bytes(text).readonly


def test_a_view_on_a_text_keeps_it():
    characters = new_ascii(1000)[1]
    characters[:] = b"x" * 1000
    others = [new_ascii(1000)[0] for _ in range(10)]
    assert bytes(characters) == b"x" * 1000
    assert len(others) == 10


def test_there_is_one_type_for_each_length():
    assert array_type(12345) is array_type(12345)
    assert ctypes.sizeof(array_type(12345)) == 12345


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("source", [b"", b"abc", np.asfortranarray(np.ones((3, 4)))])
def test_a_copy_has_the_bytes_in_their_order_in_memory(kind, source):
    made = copied(source, kind)
    assert type(made) is kind
    assert made == content(source)


def test_what_does_not_fit_is_not_copied_and_both_are_let_go():
    source, target = bytearray(b"12345"), bytearray(b"....")
    with pytest.raises(ValueError, match="5 bytes do not fit into 4"):
        copy(target, source)
    assert target == b"...."
    target.append(1)  # which is refused while somebody holds it
    source.append(1)
    copy(source, target)
    assert source == b"....\x01\x01"
