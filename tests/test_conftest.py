"""The house rules of the tests themselves: how `async def` tests run."""

from __future__ import annotations

import asyncio

import pytest

seen_loops = []


async def test_an_async_test_runs_in_a_loop():
    assert isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)


async def test_the_loop_does_not_debug():
    assert asyncio.get_running_loop().get_debug() is False


async def test_an_async_test_may_use_fixtures(tmp_path, capsys):
    print(tmp_path.exists())
    assert capsys.readouterr().out == "True\n"


@pytest.mark.parametrize("word", ["one", "two"])
async def test_an_async_test_may_have_parameters(word):
    assert word in ("one", "two")


@pytest.mark.loops
async def test_a_test_for_all_loops_runs_in_each():
    seen_loops.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])


def test_each_loop_was_seen():
    assert seen_loops == ["asyncio", "uvloop"]
