"""A short form of hostile.py: all kinds of requests, each with its own answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_request_of_any_kind_harms_the_server():
    path = Path(__file__).with_name("hostile.py")
    spec = importlib.util.spec_from_file_location("hostile", path)
    hostile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hostile)
    seen, wrong, _ = hostile.run(400)
    assert wrong == []
    assert {kind for kind, _ in seen} == {*hostile.KINDS}
