"""The watch over an event loop names the line that blocks it, whatever that does."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from pathlib import Path

import pytest

import blocking
import offloop
from offloop import Pool, watch_loop
from offloop.errors import UsageError
from offloop.loop_watch import watches
from offloop.telemetry import events

#: functions of `blocking`, each with the mark of the line that blocks
PLANTED = {
    blocking.sleep: "the sleep",
    blocking.compute: "the loop in Python",
    blocking.call_c: "the loop in C",
    blocking.through_a_library: "the call of a library",
}


def line_of(mark):
    """Return the number of the line with a mark."""
    lines = Path(blocking.__file__).read_text().splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return number


#: the callback of what nobody has seen
UNSEEN = "something that was not seen"


class Heard:
    """Collects what a watch tells, and waits for it."""

    def __init__(self):
        self.all = []
        self._came = asyncio.Event()

    def __call__(self, blocked):
        self.all.append(blocked)
        self._came.set()

    async def next(self):
        async with asyncio.timeout(60):
            await self._came.wait()
        self._came.clear()
        return self.all[-1]

    async def of(self, function):
        """Let a function hold the loop until it was seen; returns what is told of it.

        Who looks must get a core meanwhile, and on a busy machine the loop is held by
        others too: then nobody is named.
        """
        for _ in range(10):
            asyncio.get_running_loop().call_soon(function)
            blocked = await self.next()
            while blocked.callback not in (function.__name__, UNSEEN):
                blocked = await self.next()
            if blocked.callback == function.__name__:
                return blocked
        raise AssertionError(f"{function.__name__} was never seen: {self.all}")


@pytest.mark.loops
@pytest.mark.slow
async def test_whatever_blocks_is_named_with_its_line(caplog):
    heard = Heard()
    with watch_loop(0.1, on_blocked=heard) as watch:
        for function, mark in PLANTED.items():
            blocked = await heard.of(function)
            assert blocked.where.startswith(f"blocking.py:{line_of(mark)} in "), mark
            assert blocked.callback == function.__name__
            assert blocked.task == ""
            assert blocked.seconds >= 0.1
            assert 0 < blocked.share <= 1
            assert f"line {line_of(mark)}, in" in blocked.stack
        assert watch.blocked == len(heard.all) >= len(PLANTED)
        assert watch.lag.largest >= 0.1
    told = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(told) == len(heard.all)
    told = [one for one in told if one.offloop_blocked.callback != UNSEEN]
    assert re.search(
        r"held for \d+ ms by sleep, at blocking.py:\d+ in sleep: consider @offload",
        told[0].getMessage(),
    )
    assert told[0].offloop_blocked.callback == "sleep"
    assert told[0].threadName == "offloop-loop-watch", "no file is written on the loop"


@pytest.mark.loops
@pytest.mark.slow
async def test_a_coroutine_is_named_with_its_task_and_the_pools_are_told():
    heard = Heard()
    pool = Pool(1, engine="inline")
    pool.on("loop_blocked", heard)
    async with pool:
        watch_loop(0.1)  # ends with the loop
        await asyncio.create_task(blocking.handle_request(), name="request 7")
        event = await heard.next()
    assert isinstance(event, events.LoopBlocked)
    assert (event.callback, event.task) == ("handle_request", "request 7")
    assert event.where == f"blocking.py:{line_of('the sleep')} in sleep"
    assert event.seconds >= 0.1
    assert "in handle_request" in event.stack


async def test_a_loop_that_is_on_time_is_not_looked_at():
    with watch_loop(60) as watch:
        while watch.lag.count < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert watch.blocked == 0
        assert watches() == [watch]
        assert watch.loop is asyncio.get_running_loop()
    watch.stop()
    assert watches() == []
    watch._sampler.join(60)
    assert not watch._sampler.is_alive()


def test_a_watch_ends_with_its_loop():
    async def main():
        watch_loop()
        assert len(watches()) == 1

    asyncio.run(main())
    assert watches() == []
    names = [thread.name for thread in threading.enumerate()]
    assert "offloop-loop-watch" not in names


@pytest.mark.slow
async def test_a_callback_that_fails_harms_nobody(caplog):
    def fail(blocked):
        seen.set()
        raise LookupError("not my day")

    seen = asyncio.Event()
    with watch_loop(0.1, on_blocked=fail) as watch:
        for times in (1, 2):
            blocking.sleep()
            await seen.wait()
            seen.clear()
            assert watch.blocked == times
    assert "not my day" in caplog.text


def test_what_nobody_saw_is_told_all_the_same():
    from offloop.loop_watch import _judged

    blocked = _judged(0.25, [])
    assert "held for 250 ms by something that was not seen" in str(blocked)


def test_it_needs_a_loop():
    with pytest.raises(UsageError, match="call it in a coroutine"):
        offloop.watch_loop()
