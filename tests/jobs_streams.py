"""Generator functions that tests send to workers."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import struct
import threading

import jobs
from offloop import current_job, offload


def count(stop, start=0):
    yield from range(start, stop)


async def count_async(stop, start=0):
    import asyncio

    for number in range(start, stop):
        await asyncio.sleep(0)
        yield number


def endless(counter):
    """Yield 0, 1, 2 ... and note in a file how many were asked for."""
    file = os.open(counter, os.O_WRONLY)
    try:
        number = 0
        while True:
            os.pwrite(file, struct.pack("Q", number + 1), 0)
            yield number
            number += 1
    finally:
        os.close(file)


async def endless_async(counter):
    for number in endless(counter):
        yield number


def with_value():
    yield 1
    return "the value"


def fail_after(number):
    yield from range(number)
    raise ValueError(f"after {number}")


async def fail_after_async(number):
    for part in range(number):
        yield part
    raise ValueError(f"after {number}")


def exit_after(number):
    yield from range(number)
    raise SystemExit(3)


def unpicklable_part(cleaned):
    try:
        yield 1
        yield lambda: 2  # cloudpickle takes this one
        yield signal.getsignal  # and this, by name
        yield threading.Lock()
    finally:
        jobs.reach(cleaned)


def pid_then_count():
    yield os.getpid()
    number = 0
    while True:
        yield number
        number += 1


def pid_then_wait(until):
    yield os.getpid()
    jobs.wait_for(until)
    yield "after"


def pid_then_loop(reached):
    yield os.getpid()
    jobs.reach(reached)
    while True:
        pass


def pid_then_loop_in_c(reached):
    """Keep the interpreter's lock for ever."""
    yield os.getpid()
    jobs.reach(reached)
    sum(itertools.repeat(0))


def clean_up(reached, cleaned):
    """Yield for ever; tell how it was ended."""
    try:
        jobs.reach(reached)
        while True:
            yield os.getpid()
    except GeneratorExit:
        jobs.reach(cleaned)
        raise


async def clean_up_async(reached, cleaned):
    import asyncio

    try:
        jobs.reach(reached)
        while True:
            yield os.getpid()
    finally:
        await asyncio.sleep(0)
        jobs.reach(cleaned)


async def wait_async(waits, cleaned):
    """Wait for ever after the first part."""
    import asyncio

    try:
        yield os.getpid()
        jobs.reach(waits)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        jobs.reach(cleaned)
        raise


async def swallow_cancellation():
    import asyncio

    while True:
        try:
            yield os.getpid()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass


def swallow_exit():
    while True:
        with contextlib.suppress(GeneratorExit):
            yield os.getpid()


def return_at_exit():
    try:
        yield os.getpid()
    except GeneratorExit:
        return


def loop_at_exit(reached):
    try:
        yield os.getpid()
    finally:
        while True:
            pass


def changing():
    """Yield the same objects again and again, with new contents."""
    row, block = [], bytearray(20_000)
    for number in range(3):
        row.append(number)
        block[:] = bytes([number]) * len(block)
        yield row, block


def large(number, size):
    for part in range(number):
        yield bytes([part % 256]) * size


def arrays(number, items):
    import numpy

    for part in range(number):
        yield numpy.full(items, part)


def burst_then_wait(number, until):
    yield from range(number)
    jobs.wait_for(until)
    yield "after"


def background_tasks(number):
    """Yield as a coroutine of its own goes on; tell how often it had its turn."""
    import asyncio

    async def parts():
        turns = 0

        async def turn():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.create_task(turn())
        for _ in range(number):
            yield turns
        task.cancel()

    return parts()


def report_and_yield(number):
    for part in range(number):
        current_job().report(part + 1, number, f"part {part}")
        yield part


def die_before_the_first_part(path):
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    yield "second try"


def fail_before_the_first_part(path):
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        raise ConnectionError("first try")
    yield "second try"


def part_then_fail(path):
    with open(path, "a") as file:
        file.write("run\n")
    yield 1
    raise ConnectionError("after a part")


def no_iterator():
    return [1, 2, 3]


def an_iterator(stop):
    return iter(range(stop))


class ExplodesHere:
    """Can be sent, and cannot be read where the test runs."""

    def __init__(self, home):
        self.home = home

    def __reduce__(self):
        return explode_unless, (os.getpid(),)


def explode_unless(home):
    if os.getpid() != home:
        raise SystemExit("cannot be read")
    return ExplodesHere(home)


def explode_here():
    yield 1
    yield ExplodesHere(os.getpid())
    yield 3


def memory_hog(size):
    yield 1
    held = bytearray(size)
    yield len(held)


@offload
def words(text: str):
    yield from text.split()


@offload(buffersize=2)
async def words_async(text: str):
    for word in text.split():
        yield word


class Reader:
    def __init__(self, text: str) -> None:
        self.text = text

    @offload
    def words(self):
        yield from self.text.split()


def words_in_a_job(text):
    """Iterate offloaded generators inside of a job."""
    import asyncio

    async def collect():
        plain = [word async for word in words(text)]
        return plain + [word async for word in words_async(text)]

    return asyncio.run(collect())
