"""The house rules of every test: `async def` runs, and nothing is left behind.

An `async def` test runs in an event loop of its own, unless it borrows a pool
(`lending`). Marked with `loops` it runs twice, under asyncio and under uvloop. Fixtures
are plain functions: what must be opened in the loop is opened by the test with ``async
with``.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest
import zmq

import leaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# A shell makes what it runs in the background ignore Ctrl-C, and so would all programs
# that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["pytester", "gates", "lending", "worker_parent"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use half as many processes again as there are cores: tests also wait."""
    return len(os.sched_getaffinity(0)) * 3 // 2


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests in a fresh loop, or in that of the pools they borrow."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    lender = arguments.get("lend")
    if lender is not None:
        lender.run(pyfuncitem.obj(**arguments))
        return True
    factory = pyfuncitem.funcargs["loop_factory"]
    with asyncio.Runner(debug=False, loop_factory=factory) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked `loops` under each event loop."""
    if metafunc.definition.get_closest_marker("loops"):
        loops = ["asyncio", "uvloop"]
        metafunc.parametrize("loop_factory", loops, indirect=True)


@pytest.fixture(autouse=True)
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """Return what makes the event loop of this test."""
    if getattr(request, "param", "asyncio") == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        make: LoopFactory = uvloop.new_event_loop
        return make
    return asyncio.new_event_loop


@pytest.fixture(scope="session", autouse=True)
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the session, and processes that it starts, a temporary directory of its own.

    What another program leaves in the common one is then no concern of the tests. The
    name is short because the path of a Unix socket may have 107 characters only.
    """
    tmp_path_factory.getbasetemp()  # settles where `tmp_path` lives: not in here
    directory = tempfile.mkdtemp(prefix="ol-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", directory)
        patch.setenv("OFFLOOP_RUNTIME_DIR", directory)
        patch.setattr(tempfile, "tempdir", None)
        yield directory
    shutil.rmtree(directory)


@pytest.fixture
def own_runtime(runtime: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give one test a runtime directory that no other pool of the session is in."""
    directory = tempfile.mkdtemp(prefix="o", dir=runtime)
    monkeypatch.setenv("OFFLOOP_RUNTIME_DIR", directory)
    yield directory
    os.rmdir(directory)


if sys.platform == "linux":

    @pytest.fixture(scope="session", autouse=True)
    def _prepare_watch() -> None:
        """Let libraries open what they keep for good: no test is to blame for it."""
        leaks.adopt_orphans()
        zmq.Frame(bytes(100_000), copy=False)  # the first one starts a thread
        with contextlib.suppress(ImportError):
            import uvloop

            uvloop.new_event_loop().close()  # the first one opens a pipe

    @pytest.fixture(autouse=True)
    def _no_leaks(runtime: str, request: pytest.FixtureRequest) -> Iterator[None]:
        if "lend" in request.fixturenames:
            request.getfixturevalue("lend")  # what it opens is for later tests too
        before = leaks.take(runtime)
        yield
        left = leaks.find(before, runtime)
        if left:
            pytest.fail("the test left behind: " + "; ".join(left), pytrace=False)
