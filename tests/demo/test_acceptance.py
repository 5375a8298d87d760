"""The acceptance tests, each with as much work as it needs to tell right from wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from demo_server import sharing


def load():
    path = Path(__file__).with_name("acceptance.py")
    spec = importlib.util.spec_from_file_location("acceptance", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


acceptance = load()

# The page has tests of its own, in a browser that they share.
SOME = {number: test for number, test in acceptance.TESTS.items() if number != 13}


@pytest.fixture(scope="module")
def on():
    with acceptance.stage() as on, sharing(on.process.pid):
        yield on


@pytest.mark.slow
@pytest.mark.parametrize("test", SOME.values(), ids=lambda test: test.__name__)
def test_what_is_promised_is_kept(on, test):
    assert test(on, full=False)
