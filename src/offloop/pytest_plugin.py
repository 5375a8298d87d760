"""For pytest: pools as fixtures, and no test that leaves something of offloop behind.

It works with `async def` tests of pytest-asyncio and of anyio, and with plain ones that
call `asyncio.run`. pytest loads it in every session of an environment where offloop is
installed, so it imports nothing before a test needs it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from offloop.remains import Watch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from offloop.pool import Pool

_LEAKS = ("fail", "ignore")

_watch = pytest.StashKey[Watch]()
_options = pytest.StashKey[contextlib.ExitStack]()
_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `offloop_leaks`."""
    parser.addini(
        "offloop_leaks",
        'what to do when a test leaves a pool or its processes behind: "fail" or '
        '"ignore"',
        default="fail",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the setting, and tell of the marker."""
    leaks = config.getini("offloop_leaks")
    if leaks not in _LEAKS:
        raise pytest.UsageError(f"offloop_leaks is {leaks!r}, not one of {_LEAKS}")
    config.addinivalue_line(
        "markers",
        "offloop(allow_leaks=False, **options): options of `offloop.Pool` for the "
        "pools of this test's fixtures and `@offload` functions",
    )


@pytest.fixture
def offloop_pool() -> Iterator[Pool]:
    """Give a pool of this test, which its `@offload` functions use too.

    It has two workers, or what the marker `offloop` says. It starts with the first call
    in any event loop, and ends with the test.
    """
    from offloop.testing import pool_for_test

    with pool_for_test() as pool:
        yield pool


@pytest.fixture
def offloop_inline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Have all jobs of this test run in its own process, whatever their pool.

    It is a pool as `offloop_pool` is. Coverage, breakpoints and mocks reach the jobs.
    """
    monkeypatch.setenv("OFFLOOP_ENGINE", "inline")
    from offloop.testing import pool_for_test

    with pool_for_test() as pool:
        yield pool


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Note what there is before the test, and set the options that its marker has."""
    trouble: Exception | None = None
    try:
        _prepare(item)
    except Exception as error:  # raised before its time, it would upset other plugins
        trouble = error
    yield
    if trouble is not None:
        raise trouble


def _prepare(item: pytest.Item) -> None:
    words = _marked(item)
    allowed = words.pop("allow_leaks", False)
    if not allowed and item.config.getini("offloop_leaks") == "fail":
        item.config.stash[_watch] = Watch()
    if words:
        from offloop import default_pools

        with contextlib.ExitStack() as stack:
            stack.enter_context(default_pools.changed(words))
            item.stash[_options] = stack.pop_all()


def _marked(item: pytest.Item) -> dict[str, Any]:
    """Return the words of all markers of a test; the nearest has the last word."""
    words: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("offloop"))):
        if marker.args:
            raise pytest.UsageError(
                f"the marker `offloop` takes options by name, as in "
                f"offloop(max_workers=1), and not {marker.args}"
            )
        words.update(marker.kwargs)
    return words


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Excuse pools that a fixture of several tests opens."""
    watch = request.config.stash.get(_watch, None)
    if watch is None or fixturedef.scope == "function":
        return (yield)
    with watch.allowing():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether the test has failed."""
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail the test if something is there that was not, when all fixtures have ended.

    What a test leaves that has failed anyway is ended without a word: its traceback
    holds what it was working with.
    """
    try:
        yield
    except BaseException:
        item.stash[_failed] = True
        raise
    finally:
        if _options in item.stash:
            item.stash[_options].close()
        watch = item.config.stash.get(_watch, None)
        if watch is not None:
            del item.config.stash[_watch]
            _judge(item, watch.left())


def _judge(item: pytest.Item, left: list[str]) -> None:
    if left and not item.stash.get(_failed, False):
        pytest.fail("the test left behind: " + "; ".join(left), pytrace=False)
