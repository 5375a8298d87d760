"""Work in steps, in threads: turns, results, errors, cancellation, the end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref

import pytest

from offloop.engines.copier import Copier
from offloop.errors import PoolClosed


def steps(name, log, count=3, gate=None):
    """Note each step; the first one waits for the gate."""
    if gate is not None:
        gate.wait(30)
    for number in range(count):
        log.append((name, number))
        yield
    return name


def fail():
    yield
    raise ValueError("in the second step")


async def test_the_last_step_gives_the_result():
    copier = Copier()
    log = []
    assert await copier.run(steps("a", log)) == "a"
    assert log == [("a", 0), ("a", 1), ("a", 2)]
    assert await copier.call(divmod, 7, 2) == (3, 1)
    assert await copier.call(threading.get_ident) != threading.get_ident()
    await copier.close()


async def test_errors_come_to_the_one_who_waits():
    copier = Copier()
    with pytest.raises(ValueError, match="second step"):
        await copier.run(fail())
    with pytest.raises(ZeroDivisionError):
        await copier.call(divmod, 1, 0)
    assert await copier.run(steps("after", [])) == "after"
    await copier.close()


class Lingering(Copier):
    """Its threads wait, when they have told of an end, until they may go on."""

    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()

    def tell(self, how, *what):
        super().tell(how, *what)
        self.go_on.wait(30)


class Kept:
    pass


def give():
    return Kept()
    yield


def raise_with(watch):
    kept = Kept()
    watch.append(weakref.ref(kept))
    raise ValueError
    yield


async def test_a_thread_keeps_nothing_of_what_it_gave():
    copier = Lingering()
    result = await copier.run(give())
    watch = [weakref.ref(result)]
    del result
    with contextlib.suppress(ValueError):  # `raises` would keep the error
        await copier.run(raise_with(watch))
    await asyncio.sleep(0)  # the step that woke us up knew it still
    kept = [one() for one in watch]
    copier.go_on.set()
    assert kept == [None, None]
    await copier.close()


async def test_the_short_does_not_wait_for_the_long():
    copier = Copier()
    log = []
    gates = threading.Event(), threading.Event()
    holding = [asyncio.create_task(copier.run(steps("x", [], 1, g))) for g in gates]
    await asyncio.sleep(0)  # both threads are taken: what comes now waits
    long = asyncio.create_task(copier.run(steps("long", log, 50)))
    short = asyncio.create_task(copier.run(steps("short", log, 2)))
    await asyncio.sleep(0)
    gates[0].set()  # one thread serves: the order is that of the turns
    assert await short == "short"
    assert await long == "long"
    assert log[:4] == [("long", 0), ("short", 0), ("long", 1), ("short", 1)]
    gates[1].set()
    await asyncio.gather(*holding)
    await copier.close()


async def test_what_is_cancelled_takes_no_further_step():
    copier = Copier()
    log = []
    gate = threading.Event()
    began, ended = threading.Event(), threading.Event()

    def watched():
        try:
            began.set()
            gate.wait(30)
            yield
            log.append("a further step")
        finally:
            ended.set()

    task = asyncio.create_task(copier.run(watched()))
    await asyncio.sleep(0)
    assert await copier.call(began.wait, 30)
    task.cancel()
    await asyncio.wait([task])  # at once, though a thread is busy with it
    gate.set()
    assert await copier.call(ended.wait, 30)
    assert log == []
    await copier.close()


async def test_two_threads_take_strands_of_one_work():
    copier = Copier()
    meeting = threading.Barrier(2)

    def meet():
        meeting.wait(30)
        yield

    assert await copier.run(meet(), meet()) is None
    log = []
    assert await copier.run(*(steps("a", log) for _ in range(5))) == "a"
    assert sorted(log) == sorted([("a", 0), ("a", 1), ("a", 2)] * 5)
    await copier.close()


async def test_a_work_of_many_strands_lets_others_in():
    copier = Copier()
    log = []
    gates = threading.Event(), threading.Event()
    holding = [asyncio.create_task(copier.run(steps("x", [], 1, g))) for g in gates]
    await asyncio.sleep(0)
    strands = [steps("long", log, 1) for _ in range(50)]
    long = asyncio.create_task(copier.run(*strands))
    short = asyncio.create_task(copier.run(steps("short", log, 2)))
    await asyncio.sleep(0)
    gates[0].set()
    await asyncio.gather(long, short)
    assert log.index(("short", 1)) < 8
    gates[1].set()
    await asyncio.gather(*holding)
    await copier.close()


async def test_the_error_of_one_strand_ends_them_all():
    copier = Copier()
    log = []
    meeting = threading.Barrier(2)
    told, over = [], asyncio.Event()

    def end(result, error):
        told.append((result, type(error)))
        over.set()

    def fail():
        meeting.wait(30)
        raise ValueError
        yield

    def go_on():
        meeting.wait(30)
        while not work.stopped:
            yield

    rest = [steps("rest", log) for _ in range(5)]
    work = copier.start([fail(), go_on(), *rest], end)
    await over.wait()
    assert told == [(None, ValueError)]
    assert len(log) <= 1
    assert await copier.run(steps("after", [])) == "after"
    await copier.close()
    assert told == [(None, ValueError)]


async def test_what_is_stopped_lets_go_of_strands_that_wait():
    copier = Copier()
    meeting, gate = threading.Barrier(3), threading.Event()

    def hold():
        meeting.wait(30)
        gate.wait(30)
        yield

    rest = [steps("rest", []) for _ in range(5)]
    work = copier.start([hold(), hold(), *rest], pytest.fail)
    await asyncio.to_thread(meeting.wait, 30)
    work.stop()
    gate.set()
    assert await copier.run(steps("after", [])) == "after"
    assert not work.strands
    await copier.close()


async def test_closing_waits_for_steps_and_refuses_the_rest():
    copier = Copier()
    gate = threading.Event()
    busy = [asyncio.create_task(copier.run(steps("a", [], 3, gate))) for _ in range(2)]
    waiting = asyncio.create_task(copier.run(steps("b", [])))
    await asyncio.sleep(0)
    closing = asyncio.create_task(copier.close())
    with pytest.raises(PoolClosed, match="on its way"):
        await waiting
    assert not closing.done()
    gate.set()
    await closing
    for task in busy:
        with pytest.raises(PoolClosed):
            await task
    with pytest.raises(PoolClosed):
        await copier.run(steps("c", []))


async def test_closing_without_any_work():
    await Copier().close()


def test_a_loop_that_was_closed_meanwhile_is_left_alone():
    loop = asyncio.new_event_loop()
    gate = threading.Event()

    async def begin():
        copier = Copier()
        task = asyncio.ensure_future(copier.run(steps("a", [], 1, gate)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return copier

    copier = loop.run_until_complete(begin())
    loop.close()
    gate.set()
    with copier._changed:
        copier._closing = True
        copier._changed.notify_all()
    for thread in copier._threads:
        thread.join(30)
        assert not thread.is_alive()
