"""The types that users see. Never run: mypy and pyright check it.

A line that ends in ``type: ignore`` must be an error: both checkers report an ignore
that is not needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Sequence,
)
from concurrent.futures import Future
from contextlib import aclosing
from datetime import timedelta
from typing import Any, assert_type

import offloop
from offloop import (
    Batch,
    Executor,
    Job,
    JobContext,
    LoopWatch,
    Offloaded,
    Pool,
    PoolStats,
    Recycle,
    Results,
    Stream,
    configure,
    current_job,
    offload,
    watch_loop,
)
from offloop.telemetry import Durations, FunctionStats, WorkerInfo

# --- @offload -------------------------------------------------------------------------


@offload
def scale(data: bytes, width: int, *, quality: float = 0.8) -> bytes:
    return data[:width] * int(quality)


@offload(
    timeout=5,
    run_timeout=timedelta(seconds=2),
    priority=1,
    key="tenant",
    max_concurrency=2,
    retries=2,
    retry_on=(ConnectionError, OSError),
    on_full="wait",
    on_cancel="stop",
)
def count(text: str) -> int:
    return len(text)


@offload
async def fetch(url: str, attempts: int = 3) -> dict[str, str]:
    await asyncio.sleep(attempts)
    return {url: ""}


def plain(number: int, label: str = "") -> list[str]:
    return [label] * number


async def plain_async(number: int) -> complex:
    return complex(number)


@offload
def tokens(prompt: str, most: int = 8) -> Iterator[str]:
    yield from prompt.split()[:most]


@offload(timeout=30, buffersize=8)
async def pages(url: str) -> AsyncIterator[bytes]:
    yield url.encode()


def lines(path: str) -> Generator[str, None, int]:
    yield path
    return 1


class Model:
    @offload
    def words(self, text: str) -> Iterator[str]:
        yield text

    @offload
    def predict(self, features: list[float]) -> float:
        return sum(features)

    @offload(priority=3)
    async def explain(self, features: list[float]) -> str:
        return str(features)

    @staticmethod
    @offload
    def load(path: str) -> Model:
        return Model()

    def size(self, unit: str) -> int:
        return len(unit)


async def decorated_functions() -> None:
    assert_type(await scale(b"", 4), bytes)
    assert_type(await scale(b"", width=4, quality=0.5), bytes)
    assert_type(await count("text"), int)
    assert_type(await fetch("url"), dict[str, str])

    assert_type(scale.submit(b"", 4), Job[bytes])
    assert_type(await scale.submit(b"", 4), bytes)
    assert_type(await fetch.submit("url", attempts=1), dict[str, str])

    assert_type(scale.local(b"", 4), Any)  # a coroutine, for an async function
    assert_type(scale.map([b""], [4]), Results[bytes])
    async for length in count.map(["a", "bc"]):
        assert_type(length, int)

    await scale(b"")  # type: ignore[call-arg]
    await scale("", 4)  # type: ignore[arg-type]
    await scale(b"", 4, quality="high")  # type: ignore[arg-type]
    await scale(b"", 4, timeout=1)  # type: ignore[call-arg]
    scale.submit(b"", "4")  # type: ignore[arg-type]
    scale.local(4)  # type: ignore


async def offloaded_generators() -> None:
    assert_type(tokens("a b"), AsyncGenerator[str, None])
    async for token in tokens("a b", most=1):
        assert_type(token, str)
    async for page in pages("url"):
        assert_type(page, bytes)
    async for word in Model().words("text"):
        assert_type(word, str)
    stream = tokens.stream("a b")
    assert_type(stream, Stream[str])
    assert_type(stream.job, Job[Any] | None)
    assert_type(await anext(stream), str)
    await stream.aclose()
    assert_type(tokens.local("a"), Any)
    async for token in tokens.options(timeout=1)("a"):
        assert_type(token, str)

    tokens(1)  # type: ignore[arg-type]
    await tokens("a")  # type: ignore[misc]
    tokens.submit("a")  # type: ignore[attr-defined]
    tokens.map(["a"])  # type: ignore[attr-defined]


async def shown(pool: Pool, job: Job[int], jobs: list[Job[int]]) -> None:
    async for text in offloop.progress(pool.map(len, ["a"]), total=1):
        assert_type(text, int)
    async for token in offloop.progress(pool.stream(tokens, "a"), bar="off"):
        assert_type(token, str)
    assert_type(await offloop.progress(job, description="counting"), int)
    async for ended in offloop.progress(jobs):
        assert_type(ended, Job[int])


async def streams(pool: Pool) -> None:
    assert_type(pool.stream(lines, "path"), Stream[str])
    async for line in pool.stream(lines, path="path"):
        assert_type(line, str)
    async for token in pool.options(buffersize=1).stream(tokens, "a b"):
        assert_type(token, str)
    async with aclosing(pool.stream(lines, "path")) as stream:
        assert_type(await anext(stream), str)

    pool.stream(lines, 1)  # type: ignore[arg-type]
    pool.stream(plain, 1)  # type: ignore[arg-type]


async def decorated_functions_are_coroutine_functions() -> None:
    endpoint: Callable[[str], Coroutine[Any, Any, int]] = count
    assert_type(await endpoint("text"), int)
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(count("text")), asyncio.Task[int])
    both = await asyncio.gather(count("text"), scale(b"", 1))
    assert_type(both, tuple[int, bytes])


async def options_of_a_function_keep_its_type() -> None:
    fast = scale.options(timeout=0.5, priority=10)
    assert_type(await fast(b"", 4), bytes)
    assert_type(fast.submit(b"", 4), Job[bytes])
    await fast("", 4)  # type: ignore[arg-type]
    scale.options(timeout="soon")  # type: ignore[arg-type]
    scale.options(n_jobs=4)  # type: ignore[call-arg]
    offload(on_full="explode")  # type: ignore
    offload(retry_on=(ValueError(),))  # type: ignore


@offload(batch=Batch(max_size=8), priority=1)
def embed(texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


@offload(batch=Batch())
async def look_up(numbers: Sequence[int]) -> list[str | Exception]:
    return [str(n) if n else ValueError("none") for n in numbers]


@offload(batch=None, timeout=3)
def unbatched(texts: list[str]) -> list[float]:
    return [0.0 for _ in texts]


async def functions_that_are_called_together_are_called_with_one_item() -> None:
    assert_type(await embed("text"), float)
    assert_type(await look_up(3), str)
    assert_type(await embed.options(timeout=3)("text"), float)
    assert_type(await embed.options(batch=None)(["text"]), list[float])
    assert_type(await unbatched(["text"]), list[float])
    endpoint: Callable[[str], Coroutine[Any, Any, float]] = embed
    await endpoint("text")
    await embed(["text"])  # type: ignore[arg-type]
    await embed(3)  # type: ignore[arg-type]
    embed.submit("text")  # type: ignore[attr-defined]
    offload(batch=Batch(), n_jobs=3)  # type: ignore


async def methods() -> None:
    model = Model()
    assert_type(await model.predict([1.0]), float)
    assert_type(await model.explain([1.0]), str)
    assert_type(await Model.load("path"), Model)
    assert_type(Model.predict.submit(model, [1.0]), Job[float])
    model.predict.submit([1.0])  # type: ignore[attr-defined]
    await model.predict("features")  # type: ignore[arg-type]
    await model.predict()  # type: ignore[call-arg]


# --- Pool -----------------------------------------------------------------------------


async def pool_with_functions(pool: Pool) -> None:
    assert_type(pool.submit(plain, 3), Job[list[str]])
    assert_type(await pool.submit(plain, 3, label="x"), list[str])
    assert_type(await pool.run(plain, 3), list[str])
    assert_type(pool.map(plain, [1, 2]), Results[list[str]])
    assert_type(await pool.map(plain, [1, 2]), list[list[str]])
    async for part in pool.map(plain, [1, 2], ["a", "b"]):
        assert_type(part, list[str])

    assert_type(await pool.run(Model().size, "MB"), int)
    assert_type(await pool.run(Model), Model)

    pool.submit(plain)  # type: ignore
    pool.submit(plain, "3")  # type: ignore
    pool.submit(plain, 3, timeout=1)  # type: ignore
    await pool.run(plain, 3, 4)  # type: ignore
    pool.submit(4)  # type: ignore


async def pool_with_async_functions(pool: Pool) -> None:
    assert_type(pool.submit(plain_async, 3), Job[complex])
    assert_type(await pool.run(plain_async, 3), complex)
    assert_type(pool.map(plain_async, [1]), Results[complex])
    await pool.run(plain_async, "3")  # type: ignore


async def pool_with_decorated_functions(pool: Pool) -> None:
    assert_type(await pool.run(count, "text"), int)
    assert_type(pool.submit(fetch, "url"), Job[dict[str, str]])


async def options_of_a_pool(pool: Pool) -> None:
    fast = pool.options(priority=10, timeout=0.5, on_cancel="kill")
    assert_type(fast.submit(plain, 3), Job[list[str]])
    assert_type(await fast.run(plain_async, 3), complex)
    assert_type(fast.map(plain, [1]), Results[list[str]])
    pool.options(timeout="soon")  # type: ignore[arg-type]
    pool.options(on_full="explode")  # type: ignore[arg-type]


async def life_of_a_pool() -> None:
    async with Pool(max_workers=2, preload=["json"], timeout=5) as pool:
        assert_type(pool, Pool)
        await pool.ready()
        assert_type(pool.stats(), PoolStats)
        assert_type(pool.stats().functions["sum"], FunctionStats)
        assert_type(pool.stats().functions["sum"].run, Durations)
        assert_type(pool.workers(), list[WorkerInfo])
        assert_type(watch_loop(on_blocked=lambda blocked: blocked.where), LoopWatch)
        await pool.resize(4)
        await pool.drain()
    configure(max_workers=2)
    Pool(max_workers="2")  # type: ignore[arg-type]
    Pool(processes=2)  # type: ignore[arg-type]


# --- Job and context ------------------------------------------------------------------


async def jobs(pool: Pool) -> None:
    job = pool.submit(plain, 3)
    future: asyncio.Future[list[str]] = job
    assert_type(await asyncio.wait_for(job, 1), list[str])
    assert_type(job.result(), list[str])
    assert_type(job.id, int)
    assert_type(job.state, str)
    assert_type(job.attempts, int)
    assert_type(job.worker, int | None)
    assert_type(job.timings.run, float)
    assert_type(job.cancel(), bool)
    await future


def inside_a_job() -> None:
    context = current_job()
    assert_type(context, JobContext)
    assert_type(context.deadline, float | None)
    assert_type(context.attempt, int)
    assert_type(context.cancelled, bool)


def other_names(offloaded: Offloaded[[int], str]) -> None:
    assert_type(offloaded.local(1), Any)
    assert_type(Recycle(max_jobs=100), Recycle)
    assert_type(offloop.__version__, str)


# --- Executor -------------------------------------------------------------------------


def executor() -> None:
    with Executor(2, timeout=timedelta(seconds=3)) as executor:
        assert_type(executor.submit(plain, 3, label="x"), Future[list[str]])
        executor.submit(plain, "3")  # type: ignore
        executor.submit(plain, 3, colour="x")  # type: ignore
        for words in executor.map(plain, [1, 2], timeout=3, buffersize=4):
            assert_type(words, list[str])
    Executor(processes=3)  # type: ignore
