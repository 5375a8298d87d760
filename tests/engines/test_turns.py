"""Whoever waits for room gets it in the order of arrival, and nobody is passed over."""

from __future__ import annotations

import asyncio

import pytest

from offloop.engines.turns import Turns


class Room:
    """Room for some jobs, and the line of those who wait for it."""

    def __init__(self, places):
        self.places = places
        self.turns = Turns(lambda: self.places > 0)
        self.order = []

    async def take(self, name):
        async with self.turns:
            await self.turns.room()
            self.places -= 1
            self.order.append(name)

    def leave(self):
        self.places += 1
        self.turns.jobs_ended()


async def some_turns_of_the_loop():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served():
    room = Room(0)
    waiting = [asyncio.create_task(room.take(name)) for name in "abc"]
    await some_turns_of_the_loop()
    assert room.turns.waiting == 3
    for _ in waiting:
        room.leave()
        await some_turns_of_the_loop()
    assert room.order == ["a", "b", "c"]
    assert not room.turns.closed


async def test_the_line_is_closed_even_between_two_turns():
    room = Room(0)
    closed = []

    async def take_and_look(name):
        await room.take(name)
        closed.append((room.places, room.turns.closed))

    waiting = [asyncio.create_task(take_and_look(name)) for name in "ab"]
    await some_turns_of_the_loop()
    room.places = 1
    room.leave()
    await asyncio.wait(waiting)
    # There was room when the first had left the line, but not for a newcomer.
    assert closed == [(1, True), (0, False)]


async def test_one_who_waits_for_memory_may_be_passed():
    room = Room(1)
    async with room.turns:
        assert room.turns.closed
        room.turns.wants_memory = True
        assert not room.turns.closed
    assert not room.turns.wants_memory


async def test_one_who_gives_up_hands_its_turn_on():
    room = Room(0)
    first, second, third = (asyncio.create_task(room.take(name)) for name in "abc")
    await some_turns_of_the_loop()
    second.cancel()
    first.cancel()
    await asyncio.wait([first, second])
    assert room.turns.waiting == 1
    room.leave()
    await third
    assert room.order == ["c"]


async def test_all_fail_one_after_the_other():
    room = Room(0)
    waiting = [asyncio.create_task(room.take(name)) for name in "ab"]
    await some_turns_of_the_loop()
    room.turns.fail(RuntimeError("no more"))
    with pytest.raises(RuntimeError, match="no more"):
        await waiting[0]
    await some_turns_of_the_loop()
    room.turns.fail(RuntimeError("no more"))
    with pytest.raises(RuntimeError, match="no more"):
        await waiting[1]
    room.turns.fail(RuntimeError("nobody hears it"))
