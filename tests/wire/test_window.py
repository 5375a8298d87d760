"""A view says that it has gone when the last object on its memory has gone."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import threading

import numpy as np
import pytest

from offloop.wire import pointers
from offloop.wire.sparse_file import create_file
from offloop.wire.window import MAPPED, Window

MIB = 1024 * 1024
SIZE = 16 * MIB


@pytest.fixture
def file():
    descriptor = create_file(SIZE)
    for at in range(0, SIZE, MIB):
        os.pwrite(descriptor, bytes([at // MIB]) * MIB, at)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def view_on(file):
    window = Window(file, SIZE)
    yield window
    window.close()


def test_a_view_is_on_its_part_and_writable(view_on, file):
    view = view_on.lease("a", 5 * MIB - 1, 3)
    assert (view.format, view.ndim, view.readonly) == ("B", 1, False)
    assert bytes(view) == b"\4\5\5"
    view[1] = 77
    assert os.pread(file, 3, 5 * MIB - 1) == b"\4M\5"


def test_a_read_only_view_stays_so_in_all_that_is_made_of_it(view_on):
    view = view_on.lease("a", 0, MIB, readonly=True)
    assert view.readonly
    assert not np.frombuffer(view, "f8").flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        np.frombuffer(view, "f8").setflags(write=True)


DERIVED = {
    "slice": lambda view: view[10:20],
    "view": memoryview,
    "cast": lambda view: view.cast("d")[3:],
    "read-only": lambda view: view.toreadonly(),
    "array": lambda view: np.frombuffer(view, "f8"),
    "part of an array": lambda view: np.frombuffer(view, "f8").reshape(2, -1)[1, ::2],
    "view of an array": lambda view: memoryview(np.frombuffer(view, "f8")[4:]),
    "ctypes": lambda view: (ctypes.c_char * 10).from_buffer(view),
    "cycle": lambda view: (lambda items: items.append(items) or items)([view]),
}


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
def test_what_is_made_of_a_view_keeps_it(view_on, derive):
    view = view_on.lease("token", MIB, 4096)
    derived = derive(view)
    del view
    gc.collect()
    assert view_on.drain_released() == []
    del derived
    gc.collect()
    assert view_on.drain_released() == ["token"]
    assert view_on.drain_released() == []


def test_tokens_come_in_the_order_in_which_the_views_went(view_on):
    views = [view_on.lease(number, number * 4096, 4096) for number in range(4)]
    for number in (2, 0, 3):
        views[number] = None
    assert view_on.drain_released() == [2, 0, 3]


def test_a_view_may_go_on_another_thread(view_on):
    views = [view_on.lease("token", 0, 10)]
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    assert view_on.drain_released() == ["token"]


@pytest.mark.parametrize("size", [100, MAPPED - 1, MAPPED, MAPPED + 1])
@pytest.mark.parametrize("offset", [0, MIB - 5])
def test_changes_to_a_private_view_stay_here(view_on, file, offset, size):
    view = view_on.lease("token", offset, size, private=True)
    assert not view.readonly
    assert bytes(view) == os.pread(file, size, offset)
    view[:] = bytes([99]) * size
    assert 99 not in os.pread(file, SIZE, 0)
    assert set(view) == {99}
    derived = np.frombuffer(view, "u1")[5:]
    del view
    assert derived[0] == 99
    del derived
    assert view_on.drain_released() == ["token"]


def test_a_private_view_may_reach_to_the_end(view_on):
    view = view_on.lease("token", SIZE - MAPPED - 1, MAPPED + 1, private=True)
    assert view[-1] == 15


def test_a_large_private_view_is_no_copy(view_on, file):
    view = view_on.lease("token", 0, MAPPED, private=True)
    assert view_on.drain_released() == []
    # Pages that were not written through the view are still those of the file.
    os.pwrite(file, b"\xff", 100)
    assert view[100] == 255


def test_a_private_view_that_cannot_be_mapped_is_a_copy(view_on):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        view = view_on.lease("token", MIB, 2 * MAPPED, private=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert view_on.drain_released() == ["token"]  # a copy needs the block no more
    assert (view[0], view[-1], view.nbytes) == (1, 8, 2 * MAPPED)
    assert not view.readonly


def test_a_private_view_that_nobody_writes_to_needs_nothing_of_its_own(view_on, file):
    view = view_on.lease("token", 0, 10, private=True, readonly=True)
    assert view.readonly
    os.pwrite(file, b"\xff", 5)
    assert view[5] == 255


def test_nothing_is_a_view_too(view_on):
    assert view_on.lease("token", SIZE, 0).nbytes == 0
    assert view_on.drain_released() == ["token"]


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    ("offset", "size"), [(-1, 5), (0, -1), (SIZE - 4, 5), (0, SIZE + 1), (2 * SIZE, 1)]
)
def test_what_is_not_within_the_file_is_refused(view_on, offset, size, private):
    with pytest.raises(ValueError, match="are not within"):
        view_on.lease("token", offset, size, private=private)


def test_views_outlive_the_window_and_the_file():
    descriptor = create_file(SIZE)
    os.pwrite(descriptor, b"still here", MIB)
    view_on = Window(descriptor, SIZE)
    view = view_on.lease("token", MIB, 10)
    os.close(descriptor)
    view_on.close()
    view_on.close()
    with pytest.raises(ValueError, match="the window is closed"):
        view_on.lease("other", 0, 1)
    assert bytes(view) == b"still here"
    del view
    assert view_on.drain_released() == ["token"]


def mapped():
    with open("/proc/self/maps") as maps:
        return sum("offloop-arena" in line for line in maps)


def test_mappings_go_with_their_last_view(view_on, file):
    before = mapped()
    shared = view_on.lease("a", 0, MAPPED)
    private = view_on.lease("b", 0, MAPPED, private=True)
    assert mapped() == before + 1
    view_on.close()
    del private
    assert mapped() == before
    del shared
    assert mapped() == before - 1


def test_there_are_as_many_types_as_classes_of_sizes(view_on):
    for size in range(MIB, 2 * MIB, 4096):
        view_on.lease(size, 0, size)
    lengths = [length for length in pointers._types if MIB <= length <= 2 * MIB]
    assert len(lengths) <= 5
