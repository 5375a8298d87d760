"""All engines keep the same contract, and the table of the documentation tells it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile

import pytest

import jobs
import leaks
from engines import contract
from offloop import Pool
from offloop import runtime as home
from offloop.cluster.coordinate import PoolSettings, open_coordinator
from offloop.errors import UsageError

ENGINES = ["inline", "thread", "local", "shared"]


@pytest.fixture(autouse=True)
def _no_leaks():
    """Let the pool have what it has: all of it is looked at when it is closed."""


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, runtime):
    """An open pool of one engine for all checks, with the loop that it lives in."""
    before = leaks.take(runtime)
    directory = tempfile.mkdtemp(prefix="e", dir=runtime)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFLOOP_RUNTIME_DIR", directory)
        patch.delenv("OFFLOOP_ENGINE", raising=False)
        with asyncio.Runner() as runner:
            stack = contextlib.AsyncExitStack()
            pool = runner.run(opened(request.param, stack))
            yield runner, pool
            runner.run(stack.aclose())
    os.rmdir(directory)
    assert leaks.find(before, runtime) == []


async def opened(engine, stack):
    options = dict(contract.OPTIONS)
    if engine == "shared":
        settings = PoolSettings(compute=2)
        place = home.make_home(settings.name)
        await stack.enter_async_context(open_coordinator(settings, place))
    else:
        options |= {"initializer": jobs.initialize, "initargs": ("contract",)}
    pool = Pool(2, engine=engine, **options)
    await stack.enter_async_context(pool)
    await pool.ready()
    return pool


@pytest.mark.slow
@pytest.mark.parametrize("line", contract.CHECKS)
def test_the_engine_does_what_the_table_says(engine, line, gate):
    runner, pool = engine
    said = contract.table()[pool._options.engine][line]
    if said.startswith("no"):
        return
    check = contract.CHECKS[line](pool, gate)
    if said.startswith("refused"):
        with pytest.raises(UsageError):
            runner.run(check)
    else:
        assert said.startswith("yes")
        runner.run(check)
    assert pool.stats().pending == 0


def test_the_table_has_all_checks_and_no_others():
    for lines in contract.table().values():
        assert list(lines) == list(contract.CHECKS)
