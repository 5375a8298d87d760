"""What a generator in a worker yields arrives as it is yielded, and it ends once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import signal
import struct

import pytest

import jobs
import jobs_streams as gens
from offloop import Pool, Progress, Stream
from offloop.errors import (
    ControlFlowError,
    JobTimeout,
    MemoryLimitExceeded,
    NotOffloadable,
    PoolClosed,
    PoolFull,
    RemoteError,
    RemoteTraceback,
    ResultNotEncodable,
    UsageError,
    WorkerLost,
)
from offloop.wire.flow import BYTES_AHEAD, PARTS_AHEAD

ENGINES = pytest.mark.parametrize("engine", ["local", "inline"])


async def every(stream):
    return [part async for part in stream]


async def take(stream, into):
    """Collect parts until the stream ends, be it by an error."""
    async for part in stream:
        into += (part,)


@pytest.fixture
def counter(tmp_path):
    """A file in which a generator counts, and what reads it."""

    class Counter:
        path = str(tmp_path / "counter")

        @property
        def value(self):
            with open(self.path, "rb") as file:
                return struct.unpack("Q", file.read(8))[0]

        async def stands_still(self):
            """Wait until the generator has stopped, and return how far it came."""
            before = -1
            while before != self.value:
                before = self.value
                await asyncio.sleep(0.02)
            return before

    with open(Counter.path, "wb") as file:
        file.write(struct.pack("Q", 0))
    return Counter()


# Parts


@ENGINES
@pytest.mark.loops
async def test_parts_come_in_order(engine):
    async with Pool(1, engine=engine) as pool:
        assert await every(pool.stream(gens.count, 1000)) == list(range(1000))
        assert await every(pool.stream(gens.count_async, 7, start=3)) == [3, 4, 5, 6]
        assert await every(pool.stream(gens.count, 0)) == []
        assert await every(pool.stream(gens.an_iterator, 3)) == [0, 1, 2]
        assert await every(pool.stream(lambda n: (c for c in "ab" * n), 2)) == [*"abab"]
        assert pool.stats().completed == 5


@ENGINES
async def test_a_part_is_what_it_was_when_it_was_yielded(engine):
    async with Pool(1, engine=engine) as pool:
        parts = await every(pool.stream(gens.changing))
    assert [row for row, _ in parts] == [[0], [0, 1], [0, 1, 2]]
    assert [set(block) for _, block in parts] == [{0}, {1}, {2}]


@ENGINES
async def test_the_job_of_a_stream_is_at_hand(engine):
    async with Pool(1, engine=engine) as pool:
        stream = pool.stream(gens.with_value)
        assert isinstance(stream, Stream)
        assert stream.job is None
        assert "not begun" in repr(stream)
        assert await anext(stream) == 1
        assert stream.job.function == "jobs_streams.with_value"
        assert "with_value" in repr(stream)
        assert await every(stream) == []
        assert await stream.job == "the value"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@ENGINES
async def test_a_stream_reports_its_progress(engine):
    async with Pool(1, engine=engine) as pool:
        stream = pool.stream(gens.report_and_yield, 50)
        assert await anext(stream) == 0

        async def watch():
            return [update.done async for update in stream.job.updates()]

        watcher = asyncio.create_task(watch())
        await every(stream)
        seen = await watcher
    assert seen == sorted(set(seen))
    assert seen[-1] == 50
    assert stream.job.progress == Progress(50, 50, "part 49")


@pytest.mark.slow
async def test_a_hundred_thousand_tiny_parts_and_the_loop_goes_on():
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with Pool(1) as pool:
        other = asyncio.create_task(turn())
        total = 0
        async for part in pool.stream(gens.count, 100_000):
            assert part == total
            total += 1
        other.cancel()
    assert total == 100_000
    assert turns > 100_000 / PARTS_AHEAD


@pytest.mark.slow
async def test_large_parts_go_through_shared_memory_and_come_back():
    size = 16 << 20
    async with Pool(1, arena_limit=6 * size) as pool:
        seen = 0
        async for part in pool.stream(gens.large, 12, size):  # twice the memory
            assert type(part) is bytes
            assert (len(part), part[0], part[-1]) == (size, seen, seen)
            seen += 1
        assert seen == 12
        kept = await every(pool.stream(gens.arrays, 4, 100_000))
        assert [(len(array), array[0], array[-1]) for array in kept] == [
            (100_000, n, n) for n in range(4)
        ]
        kept[0][:] = 9  # it is the consumer's own
        assert await pool.run(sum, [1, 2]) == 3


async def test_a_short_part_does_not_wait_for_the_next_one(lend, gate):
    opened = gate()
    async with lend() as pool:
        for number in (1, 2, 100):
            stream = pool.stream(gens.burst_then_wait, number, str(opened))
            async with asyncio.timeout(30):
                parts = [await anext(stream) for _ in range(number)]
            assert parts == list(range(number))
            opened.open()
            assert await every(stream) == ["after"]
            while os.read(opened._fd, 1000) == b"." * 1000:
                pass  # what was not read of it


# Flow


@pytest.mark.parametrize("endless", [gens.endless, gens.endless_async])
@ENGINES
async def test_a_generator_waits_for_its_consumer(engine, endless, counter):
    async with Pool(1, engine=engine) as pool:
        few = pool.options(buffersize=10)
        async with contextlib.aclosing(few.stream(endless, counter.path)) as stream:
            for taken in range(1, 300):
                assert await anext(stream) == taken - 1
                if taken in (1, 50, 51, 52, 299):
                    ahead = await counter.stands_still() - taken
                    assert 0 <= ahead <= 10
        async with contextlib.aclosing(pool.stream(endless, counter.path)) as stream:
            await anext(stream)
            assert await counter.stands_still() <= PARTS_AHEAD + 1


async def test_a_generator_waits_after_so_many_bytes():
    size = BYTES_AHEAD // 4
    async with Pool(1, arena_limit=4 * BYTES_AHEAD) as pool:
        stream = pool.stream(gens.large, 12, size)
        assert len(await anext(stream)) == size
        batches = stream._inflow._arrived
        came = 0
        while came < 3:
            came = len(batches)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(batches) == 3  # with the one that is given: four
        assert len(await every(stream)) == 11


async def test_the_tasks_of_an_asynchronous_generator_go_on_while_it_waits():
    async with Pool(1) as pool:
        stream = pool.options(buffersize=1).stream(gens.background_tasks, 4)
        first = await anext(stream)
        turns = []
        for _ in range(3):
            await asyncio.sleep(0.02)  # the generator waits for us
            turns.append(await anext(stream))
        await stream.aclose()
    assert first == 0
    assert turns == sorted(turns)
    assert turns[-1] > 0


async def test_two_streams_take_turns_on_one_worker(lend):
    async with lend() as pool:
        first = pool.stream(gens.count, 3)
        second = pool.stream(gens.count, 3)
        assert await anext(first) == 0
        waiting = asyncio.create_task(anext(second))
        other = pool.submit(jobs.add, 1, 1)
        assert await every(first) == [1, 2]
        assert await waiting == 0
        assert await every(second) == [1, 2]
        assert await other == 2


async def test_a_full_pool_is_waited_for_or_refuses():
    async with Pool(1, max_pending=1) as pool:
        first = pool.stream(gens.count, 600)
        assert await anext(first) == 0
        with pytest.raises(PoolFull):
            await anext(pool.options(on_full="raise").stream(gens.count, 1))
        waits = asyncio.create_task(every(pool.stream(gens.count, 2)))
        await asyncio.sleep(0)
        closed = pool.stream(gens.count, 1)
        never = asyncio.create_task(every(closed))
        await asyncio.sleep(0)
        await closed.aclose()  # while it waits for room
        assert len(await every(first)) == 599
        assert await waits == [0, 1]
        assert await never == []
    assert pool.stats().submitted == 3


# Ends that the consumer makes


@pytest.mark.loops
@pytest.mark.parametrize("clean_up", [gens.clean_up, gens.clean_up_async])
@pytest.mark.parametrize("how", ["break", "aclose", "cancel", "timeout", "dropped"])
async def test_an_early_end_closes_the_generator_and_the_worker_lives_on(
    how, clean_up, gate
):
    reached, cleaned = gate(), gate()
    async with Pool(1, grace=20) as pool:
        before = await pool.run(jobs.pid)
        stream = pool.stream(clean_up, str(reached), str(cleaned))

        async def consume():
            async for pid in stream:
                assert pid == before
                if how == "cancel":
                    await asyncio.Event().wait()
                if how != "timeout":
                    return

        if how == "break":
            async for _ in pool.stream(clean_up, str(reached), str(cleaned)):
                break
        elif how == "aclose":
            await consume()
            await stream.aclose()
            assert await every(stream) == []
        elif how == "cancel":
            task = asyncio.create_task(consume())
            await reached.reached()
            task.cancel()
            await asyncio.wait([task])
            await stream.aclose()  # the task's exception holds its frame, and that it
        elif how == "timeout":
            await anext(stream)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await consume()
            await stream.aclose()
        else:
            await consume()
            del stream, consume
            gc.collect()
        assert await cleaned.reached() == before
        assert await pool.run(jobs.pid) == before
        assert pool.stats().cancelled == 1


async def test_an_asynchronous_generator_is_cancelled_where_it_waits(gate):
    waits, cleaned = gate(), gate()
    async with Pool(1, grace=20) as pool:
        stream = pool.stream(gens.wait_async, str(waits), str(cleaned))
        before = await anext(stream)
        await waits.reached()
        await stream.aclose()
        assert await cleaned.reached() == before
        assert await pool.run(jobs.pid) == before


async def test_closing_wakes_another_task_that_waits_for_a_part(gate):
    async with Pool(1) as pool:
        stream = pool.stream(gens.pid_then_wait, str(gate()))
        await anext(stream)
        waiting = asyncio.create_task(every(stream))
        await asyncio.sleep(0)
        await stream.aclose()
        assert await waiting == []


async def test_a_generator_that_swallows_its_end_does_no_harm():
    async with Pool(1, grace=20) as pool:
        for generator in (gens.return_at_exit, gens.swallow_exit):
            stream = pool.stream(generator)
            before = await anext(stream)
            await stream.aclose()
            assert await pool.run(jobs.pid) == before
        stream = pool.stream(gens.swallow_cancellation)
        before = await anext(stream)
        await stream.aclose()
        assert await pool.run(jobs.pid) > 0


@pytest.mark.parametrize(
    "stubborn", [gens.pid_then_loop, gens.pid_then_loop_in_c, gens.loop_at_exit]
)
async def test_one_that_does_not_come_to_its_yield_is_interrupted_or_killed(
    stubborn, gate
):
    reached = gate()
    async with Pool(1, grace=0.05) as pool:
        stream = pool.stream(stubborn, str(reached))
        before = await anext(stream)
        if stubborn is not gens.loop_at_exit:
            await reached.reached()
        await stream.aclose()
        assert await pool.run(jobs.pid) != before
        assert pool.stats().workers_lost == 0


async def test_what_cancelling_does_is_an_option(gate, counter):
    async with Pool(1) as pool:
        stream = pool.options(on_cancel="kill").stream(gens.pid_then_count)
        before = await anext(stream)
        await stream.aclose()
        assert await pool.run(jobs.pid) != before
        stream = pool.options(on_cancel="finish").stream(gens.count, 5000)
        assert await anext(stream) == 0
        await stream.aclose()
        assert await pool.run(jobs.add, 1, 1) == 2  # it has run to its end before


async def test_a_stream_that_is_not_begun_costs_nothing():
    async with Pool(1) as pool:
        stream = pool.stream(gens.count, 3)
        await stream.aclose()
        assert await every(stream) == []
        pool.stream(gens.count, 3)
        assert pool.stats().submitted == 0


# Ends that the generator makes


@ENGINES
@pytest.mark.parametrize("fails", [gens.fail_after, gens.fail_after_async])
async def test_an_error_comes_after_the_parts_before_it(engine, fails):
    async with Pool(1, engine=engine) as pool:
        for number in (0, 1, 700):
            stream, parts = pool.stream(fails, number), []
            with pytest.raises(ValueError, match=f"after {number}") as caught:
                await take(stream, parts)
            assert parts == list(range(number))
            assert isinstance(caught.value.__cause__, RemoteTraceback)
            assert "jobs_streams.py" in str(caught.value.__cause__)
            assert await every(stream) == []
        assert pool.stats().failed == 3


@ENGINES
async def test_what_would_confuse_the_loop_comes_wrapped(engine):
    async with Pool(1, engine=engine) as pool:
        with pytest.raises(ControlFlowError):
            await every(pool.stream(gens.exit_after, 2))


@ENGINES
async def test_a_part_that_cannot_travel_ends_the_stream(engine, gate):
    cleaned = gate()
    async with Pool(1, engine=engine) as pool:
        parts = []
        with pytest.raises(ResultNotEncodable, match="unpicklable_part"):
            await take(pool.stream(gens.unpicklable_part, str(cleaned)), parts)
        assert len(parts) == 3
        assert parts[1]() == 2
        await cleaned.reached()


async def test_a_part_that_cannot_be_read_ends_the_stream(lend):
    async with lend() as pool:
        parts = []
        with pytest.raises(RemoteError, match="cannot be rebuilt"):
            await take(pool.stream(gens.explode_here), parts)
        assert parts == [1]
        with pytest.raises(RemoteError, match="cannot be rebuilt"):
            await every(pool.stream(lambda: iter([gens.ExplodesHere(0)])))
        assert await pool.run(jobs.add, 1, 1) == 2


@ENGINES
async def test_functions_of_the_wrong_kind_are_refused(engine):
    async with Pool(1, engine=engine) as pool:
        with pytest.raises(TypeError, match=r"no_iterator .* returned list"):
            await every(pool.stream(gens.no_iterator))
        with pytest.raises(NotOffloadable, match=r"add_async .*coroutine function"):
            await every(pool.stream(jobs.add_async, 1, 2))
        for refused in (pool.submit, pool.run):
            with pytest.raises(NotOffloadable, match="use stream"):
                await refused(gens.count, 3)
        with pytest.raises(NotOffloadable, match="use stream"):
            await every(pool.map(gens.count, [3]))
        with pytest.raises(NotOffloadable, match="argument 1"):
            await every(pool.stream(gens.count, gens.count(3)))


@ENGINES
async def test_leaving_the_pool_closes_a_stream_that_nobody_iterates(engine):
    async with asyncio.timeout(30):
        async with Pool(1, engine=engine) as pool:
            mine = pool.stream(gens.pid_then_count)
            await anext(mine)
            theirs = pool.stream(gens.count, 2000)

            async def consume():
                return len(await every(theirs))

            if engine == "local":
                await mine.aclose()
                mine = pool.stream(gens.count, 10)
                consumer = asyncio.create_task(consume())
                await asyncio.sleep(0)
        with pytest.raises((PoolClosed, StopAsyncIteration)):
            await anext(mine)
        if engine == "local":
            assert await consumer == 2000  # one that is iterated comes to its end


async def test_a_consumer_that_ends_while_the_pool_drains_lets_its_stream_go():
    async with asyncio.timeout(30), Pool(1) as pool:
        stream = pool.stream(gens.pid_then_count)
        begun, leave = asyncio.Event(), asyncio.Event()

        async def consume():
            await anext(stream)
            begun.set()
            await leave.wait()

        consumer = asyncio.create_task(consume())
        await begun.wait()
        asyncio.get_running_loop().call_later(0.01, leave.set)
    await consumer
    assert stream.job.cancelled()


@ENGINES
async def test_closing_the_pool_ends_its_streams(engine):
    pool = await Pool(1, engine=engine).start()
    stream = pool.stream(gens.pid_then_count)
    await anext(stream)

    async def consume():
        async for _ in stream:
            await asyncio.sleep(0)

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    await pool.close()
    with pytest.raises(PoolClosed, match="was closed"):
        await consumer


async def test_cancelling_the_job_of_a_stream_cancels_who_iterates_it():
    async with Pool(1) as pool:
        stream = pool.options(buffersize=1).stream(gens.pid_then_count)
        await anext(stream)
        stream.job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await every(stream)


# Ends that the pool makes


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["timeout", "run_timeout"])
async def test_limits_cover_the_whole_stream_also_while_its_consumer_is_slow(limit):
    async with Pool(1, grace=20) as pool:
        before = await pool.run(jobs.pid)
        stream = pool.options(**{limit: 0.6}).stream(gens.pid_then_count)
        assert await anext(stream) == before
        async with asyncio.timeout(30):
            await asyncio.wait([stream.job])
            parts = []
            with pytest.raises(JobTimeout) as caught:
                await take(stream, parts)
        assert caught.value.kind == limit
        assert parts == list(range(len(parts)))
        assert len(parts) <= PARTS_AHEAD  # what had arrived was not lost
        assert await pool.run(jobs.pid) == before  # it was closed in its yield


async def test_a_stream_that_has_ended_may_be_read_at_leisure():
    async with Pool(1, timeout=30) as pool:
        stream = pool.stream(gens.count, 20)
        assert await anext(stream) == 0
        await asyncio.wait([stream.job])
        assert stream.job.state == "done"  # no limit concerns it any more
        assert await every(stream) == list(range(1, 20))


async def test_a_lost_worker_is_an_error_after_the_parts_that_came():
    async with Pool(1) as pool:
        stream = pool.options(retries=3).stream(gens.pid_then_count)
        pid = await anext(stream)
        for expected in range(1000):
            assert await anext(stream) == expected
        os.kill(pid, signal.SIGKILL)
        seen = []
        with pytest.raises(WorkerLost, match="SIGKILL") as caught:
            await take(stream, seen)
        assert seen == list(range(1000, 1000 + len(seen)))
        assert caught.value.pid == pid
        assert stream.job.attempts == 1  # it was not run again behind anybody's back
        assert await every(pool.stream(gens.count, 3)) == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("async_", [False, True])
async def test_a_worker_that_somebody_has_stopped_is_replaced(async_):
    generator = gens.clean_up_async if async_ else gens.pid_then_count
    args = (os.devnull, os.devnull) if async_ else ()
    async with Pool(1, grace=0.05) as pool:
        await anext(pool.stream(generator, *args))  # what it needs is imported
        stream = pool.options(timeout=1).stream(generator, *args)
        pid = await anext(stream)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(JobTimeout):
            async with asyncio.timeout(30):
                await every(stream)
        assert await pool.run(jobs.pid) != pid


async def test_only_what_has_given_no_part_is_tried_again(tmp_path):
    async with Pool(1, retries=2) as pool:
        path = str(tmp_path / "died")
        stream = pool.stream(gens.die_before_the_first_part, path)
        assert await every(stream) == ["second try"]
        assert stream.job.attempts == 2
        careful = pool.options(retry_on=ConnectionError)
        path = str(tmp_path / "failed")
        stream = careful.stream(gens.fail_before_the_first_part, path)
        assert await every(stream) == ["second try"]
        path = tmp_path / "runs"
        parts = []
        with pytest.raises(ConnectionError):
            await take(careful.stream(gens.part_then_fail, str(path)), parts)
        assert parts == [1]
        assert path.read_text() == "run\n"


@pytest.mark.slow
async def test_a_stream_that_takes_too_much_memory_ends_alone():
    async with Pool(1, memory_limit="200MiB") as pool:
        parts = []
        with pytest.raises(MemoryLimitExceeded):
            await take(pool.stream(gens.memory_hog, 1 << 30), parts)
        assert parts == [1]
        assert await every(pool.stream(gens.count, 2)) == [0, 1]


# Offloaded generator functions


async def test_an_offloaded_generator_function_is_iterated():
    assert inspect.isasyncgenfunction(gens.words)
    assert inspect.isasyncgenfunction(gens.words_async)
    assert await every(gens.words("a b c")) == ["a", "b", "c"]
    assert await every(gens.words_async("a b c")) == ["a", "b", "c"]
    assert await every(gens.words.options(timeout=30)("a b")) == ["a", "b"]
    assert list(gens.words.local("a b")) == ["a", "b"]
    stream = gens.words.stream("a b")
    assert await every(stream) == ["a", "b"]
    assert await stream.job is None
    async for word in gens.words("a b"):
        assert word == "a"
        break


async def test_an_offloaded_generator_method_is_bound():
    reader = gens.Reader("a b")
    assert await every(reader.words()) == ["a", "b"]
    assert await every(gens.Reader.words.stream(reader)) == ["a", "b"]
    with pytest.raises(TypeError, match="object that is missing"):
        reader.words.stream()


async def test_an_offloaded_generator_runs_here_inside_of_a_job(lend):
    async with lend() as pool:
        assert await pool.run(gens.words_in_a_job, "a b") == ["a", "b", "a", "b"]
        assert await every(pool.stream(gens.words, "c d")) == ["c", "d"]


async def test_faces_that_cannot_stream_say_so():
    with pytest.raises(NotOffloadable, match="use stream"):
        gens.words.submit("a")
    with pytest.raises(NotOffloadable, match="use stream"):
        await every(gens.words.map(["a"]))
    async with Pool(1) as pool:
        from offloop import Batch

        with pytest.raises(UsageError, match="stream calls"):
            pool.options(batch=Batch()).stream(gens.count, 1)


def test_the_size_of_a_buffer_is_checked():
    with pytest.raises(ValueError, match="buffersize must be at least 1"):
        Pool(1).options(buffersize=0)
