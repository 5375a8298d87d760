"""An arena and its readers in any order of allocating, dropping, crashing, trimming."""

from __future__ import annotations

import os
import random
import zlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from offloop.wire import arena as arena_module
from offloop.wire import window
from offloop.wire.arena import KEEP, Arena, ArenaFull, Window, create_file, file_size
from offloop.wire.space import PAGE

KIB, MIB = 1024, 1024 * 1024
LIMIT = 4 * MIB + 12345
# Few sizes, so that warm memory is used again; large ones, so that room must be made.
SIZES = (
    st.sampled_from([16, 64, 300, 310, 700, 1100, 1300, 2500, 3500]).map(KIB.__mul__)
    | st.integers(0, 600 * KIB)
    | st.just(LIMIT)
)
# How a block gets its content.
WAYS = ["write", "write", "steps", "strands", "view", "none"]


class ArenaModel(RuleBasedStateMachine):
    """The model knows which blocks there are, their contents, and who looks at them."""

    @initialize()
    def begin(self) -> None:
        # The same way for blocks of a size that many examples can afford.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(window, "MAPPED", 256 * KIB)
        self.patch.setattr(arena_module, "SPLIT", 256 * KIB)
        self.patch.setattr(arena_module, "STRAND", 64 * KIB)
        self.arena = Arena(create_file(file_size(LIMIT)), LIMIT)
        self.reader = Window(self.arena.fileno(), self.arena.size)
        self.random = random.Random(1)
        self.now = 0.0
        #: blocks that the writer holds, and the checksums of their contents
        self.blocks: dict[int, tuple[object, int]] = {}
        #: the reader's views by block
        self.views: dict[int, list[memoryview]] = {}
        self.last = 0

    def pick(self, data, keys):
        return data.draw(st.sampled_from(sorted(keys)))

    def store(self, block, content: bytes) -> None:
        self.last += 1
        self.blocks[self.last] = block, zlib.crc32(content)

    @rule(size=SIZES, how=st.sampled_from(WAYS))
    def allocate(self, size, how):
        room = self.arena.room(size)
        if not room:
            with pytest.raises(ArenaFull) as full:
                self.arena.allocate(size)
            assert full.value.never == (size > LIMIT // PAGE * PAGE)
            return
        block = self.arena.allocate(size)
        content = self.random.randbytes(size)
        if how == "write":
            self.arena.write(block, content)
        elif how == "steps":
            # Others are served between the steps of a copy.
            for _ in self.arena.slices(block, content):
                if self.arena.room(16 * KIB):
                    small = self.arena.allocate(16 * KIB)
                    self.arena.write(small, b"x" * (16 * KIB))
        elif how == "strands":
            strands = self.arena.strands(block, content)
            while strands:
                strand = self.random.choice(strands)
                if next(strand, None) is None:
                    strands.remove(strand)
        elif how == "view":
            self.arena.reserve(block)
            view = self.arena.view(block)
            view[:] = content
            assert self.arena.locate(view[size // 2 :]) == (block, size // 2)
        else:
            return
        self.store(block, content)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def drop(self, data):
        """The writer needs a block no more; somebody else may."""
        key = self.pick(data, self.blocks)
        if key not in self.views:
            del self.blocks[key]

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), readonly=st.booleans())
    def read(self, data, readonly):
        key = self.pick(data, self.blocks)
        block, _ = self.blocks[key]
        view = self.reader.lease(key, block.offset, block.size, readonly=readonly)
        self.views.setdefault(key, []).append(view[: block.size])

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def read_privately(self, data):
        key = self.pick(data, self.blocks)
        block, checksum = self.blocks[key]
        view = self.reader.lease(0, block.offset, block.size, private=True)
        assert zlib.crc32(view) == checksum
        view[:] = bytes(block.size)
        del view
        assert self.reader.drain_released() == [0]

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def finish(self, data):
        """The reader lets all its views on a block go, and returns it."""
        key = self.pick(data, self.views)
        count = len(self.views.pop(key))
        assert self.reader.drain_released() == [key] * count
        del self.blocks[key]

    @rule()
    def crash(self):
        """The reader is killed: what it looked at comes back."""
        for key in self.views:
            del self.blocks[key]
        self.views.clear()
        self.reader = Window(self.arena.fileno(), self.arena.size)

    @rule(size=SIZES, count=st.integers(2, 5))
    def pass_through(self, size, count):
        """Blocks come and go, and leave their memory warm."""
        blocks = []
        while self.arena.room(size) and len(blocks) < count:
            blocks.append(self.arena.allocate(size))
            self.arena.write(blocks[-1], b"z" * size)

    @rule(passed=st.sampled_from([0.0, 0.5, KEEP]))
    def trim(self, passed):
        self.now += passed
        due = self.arena.trim(self.now)
        used, backed = self.arena.used, self.arena.backed
        assert (due is None) == (used == backed)
        assert due is None or self.now < due <= self.now + KEEP

    @invariant()
    def blocks_do_not_overlap(self):
        end = used = 0
        for block, _ in sorted(self.blocks.values(), key=lambda one: one[0].offset):
            assert block.offset >= end
            assert block.room >= block.size
            end = block.offset + block.room
            used += block.room
        assert end <= self.arena.size
        assert self.arena.used == used

    @invariant()
    def the_limit_is_kept(self):
        memory = os.fstat(self.arena.fileno()).st_blocks * 512
        assert memory <= LIMIT
        assert self.arena.backed <= LIMIT

    @invariant()
    def contents_are_intact(self):
        for key, (block, checksum) in self.blocks.items():
            raw = os.pread(self.arena.fileno(), block.size, block.offset)
            assert zlib.crc32(raw) == checksum
            for view in self.views.get(key, ()):
                assert zlib.crc32(view) == checksum
        assert self.reader.drain_released() == []

    def teardown(self) -> None:
        if not hasattr(self, "arena"):
            return
        self.crash()
        self.blocks.clear()
        self.arena.trim(self.now)
        while self.arena.trim(self.now + KEEP) is not None:
            pass
        assert self.arena.used == self.arena.backed == 0
        assert os.fstat(self.arena.fileno()).st_blocks == 0
        assert self.arena._space.ranges() == [(0, self.arena.size)]
        self.reader.close()
        self.arena.close()
        self.patch.undo()


ArenaModel.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestArenaModel = ArenaModel.TestCase
