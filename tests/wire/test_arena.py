"""Blocks are written here and read there, and come back when nobody needs them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest

from offloop.wire import sparse_file
from offloop.wire.arena import (
    BRIEF,
    KEEP,
    PAUSE,
    SLICE,
    SPLIT,
    STRAND,
    STRIDE,
    TRIM,
    Arena,
    ArenaFull,
    Window,
    create_file,
    file_size,
)
from offloop.wire.space import PAGE, SMALLEST

KIB, MIB = 1024, 1024 * 1024


def new_arena(limit=16 * MIB):
    return Arena(create_file(file_size(limit)), limit)


def memory(arena):
    """Return the bytes of memory that the file really has."""
    return os.fstat(arena.fileno()).st_blocks * 512


def noise(size):
    return np.random.default_rng(size).bytes(size)


def filled(arena, size, byte=b"\1"):
    block = arena.allocate(size)
    arena.write(block, byte * size)
    return block


def content(arena, block):
    return os.pread(arena.fileno(), block.size, block.offset)


# ---- blocks --------------------------------------------------------------------------


def test_a_block_has_a_place_of_its_own_and_room_for_what_was_asked():
    arena = new_arena()
    assert (arena.used, arena.backed, arena.limit) == (0, 0, 16 * MIB)
    one, other = arena.allocate(100), arena.allocate(5 * PAGE + 1)
    assert (one.size, one.room, one.offset) == (100, SMALLEST, 0)
    assert (other.size, other.room) == (5 * PAGE + 1, 6 * PAGE)
    assert other.offset == one.room
    assert arena.used == one.room + other.room
    assert "100 bytes at 0" in repr(one)
    assert memory(arena) == 0


def test_a_block_is_free_when_its_last_reference_goes():
    arena = new_arena()
    block = arena.allocate(MIB)
    other = [block]
    del block
    assert arena.used == MIB
    other.clear()
    assert arena.used == 0


def test_a_block_may_go_on_another_thread_and_in_a_garbage_collection():
    arena = new_arena()
    blocks = [arena.allocate(MIB)]
    thread = threading.Thread(target=blocks.clear)
    thread.start()
    thread.join()
    assert arena.used == 0
    cycle = [arena.allocate(MIB)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert arena.used == 0


def test_what_was_freed_last_is_used_first():
    arena = new_arena()
    first, second, third = (filled(arena, MIB) for _ in range(3))
    places = [block.offset for block in (first, second, third)]
    del third, first, second
    assert arena.backed == 3 * MIB
    again = [arena.allocate(MIB) for _ in range(3)]
    assert [block.offset for block in again] == [places[1], places[0], places[2]]
    assert {block.backed for block in again} == {MIB}


def test_a_block_that_was_never_written_keeps_nothing_warm():
    arena = new_arena()
    arena.allocate(MIB)
    assert (arena.used, arena.backed) == (0, 0)


def test_a_full_arena_says_so_and_how_full_it_is():
    arena = new_arena()
    held = arena.allocate(12 * MIB)
    assert arena.room(4 * MIB)
    assert not arena.room(5 * MIB)
    with pytest.raises(ArenaFull, match="no room now") as caught:
        arena.allocate(5 * MIB)
    error = caught.value
    assert (error.size, error.used, error.limit) == (5 * MIB, 12 * MIB, 16 * MIB)
    assert not error.never
    del held
    assert arena.room(5 * MIB)
    arena.allocate(5 * MIB)


def test_what_is_larger_than_the_arena_will_never_fit():
    arena = new_arena()
    assert not arena.room(16 * MIB + 1)
    with pytest.raises(ArenaFull, match="larger than the whole arena") as caught:
        arena.allocate(16 * MIB + 1)
    assert caught.value.never


def test_all_of_the_limit_may_be_one_block_whatever_its_class():
    arena = new_arena(17 * MIB)
    block = filled(arena, 17 * MIB - 5)
    assert arena.used == 17 * MIB
    del block
    assert filled(arena, 17 * MIB).room == 17 * MIB
    assert memory(arena) == 17 * MIB


def test_a_limit_that_is_too_small_for_anything_is_refused():
    with pytest.raises(ValueError, match="at least"):
        Arena(create_file(file_size(SMALLEST)), SMALLEST - 1)


def test_a_file_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="length"):
        Arena(create_file(MIB), 16 * MIB)


def test_a_fragmented_file_is_full_before_its_limit_is_reached():
    arena = new_arena()
    size, places = 4 * MIB, []
    while (found := arena._space.take(size)) is not None:
        places.append(found)  # as if small blocks lay between all gaps
    assert not arena.room(5 * MIB)
    with pytest.raises(ArenaFull, match="no room now"):
        arena.allocate(5 * MIB)
    arena._space.give(places[0], size)
    assert arena.room(size)


# ---- room is made --------------------------------------------------------------------


def test_memory_that_nobody_uses_makes_room_for_another_size():
    arena = new_arena()
    filled(arena, 12 * MIB)
    assert arena.backed == 12 * MIB
    block = arena.allocate(10 * MIB)
    # The books have it at once; the memory goes when the new block gets its own.
    assert arena.backed == 16 * MIB
    assert memory(arena) == 12 * MIB
    steps = [memory(arena) for _ in arena.slices(block, bytes(10 * MIB))]
    assert max(steps) <= 16 * MIB
    assert memory(arena) == 16 * MIB
    assert content(arena, block) == bytes(10 * MIB)
    del block
    arena.trim(0.0)
    assert trimmed(arena, KEEP) is None
    assert arena._space.ranges() == [(0, arena.size)]


def test_room_is_made_for_what_is_reserved_too():
    arena = new_arena()
    filled(arena, 16 * MIB)
    block = arena.allocate(2 * MIB)
    arena.reserve(block)
    assert memory(arena) == arena.backed == 16 * MIB


def test_what_was_to_make_room_is_kept_when_it_was_not_needed():
    arena = new_arena()
    filled(arena, 16 * MIB)
    arena.allocate(2 * MIB)  # goes at once, and was never written
    assert arena.backed == memory(arena) == 16 * MIB
    assert arena.used == 0
    filled(arena, 16 * MIB, b"\2")
    assert arena.backed == memory(arena) == 16 * MIB


def test_a_warm_range_is_left_alone_when_all_of_it_would_be_too_much():
    arena = new_arena(17 * MIB)
    whole = arena.allocate(17 * MIB)
    arena.write(whole, b"\2" * (16 * MIB))
    del whole  # 17 MiB of the file, 16 of them with memory
    held = filled(arena, MIB)
    block = filled(arena, 16 * MIB, b"\3")
    assert (block.room, held.room) == (16 * MIB, MIB)
    assert memory(arena) == arena.backed == 17 * MIB
    assert content(arena, block) == b"\3" * (16 * MIB)


def test_without_holes_memory_stays_and_nothing_breaks(monkeypatch):
    monkeypatch.setattr(sparse_file, "_MADV_REMOVE", -1)
    arena = new_arena()
    filled(arena, 12 * MIB)
    block = filled(arena, 10 * MIB, b"\2")
    assert content(arena, block) == b"\2" * (10 * MIB)
    del block
    arena.trim(0.0)
    while arena.trim(KEEP) is not None:
        pass
    assert arena.backed == 0


# ---- content -------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("size", [1, BRIEF, BRIEF + 1, SLICE, 3 * SLICE + 5])
def test_what_is_written_is_there(size, warm):
    arena = new_arena()
    if warm:
        filled(arena, size)
    block = arena.allocate(size)
    assert (block.backed > 0) == warm
    data = noise(size)
    arena.write(block, data)
    assert content(arena, block) == data


def test_a_small_block_in_a_large_warm_one_gets_memory_where_it_lacks():
    arena = new_arena()
    filled(arena, 5 * MIB)
    block = arena.allocate(5 * MIB)
    arena.write(block, b"\7" * MIB)
    assert block.backed == 5 * MIB
    del block
    small = filled(arena, 4 * MIB + 5)  # of the same class, with less memory
    assert small.backed == 5 * MIB
    other = filled(arena, 4 * MIB + 5)
    assert other.backed == 4 * MIB + 5
    del other
    larger = arena.allocate(5 * MIB)
    data = noise(5 * MIB)
    arena.write(larger, data)
    assert content(arena, larger) == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.frombuffer])
def test_anything_with_contiguous_bytes_can_be_written(kind):
    arena = new_arena()
    data = noise(MIB)
    source = np.frombuffer(data, "f4") if kind is np.frombuffer else kind(data)
    for _ in range(2):
        block = arena.allocate(MIB)
        arena.write(block, source)
        assert content(arena, block) == data
        del block


def test_several_buffers_share_a_block():
    arena = new_arena()
    block = arena.allocate(3 * MIB)
    pieces = [(0, noise(MIB + 10)), (MIB + 64, noise(MIB)), (2 * MIB + 64, b"end")]
    for at, piece in pieces:
        arena.write(block, piece, at)
    for at, piece in pieces:
        assert content(arena, block)[at : at + len(piece)] == piece


def test_each_step_copies_a_slice():
    arena = new_arena()
    data = noise(2 * STRIDE + 7)
    for slice in (SLICE, STRIDE):  # of new memory, and of that which is there already
        block = arena.allocate(len(data))
        steps = list(arena.slices(block, data))
        assert steps == [*range(slice, len(data), slice), len(data)]
        del block
    assert list(arena.slices(arena.allocate(10), np.empty((0, 5)))) == []


def test_strands_may_be_taken_in_any_order():
    arena = new_arena()
    data = np.frombuffer(noise(SPLIT + 8), "f8")
    sizes = []
    for _ in range(2):  # the memory is new, and then it is there already
        block = arena.allocate(data.nbytes)
        strands = arena.strands(block, data)
        sizes.append(len(strands))
        for strand in reversed(strands):
            assert list(strand)
        assert content(arena, block) == data.tobytes()
        del block
    assert sizes == [1, 1 + SPLIT // STRAND]
    assert len(arena.strands(arena.allocate(SPLIT - 1), bytes(SPLIT - 1))) == 1


def test_a_source_is_held_while_it_is_copied():
    arena = new_arena()
    filled(arena, 2 * STRIDE)
    data = bytearray(2 * STRIDE)
    steps = arena.slices(arena.allocate(2 * STRIDE), data)
    next(steps)
    with pytest.raises(BufferError):
        data.append(1)
    steps.close()
    del steps
    data.append(1)


@pytest.mark.parametrize(("at", "size"), [(-1, 5), (0, 101), (98, 3)])
def test_what_does_not_fit_into_its_block_is_refused(at, size):
    arena = new_arena()
    with pytest.raises(ValueError, match="do not fit"):
        arena.write(arena.allocate(100), bytes(size), at)


def test_a_gap_is_refused():
    arena = new_arena()
    block = arena.allocate(4 * PAGE)
    arena.write(block, b"x")
    with pytest.raises(ValueError, match="of which 1 bytes are filled"):
        arena.write(block, b"x", PAGE + 1)
    arena.write(block, b"x", PAGE)


def test_many_threads_copy_at_once():
    arena = new_arena(64 * MIB)
    jobs = [(arena.allocate(3 * MIB), noise(3 * MIB + i)[i:]) for i in range(8)]
    threads = [threading.Thread(target=arena.write, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    while arena.room(MIB) and any(thread.is_alive() for thread in threads):
        filled(arena, 64 * KIB)  # meanwhile the owner goes on
    for thread in threads:
        thread.join()
    for block, data in jobs:
        assert content(arena, block) == data


# ---- views ---------------------------------------------------------------------------


def test_a_view_needs_memory_first():
    arena = new_arena()
    block = arena.allocate(MIB)
    with pytest.raises(ValueError, match="reserve it first"):
        arena.view(block)
    arena.reserve(block)
    assert memory(arena) == MIB
    view = arena.view(block)
    view[-1] = 5
    assert content(arena, block)[-1] == 5


def test_only_what_lacks_memory_is_reserved():
    arena = new_arena()
    filled(arena, 4 * MIB + 100)
    block = arena.allocate(5 * MIB)
    assert block.backed == 4 * MIB + PAGE
    arena.reserve(block)
    assert memory(arena) == block.backed == 5 * MIB
    arena.reserve(block)
    arena.write(block, noise(5 * MIB))
    assert memory(arena) == 5 * MIB


def test_a_view_keeps_its_block():
    arena = new_arena()
    block = filled(arena, MIB)
    array = np.frombuffer(arena.view(block), "f8")[5:]
    assert arena.view(block, readonly=True).readonly
    del block
    assert arena.used == MIB
    del array
    assert arena.used == 0


def test_a_buffer_in_a_block_is_found_there():
    arena = new_arena()
    blocks = [filled(arena, 4 * MIB) for _ in range(3)]
    views = [arena.view(block) for block in blocks]
    arrays = [np.frombuffer(view, "f8").reshape(2, -1) for view in views]
    arrays[1].flags.writeable = False
    for block, array in zip(blocks, arrays, strict=True):
        assert arena.locate(array) == (block, 0)
        assert arena.locate(array.T) == (block, 0)
        assert arena.locate(array[1, 2:]) == (block, 2 * MIB + 16)
        assert arena.locate(memoryview(array[1])[:0]) == (block, 2 * MIB)
    # A second view changes nothing.
    assert arena.locate(arena.view(blocks[1])[7:]) == (blocks[1], 7)


def test_a_buffer_elsewhere_is_not_found():
    arena, other = new_arena(), new_arena()
    assert arena.locate(b"nothing was ever viewed") is None
    before, block = filled(arena, MIB), filled(arena, MIB)
    view = arena.view(block)
    theirs = other.view(filled(other, MIB))
    assert arena.locate(b"somewhere") is None
    assert arena.locate(theirs) is None
    assert other.locate(view) is None
    assert arena.locate(np.frombuffer(view, "f8")[::2]) is None
    assert arena.locate(view[::2]) is None
    # All of the arena at once lies in no block; neither does one without a view.
    assert arena.locate(arena._mapping) is None
    part = memoryview(arena._mapping)[before.offset : before.offset + 5]
    assert arena.locate(part) is None
    with pytest.raises(TypeError):
        arena.locate(5)


def test_the_place_of_a_block_that_has_gone_is_forgotten():
    arena = new_arena()
    views = [arena.view(filled(arena, MIB)) for _ in range(3)]
    part = memoryview(arena._mapping)[MIB : MIB + 5]
    assert arena.locate(part)[0].offset == MIB
    del views[1]
    assert arena.locate(part) is None  # it is not yet in the books
    assert arena.used == 2 * MIB
    assert arena.locate(part) is None
    again = filled(arena, MIB)
    assert again.offset == MIB
    assert arena.locate(part) is None
    assert arena.locate(views[1])[0].offset == 2 * MIB


# ---- giving back ---------------------------------------------------------------------


def trimmed(arena, now):
    """Call `trim` until it waits for something; return what it said."""
    while (due := arena.trim(now)) == now + PAUSE:
        assert memory(arena) > 0
    return due


def test_memory_is_given_back_when_nobody_has_used_it_for_a_while():
    arena = new_arena()
    assert arena.trim(10.0) is None
    filled(arena, 6 * MIB + 5)
    assert arena.trim(10.0) == 10.0 + KEEP
    later = filled(arena, MIB)
    assert arena.trim(10.0 + KEEP) == 10.0 + KEEP + PAUSE
    assert memory(arena) == arena.backed
    assert trimmed(arena, 10.0 + KEEP) is None
    assert memory(arena) == arena.backed == MIB
    del later
    assert trimmed(arena, 20.0) == 20.0 + KEEP
    assert trimmed(arena, 20.0 + KEEP) is None
    assert memory(arena) == arena.backed == 0
    assert arena._space.ranges() == [(0, arena.size)]


def test_what_is_used_again_and_again_stays_warm():
    arena = new_arena()
    for now in range(10):
        filled(arena, MIB)
        assert arena.trim(float(now)) == now + KEEP
    assert memory(arena) == MIB


def test_little_is_given_back_at_a_time():
    arena = new_arena(64 * MIB)
    small = [filled(arena, SMALLEST) for _ in range(200)]
    filled(arena, 16 * MIB)
    arena.trim(0.0)
    del small
    arena.trim(0.0)
    before = arena.backed
    while arena.trim(KEEP) is not None:
        assert 0 < before - arena.backed <= TRIM + SMALLEST
        before = arena.backed
    assert memory(arena) == 0


# ---- endings -------------------------------------------------------------------------


def test_a_closed_arena_makes_no_blocks_and_its_views_live_on():
    arena = new_arena()
    block = filled(arena, MIB, b"\6")
    descriptor = arena.fileno()
    view = arena.view(block)
    steps = arena.slices(block, bytes(MIB - 1) + b"\7")
    arena.close()
    for use in (arena.fileno, lambda: arena.allocate(1)):
        with pytest.raises(ValueError, match="the arena is closed"):
            use()
    for use in (arena.reserve, lambda block: arena.write(block, b"x")):
        with pytest.raises(ValueError, match="the arena is closed"):
            use(block)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    del block
    assert bytes(view) == b"\6" * MIB
    with pytest.raises(ValueError, match="the arena is closed"):
        next(steps)


def test_a_copy_that_has_begun_ends_after_the_arena_was_closed():
    arena = new_arena()
    block = arena.allocate(3 * SLICE)
    window = Window(arena.fileno(), arena.size)
    steps = arena.slices(block, b"\5" * (3 * SLICE))
    next(steps)
    arena.close()
    assert list(steps) == [2 * SLICE, 3 * SLICE]
    assert bytes(window.lease(1, block.offset, block.size)) == b"\5" * (3 * SLICE)


# ---- two processes -------------------------------------------------------------------

READER = """
import sys, zlib
from offloop.wire.arena import Window
window = Window(int(sys.argv[1]), int(sys.argv[2]))
kept = []
for line in sys.stdin:
    token, offset, size, how = line.split()
    view = window.lease(int(token), int(offset), int(size), private=how == "private")
    checksum = zlib.crc32(view)
    if how == "keep":
        kept.append(view[5:])
    elif how == "private":
        view[:] = bytes(len(view))
    else:
        view[0] ^= 255
    del view
    print(checksum, *window.drain_released(), flush=True)
"""


class Reader:
    """A process that looks at blocks through a window of its own."""

    def __init__(self, arena):
        command = [sys.executable, "-c", READER, str(arena.fileno()), str(arena.size)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[arena.fileno()],
        )

    def read(self, token, block, how):
        """Return the checksum that it sees, and the tokens that it gives back."""
        order = f"{token} {block.offset} {block.size} {how}\n"
        self.process.stdin.write(order)
        self.process.stdin.flush()
        checksum, *released = map(int, self.process.stdout.readline().split())
        return checksum, released

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()


@pytest.mark.slow
def test_another_process_reads_what_was_written_and_returns_it():
    arena = new_arena()
    data = noise(5 * MIB)
    block = arena.allocate(len(data))
    arena.write(block, data)
    checksum = zlib.crc32(data)
    with Reader(arena) as reader:
        assert reader.read(1, block, "private") == (checksum, [1])
        assert reader.read(2, block, "keep") == (checksum, [])
        assert reader.read(3, block, "change") == (checksum, [3])
        # What it changed is changed; what it changed in private is not.
        changed = bytes([data[0] ^ 255]) + data[1:]
        assert content(arena, block) == changed
        arena.write(block, data)
        assert reader.read(4, block, "keep") == (checksum, [])


@pytest.mark.slow
def test_blocks_of_a_process_that_was_killed_are_used_again():
    arena = new_arena()
    for byte in (b"\1", b"\2"):
        blocks = {token: filled(arena, 5 * MIB, byte) for token in range(3)}
        assert not arena.room(5 * MIB)
        with Reader(arena) as reader:
            for token, block in blocks.items():
                checksum = zlib.crc32(byte * (5 * MIB))
                assert reader.read(token, block, "keep") == (checksum, [])
        del block
        blocks.clear()
        assert arena.used == 0
        assert arena.room(5 * MIB)


@pytest.mark.slow
def test_memory_of_a_dead_writer_is_given_back_but_for_what_is_looked_at():
    arena = new_arena()
    window = Window(arena.fileno(), arena.size)
    blocks = [filled(arena, 3 * MIB, bytes([byte])) for byte in range(1, 6)]
    leases = [window.lease(n, b.offset, b.size) for n, b in enumerate(blocks)]
    kept = {1: leases[1][MIB:], 3: np.frombuffer(leases[3], "u1")}
    leases.clear()
    assert sorted(window.drain_released()) == [0, 2, 4]
    assert sum(1 for _ in window.vacate()) > 3
    assert memory(arena) == 6 * MIB
    assert set(kept.pop(1)) == {2}
    assert window.drain_released() == [1]
    for _ in window.vacate():
        assert set(kept[3][:: MIB - 1]) == {4}
    assert memory(arena) == 3 * MIB
    window.close()
    assert list(window.vacate()) == []
    assert set(kept[3]) == {4}


def test_nothing_heavy_is_loaded_before_there_is_a_large_buffer():
    script = "import sys, offloop.wire.arena, offloop.wire.bulk; print(*sys.modules)"
    environment = {  # measuring coverage loads modules of its own
        key: value for key, value in os.environ.items() if "COVERAGE" not in key
    }
    loaded = subprocess.check_output(
        [sys.executable, "-c", script], text=True, env=environment
    ).split()
    assert "offloop.wire.window" in loaded
    assert {"ctypes", "numpy"}.isdisjoint(loaded)
