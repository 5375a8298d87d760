"""A worker's end of shared memory, with its parent's end beside it."""

from __future__ import annotations

import os
import pickle

import pytest

from offloop.messages import PRIVATE, READONLY, WRITABLE
from offloop.wire import puts
from offloop.wire.arena import Arena, Window, create_file, file_size
from offloop.workspace import LARGE_PAYLOAD, Workspace

LIMIT = 1 << 20


class Ends:
    """A workspace, and what its parent has of the same two files."""

    def __init__(self):
        requests = create_file(file_size(LIMIT))
        results = create_file(file_size(LIMIT))
        self.arena = Arena(os.dup(requests), LIMIT)
        self.results = os.dup(results)
        self.window = Window(self.results, file_size(LIMIT))
        self.space = Workspace(requests, results)

    def send(self, data, token=1, mode=WRITABLE):
        """Write an argument, and return its place."""
        self.block = self.arena.allocate(len(data))
        self.arena.write(self.block, data)
        return token, self.block.offset, len(data), mode

    def see(self, place):
        token, offset, size, _ = place
        return self.window.lease(token, offset, size)

    def close(self):
        self.space.close()
        self.arena.close()
        self.window.close()
        os.close(self.results)


@pytest.fixture
def ends():
    both = Ends()
    yield both
    both.close()


def test_memory_of_a_client_is_seen_if_it_still_is_the_same_file(ends):
    inode = os.fstat(ends.results).st_ino
    block = Arena(os.dup(ends.results), LIMIT)
    written = block.allocate(5000)
    block.write(written, b"y" * 5000)
    path = f"/proc/self/fd/{ends.results}"
    place = (7, written.offset, 5000, READONLY)
    with pytest.raises(FileNotFoundError, match="client 2 of the shared pool has gone"):
        ends.space.views([(*place, (2, path, inode + 1))])
    with pytest.raises(FileNotFoundError):
        ends.space.views([(*place, (2, "/proc/self/fd/9999", inode))])
    ends.space.learn_puts([(1, [(*place, (2, path, inode + 1))])])
    for _ in range(2):
        (view,) = ends.space.views([(*place, (2, path, inode))])
        assert bytes(view) == b"y" * 5000
        del view
    assert ends.space.released() == [7, 7]
    ends.space.forget_clients([2, 3])
    block.close()


def test_arguments_are_seen_where_they_lie_until_their_views_have_gone(ends):
    assert ends.space.released() == []
    (view,) = ends.space.views([ends.send(b"x" * 5000, token=7)])
    assert bytes(view) == b"x" * 5000
    part = view[10:20]
    del view
    assert ends.space.released() == []
    del part
    assert ends.space.released() == [7]
    assert ends.space.released() == []


@pytest.mark.parametrize("mode", [WRITABLE, READONLY, PRIVATE])
def test_who_sees_what_is_written(ends, mode):
    (view,) = ends.space.views([ends.send(b"x" * 5000, mode=mode)])
    assert view.readonly == (mode == READONLY)
    if mode != READONLY:
        view[0] = ord("y")
    here = ends.arena.view(ends.block)
    assert here[0] == ord("y" if mode == WRITABLE else "x")


def test_results_are_read_where_they_were_written(ends):
    data = os.urandom(50_000)
    payload, places, frames = ends.space.place(b"small", [data, data[:100]])
    assert (payload, frames) == (b"small", [])
    assert [bytes(ends.see(place)) for place in places] == [data, data[:100]]


def test_a_large_payload_is_the_last_of_the_places(ends):
    large = os.urandom(LARGE_PAYLOAD)
    payload, places, frames = ends.space.place(large, [b"buffer"])
    assert (payload, frames) == (None, [])
    assert [bytes(ends.see(place)) for place in places] == [b"buffer", large]
    payload, places, frames = ends.space.place(large[1:], [])
    assert (payload, places, frames) == (large[1:], [], [])


def test_what_has_no_room_becomes_frames_until_there_is_room(ends):
    data, more = bytes(LIMIT // 2), bytearray(LIMIT * 3 // 4)
    _, [place], _ = ends.space.place(b"", [data])
    _, places, frames = ends.space.place(b"", [more, b"small"])
    assert places[0] is None
    assert frames == [more]
    assert bytes(ends.see(places[1])) == b"small"
    ends.space.give_back([place[0], 12345])  # what is not known is no harm
    _, [again], frames = ends.space.place(b"", [more])
    assert again is not None
    assert frames == []


def test_memory_of_empty_is_returned_without_a_copy(ends):
    memory = ends.space.empty(50_000)
    memory[:] = b"e" * 50_000
    _, [place, part], _ = ends.space.place(b"", [memory, memory[100:300]])
    seen = ends.see(place)
    assert part[1:3] == (place[1] + 100, 200)
    memory[0] = ord("f")
    assert seen[0] == ord("f")
    assert ends.space.empty(LIMIT) is None


def test_unused_memory_goes_back(ends):
    assert ends.space.trim(0.0) is None
    _, [place], _ = ends.space.place(b"", [bytes(100_000)])
    ends.space.give_back([place[0]])
    due = ends.space.trim(0.0)
    assert due > 0.0
    assert ends.space.trim(due) is None


def test_results_that_cannot_be_mapped_become_frames(ends):
    whole = ends.space._results
    ends.space._results = os.open(f"/proc/self/fd/{whole}", os.O_WRONLY)
    data = bytes(100_000)
    for _ in range(2):
        assert ends.space.place(b"", [data]) == (b"", [None], [data])
    assert ends.space.empty(100_000) is None
    os.close(whole)


def test_what_was_put_is_found_by_its_number_until_it_is_forgotten(ends):
    buffers = []
    obj = [pickle.PickleBuffer(b"z" * 5000), "more"]
    payload = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    place = ends.send(payload, token=3, mode=READONLY)
    first = ends.block
    other = ends.send(bytes(buffers[0].raw()), token=4, mode=READONLY)
    ends.space.learn_puts([(11, [place, other])])
    found = puts._find(11)
    assert bytes(found[0]) == b"z" * 5000
    assert found[1] == "more"
    assert first.size == len(payload)
    ends.space.forget_puts([11, 12])
    assert ends.space.released() == [3]  # the array is still looked at
    del found
    assert ends.space.released() == [4]
    with pytest.raises(KeyError):
        puts._find(11)
