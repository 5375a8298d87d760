"""A short storm with a seed of its own each time; ``make chaos`` is a long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).with_name("chaos.py")


@pytest.mark.slow
def test_a_storm_loses_nothing_and_leaves_nothing():
    command = [sys.executable, str(CHAOS), "--seconds", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.stderr == "", done.stdout
    assert "0 violations" in done.stdout, done.stdout
    assert done.returncode == 0
