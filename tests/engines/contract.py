"""What every engine does in the same way: one check for each line of the table.

The table stands in `docs/engines.md`. Where it says "yes" the check holds, where it
says "refused" the call that asks for it is an error that says so, and "no" promises
nothing. A check gets an open pool of two workers and may leave nothing behind in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

import jobs
import jobs_context
import jobs_contract
import jobs_streams
from offloop import Batch
from offloop.errors import (
    ControlFlowError,
    JobError,
    JobTimeout,
    NotOffloadable,
    PoolFull,
    WorkerLost,
)

TABLE = Path(__file__).parents[2] / "docs" / "engines.md"

#: options of the pools that are checked
OPTIONS = {"max_pending": 40, "grace": 5.0, "name": "contract"}

#: checks by the line of the table
CHECKS = {}


def table():
    """Return what the documentation says: by engine, then by line."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in TABLE.read_text().splitlines()
        if line.startswith("| ")
    ]
    head = next(row for row in rows if row[0] == "With the engine")
    body = [row for row in rows[rows.index(head) + 1 :] if len(row) == len(head)]
    return {
        engine.strip('"`'): {row[0]: row[place] for row in body if "---" not in row[0]}
        for place, engine in enumerate(head[1:], start=1)
    }


def of(line):
    def note(check):
        CHECKS[line] = check
        return check

    return note


@of("results of any function")
async def results(pool, gate):
    assert await pool.run(jobs.add, 1, b=2) == 3
    base = 40
    assert await pool.run(lambda value: value + base, 2) == 42
    assert await pool.run("abc".upper) == "ABC"
    assert await pool.run(jobs.Point(3, 4).shifted, 1) is not None
    assert await pool.run(jobs.add_async, 1, b=2) == 3
    job = pool.submit(jobs.describe_job)
    number, attempt, _, worker = await job
    assert (number, attempt, worker) == (job.id, 1, job.worker)
    assert (job.state, job.attempts) == ("done", 1)
    with pytest.raises(NotOffloadable):
        pool.submit("no function")


@of("errors with their traceback")
async def errors(pool, gate):
    with pytest.raises(ValueError, match="bad") as caught:
        await pool.run(jobs.raise_value_error)
    assert "raise_value_error" in whole(caught.value)
    with pytest.raises(ValueError, match="outer") as caught:
        await pool.run(jobs.raise_from_cause)
    assert type(caught.value.__cause__) is KeyError
    with pytest.raises(ControlFlowError):
        await pool.run(jobs.system_exit)
    with pytest.raises(JobError):
        await pool.run(next, iter(()))  # StopIteration would confuse a coroutine


def whole(error):
    import traceback

    return "".join(traceback.format_exception(error))


@of("`map`, in order or not")
async def maps(pool, gate):
    assert await pool.map(jobs.add, range(30), range(30)) == list(range(0, 60, 2))
    found = [r async for r in pool.map(jobs.add_async, [1, 2], [3, 4], ordered=False)]
    assert sorted(found) == [4, 6]
    tried = pool.map(jobs.apply, [float, len], ["x", "x"], return_exceptions=True)
    first, second = await tried
    assert (type(first), second) == (ValueError, 1)
    with pytest.raises(ZeroDivisionError) as caught:
        await pool.map(divmod, [1, 1], [1, 0], chunksize=2)
    assert caught.value.item_index == 1


@of("backpressure: `max_pending`")
async def backpressure(pool, gate):
    sent = [pool.submit(jobs.add, n) for n in range(40)]
    with pytest.raises(PoolFull) as caught:
        pool.submit(jobs.add, 1)
    assert (caught.value.pending, caught.value.limit) == (40, 40)
    waits = asyncio.ensure_future(pool.run(jobs.add, 41))  # this one has time
    assert await asyncio.gather(*sent) == list(range(40))
    assert await waits == 41


@of("`priority`, `key`, `max_concurrency`")
async def priorities(pool, gate):
    order = []
    async with busy(pool, gate) as let_one_go:
        sent = []
        for name, priority in [("low", 0), ("middle", 1), ("high", 2)]:
            view = pool.options(priority=priority, max_concurrency=1)
            job = view.submit(jobs.echo, name)
            job.add_done_callback(lambda _, name=name: order.append(name))
            sent.append(job)
        let_one_go()
        await asyncio.gather(*sent)
    assert order == ["high", "middle", "low"]


@contextlib.asynccontextmanager
async def busy(pool, gate):
    """Keep all workers busy; gives what lets one of them go."""
    if pool._options.engine == "inline":  # nothing begins before the loop's next turn
        yield lambda: None
        return
    here, until = gate(), gate()
    held = []
    for _ in range(2):
        held.append(pool.submit(jobs.meet, str(here), str(until)))
        await here.reached()
    yield lambda: until.open(1)
    until.open()
    await asyncio.gather(*held)


@of("`timeout` and `run_timeout` stop a coroutine")
async def timeouts(pool, gate):
    for word in ("timeout", "run_timeout"):
        here, stopped = gate(), gate()
        view = pool.options(**{word: 0.2})
        with pytest.raises(JobTimeout, match=word) as caught:
            await view.run(jobs_contract.loop_asynchronously, str(here), str(stopped))
        assert caught.value.kind == word
        if here.was_reached():  # else its time was over before it began
            await stopped.reached()


@of("cancelling stops a coroutine")
async def cancels(pool, gate):
    await cancel(pool, gate, jobs_contract.loop_asynchronously)


@of("both stop Python code")
async def interrupts(pool, gate):
    await cancel(pool, gate, jobs_contract.loop)
    here, stopped = gate(), gate()
    with pytest.raises(JobTimeout):
        await pool.options(run_timeout=0.2).run(
            jobs_contract.loop, str(here), str(stopped)
        )
    if here.was_reached():
        await stopped.reached()


async def cancel(pool, gate, function):
    here, stopped = gate(), gate()
    job = pool.submit(function, str(here), str(stopped))
    await here.reached()
    job.cancel()
    await stopped.reached()
    assert job.cancelled()
    assert await pool.run(jobs.add, 1, 2) == 3


@of("both stop C code")
async def kills(pool, gate):
    here = gate()
    job = pool.options(on_cancel="kill").submit(jobs.loop_in_c, str(here))
    await here.reached()
    job.cancel()
    assert await pool.run(jobs.add, 1, 2) == 3


@of("`retry_on`")
async def retries_errors(pool, gate):
    job = pool.options(retries=1, retry_on=ValueError).submit(jobs.raise_value_error)
    with pytest.raises(ValueError, match="bad"):
        await job
    assert job.attempts == 2
    job = pool.options(retries=1).submit(jobs.raise_value_error)
    with pytest.raises(ValueError, match="bad"):
        await job
    assert job.attempts == 1


@of("`WorkerLost`, and `retries` after it")
async def losses(pool, gate):
    path = f"{gate()}-died"
    job = pool.options(retries=1).submit(jobs.die_first_time, path)
    assert await job == 2
    with pytest.raises(WorkerLost) as caught:
        await pool.run(jobs.die_by, 9)
    assert caught.value.signal == "SIGKILL"
    assert await pool.run(jobs.add, 1, 2) == 3


@of("streams with backpressure")
async def streams(pool, gate):
    assert [n async for n in pool.stream(jobs_streams.count, 300)] == list(range(300))
    stream = pool.stream(jobs_streams.count_async, 5, start=2)
    assert [n async for n in stream] == [2, 3, 4]
    parts = aiter(pool.stream(jobs_streams.fail_after, 2))
    assert [await anext(parts), await anext(parts)] == [0, 1]
    with pytest.raises(ValueError, match="after 2"):
        await anext(parts)
    asked = gate()
    async with contextlib.aclosing(
        pool.options(buffersize=2).stream(jobs_contract.endless, str(asked))
    ) as stream:
        async for part in stream:
            if part == 9:
                break
    await asked.reached()  # its `finally` ran
    stream = pool.stream(jobs_streams.with_value)
    assert [part async for part in stream] == [1]
    assert await stream.job == "the value"


@of("progress")
async def progress(pool, gate):
    job = pool.submit(jobs.report_often, 5)
    assert [update.done async for update in job.updates()][-1] == 5
    assert job.progress == (5, 5, "step 5")


@of("context variables")
async def context_variables(pool, gate):
    token = jobs_context.request.set("of the caller")
    try:
        assert await pool.run(jobs_context.see) == "of the caller"
        await pool.run(jobs_context.change, "of the job")
        assert jobs_context.request.get() == "of the caller"
        assert await pool.map(jobs_context.see, range(2)) == ["of the caller"] * 2
    finally:
        jobs_context.request.reset(token)


@of("`put`")
async def put(pool, gate):
    numpy = pytest.importorskip("numpy")
    ref = await pool.put({"table": numpy.arange(5)})
    args, kwargs = await pool.run(jobs.echo, ref, deep=[ref])
    assert args[0]["table"].sum() == 10
    assert kwargs["deep"][0]["table"].sum() == 10


@of("large arrays")
async def large_arrays(pool, gate):
    numpy = pytest.importorskip("numpy")
    sent = numpy.arange(200_000)
    (got,), _ = await pool.run(jobs.echo, sent)
    assert numpy.array_equal(got, sent)
    lent = pool.zeros(100_000, "u1")
    lent[3] = 7
    assert await pool.run(jobs.apply, sum, lent[:10]) == 7


@of("`single_flight` and `batch`")
async def gathering(pool, gate):
    path = f"{gate()}-runs"
    once = pool.options(single_flight=True)
    calls = [once.run(jobs.note_and_add, path, 1, 2) for _ in range(3)]
    assert await asyncio.gather(*calls) == [3, 3, 3]
    assert lines_of(path) == 1
    batched = pool.options(batch=Batch(max_size=3, max_wait=60))
    calls = [batched.run(jobs_contract.double_all, n) for n in range(3)]
    assert await asyncio.gather(*calls) == [0, 2, 4]


def lines_of(path):
    return len(Path(path).read_text().splitlines())


@of("`initializer`")
async def initializer(pool, gate):
    assert await pool.run(jobs.initialized) == "contract"


@of("`stats` and events")
async def stats(pool, gate):
    heard = []
    stop = pool.on("job_finished", lambda event: heard.append(event.function))
    before = pool.stats()
    await pool.run(jobs.nothing)
    with pytest.raises(ValueError, match="bad"):
        await pool.run(jobs.raise_value_error)
    after = pool.stats()
    assert after.completed - before.completed == 1
    assert after.failed - before.failed == 1
    assert after.functions["jobs.nothing"].completed >= 1
    await asyncio.sleep(0)
    stop()
    assert heard == ["jobs.nothing"]
