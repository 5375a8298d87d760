"""The pytest plugin, in sessions of pytest of its own.

Each session takes as long as pytest's start, so many cases share one.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import run_page

ROOT = Path(__file__).parent.parent

PLUGINS = ("offloop.pytest_plugin", "pytest_asyncio.plugin", "anyio.pytest_plugin")


@pytest.fixture
def session(pytester, monkeypatch):
    """Run files in a session that has the plugin, and no others than it needs."""
    for plugin in PLUGINS[1:]:
        pytest.importorskip(plugin.partition(".")[0])
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("OFFLOOP_ENGINE", raising=False)
    pytester.makeini(
        "[pytest]\n"
        "filterwarnings = error\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )

    def run(*arguments, **files):
        pytester.makepyfile(**files)
        plugins = [word for plugin in PLUGINS for word in ("-p", plugin)]
        return pytester.runpytest_subprocess(*plugins, "--strict-markers", *arguments)

    return run


LOOPS = """
    import asyncio, os
    import pytest
    import offloop
    from offloop import offload

    @offload
    def pid():
        return os.getpid()

    def test_a_plain_test(offloop_pool):
        async def main():
            one = await offloop_pool.run(os.getpid)
            assert one != os.getpid()
            assert offloop_pool.stats().workers >= 1
            assert await pid() in {worker.pid for worker in offloop_pool.workers()}
        asyncio.run(main())
        asyncio.run(main_again())
        with pytest.raises(offloop.errors.PoolClosed):
            asyncio.run(offloop_pool.run(abs, 1))

    async def main_again():
        assert await pid.options(timeout=60)() != os.getpid()

    @pytest.mark.asyncio
    @pytest.mark.offloop(max_workers=1, name="mine")
    async def test_pytest_asyncio(offloop_pool):
        first = await pid()
        await offloop_pool.ready()
        assert [worker.pid for worker in offloop_pool.workers()] == [first]
        assert "'mine' max_workers=1" in repr(offloop_pool)

    @pytest.mark.offloop(max_workers=3)
    class TestMarked:
        pool = None

        @pytest.mark.asyncio(loop_scope="module")
        async def test_its_loop_goes_on(self, offloop_pool):
            TestMarked.pool = offloop_pool
            await pid()
            assert "max_workers=3" in repr(offloop_pool)

        @pytest.mark.asyncio(loop_scope="module")
        @pytest.mark.offloop(max_workers=1)
        async def test_and_the_pool_does_not(self, offloop_pool):
            assert not TestMarked.pool.is_open
            assert "max_workers=1" in repr(offloop_pool)
            job = offloop_pool.submit(abs, -1)      # nobody waits for it

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_anyio(offloop_pool, anyio_backend):
        async with offloop_pool:
            assert await offloop_pool.run(os.getpid) != os.getpid()

    def test_inline(offloop_inline):
        async def main():
            assert await pid() == os.getpid()
            assert await offloop_inline.run(os.getpid) == os.getpid()
        asyncio.run(main())
        with offloop.Executor() as executor:
            assert executor.submit(os.getpid).result() == os.getpid()

    def test_what_is_not_used_does_not_start(offloop_pool):
        assert not offloop_pool.is_open
        assert "OFFLOOP_ENGINE" not in os.environ
        assert "max_workers=2" in repr(offloop_pool)
        offloop.configure(max_workers=7)

    @pytest.mark.offloop(timeout=60)
    def test_options_are_those_of_default_pools():
        from offloop import default_pools
        assert default_pools.options() == {"max_workers": 7, "timeout": 60}
        offloop.configure()

    def test_and_they_go_with_the_test():
        from offloop import default_pools
        assert default_pools.options() == {"max_workers": 7}
"""


@pytest.mark.slow
def test_fixtures_work_in_every_kind_of_loop_and_on_the_page(session):
    page = "\n".join(run_page.blocks((ROOT / "docs/testing.md").read_text()))
    outcome = session(test_loops=LOOPS, test_page=page)
    outcome.assert_outcomes(passed=14)


LEAKS = """
    import asyncio, gc
    import pytest
    import offloop
    from offloop import Executor, Pool, offload

    kept = []
    loop = asyncio.new_event_loop()

    async def opened(**options):
        pool = await Pool(max_workers=1, name="kept", **options).start()
        kept.append(pool)
        return pool

    def test_clean_without_offloop():
        pass

    def test_a_pool_whose_loop_stands_still():
        loop.run_until_complete(opened())

    def test_it_was_ended():
        assert not kept.pop().is_open

    def test_an_executor():
        kept.append(Executor(max_workers=1, name="own"))
        assert kept[-1].submit(abs, -1).result() == 1

    def test_it_was_shut_down():
        with pytest.raises(offloop.errors.PoolClosed):
            kept.pop().submit(abs, -1)

    def test_an_executor_that_nobody_holds_ends():
        executor = Executor(max_workers=1)
        executor.cycle = [executor]
        executor.submit(abs, -1).result()

    def test_shared_memory():
        async def main():
            async with Pool(max_workers=1) as pool:
                kept.append(await pool.run(bytearray, 1_000_000))
                kept.append(pool.empty(1_000_000, "uint8"))
        asyncio.run(main())

    def test_a_process_without_a_pool():
        kept.clear()
        pool = loop.run_until_complete(opened(engine="local"))
        from offloop import lifecycle
        kept.append(pool)
        lifecycle._started.discard(pool)

    def test_a_test_that_fails_anyway():
        loop.run_until_complete(opened())
        raise AssertionError("its own")

    @pytest.mark.offloop(allow_leaks=True)
    def test_what_is_allowed():
        while kept:
            loop.run_until_complete(kept.pop().close())
        loop.run_until_complete(opened(engine="inline"))

    def test_and_then_is_nobodys_fault():
        loop.run_until_complete(kept.pop().close())

    @pytest.fixture(scope="module")
    def wide():
        pool = loop.run_until_complete(opened(engine="inline"))
        yield pool
        loop.run_until_complete(pool.close())
        loop.close()

    def test_a_wider_fixture(wide):
        assert loop.run_until_complete(wide.run(abs, -1)) == 1

    def test_beside_a_wider_fixture(wide):
        loop.run_until_complete(opened(engine="inline"))

    @pytest.mark.offloop(processes=3)
    def test_a_wrong_word():
        pass

    @pytest.mark.offloop(3)
    def test_a_wrong_use():
        pass
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_test_that_leaves_something_behind_fails(session):
    outcome = session("-v", test_leaks=LEAKS)
    outcome.stdout.no_fnmatch_line("*its own*left behind*")
    failed = [
        line.split()[1].rpartition("::")[2]
        for line in outcome.outlines
        if line.startswith("ERROR ")
    ]
    assert failed == [
        "test_a_pool_whose_loop_stands_still",
        "test_an_executor",
        "test_shared_memory",
        "test_a_process_without_a_pool",
        "test_beside_a_wider_fixture",
        "test_a_wrong_word",
        "test_a_wrong_use",
    ]
    outcome.stdout.fnmatch_lines(
        [
            "*left behind: <Pool 'kept' max_workers=1 open>, which was not closed*",
            "*left behind: executor 'own', which was not shut down*",
            "*left behind: shared memory of a pool that is gone or closed*",
            "*left behind: process *",
            "*left behind: <Pool 'kept' max_workers=1 open>*",
            "*'processes'*max_workers*",
            "*takes options by name*",
        ]
    )


def test_a_wrong_setting_is_refused(session):
    outcome = session("-o", "offloop_leaks=perhaps", test_none="")
    outcome.stderr.fnmatch_lines(["*offloop_leaks is 'perhaps'*"])


def test_it_brings_nothing_along():
    script = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import offloop.pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    ours = {name for name in loaded if name.startswith("offloop")}
    assert ours == {"offloop", "offloop.pytest_plugin", "offloop.remains"}
    assert {"zmq", "cloudpickle", "numpy"}.isdisjoint(loaded)


def test_pytest_finds_it_by_the_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = project["entry-points"]["pytest11"]["offloop"]
    assert import_module(name).offloop_pool is not None
