"""A short storm with a seed of its own each time; ``make chaos`` is a long one."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

CHAOS = Path(__file__).with_name("chaos.py")
MB = 1_000_000


@pytest.mark.slow
def test_a_storm_loses_nothing_and_leaves_nothing():
    command = [sys.executable, str(CHAOS), "--seconds", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.stderr == "", done.stdout
    assert "0 violations" in done.stdout, done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("kept", "grown", "wrong"),
    [
        (0.0, 0, []),
        (0.01, 8 * MB, []),
        (0.2, 0, ["20,000 pieces of memory have stayed"]),  # one of every fifth job
        (0.0, 40 * MB, ["it grew"]),  # what C code keeps
    ],
)
def test_a_program_that_grows_is_noticed(tmp_path, kept, grown, wrong):
    spec = spec_from_file_location("chaos", CHAOS)
    chaos = module_from_spec(spec)
    sys.modules["chaos"] = chaos  # where its dataclasses look for their names
    spec.loader.exec_module(chaos)
    storm = chaos.Storm(1, str(tmp_path), 0.0, 0)
    for at in range(200):
        jobs = 1000 * at
        noise = MB * (at % 7)
        own = 50 * MB + noise + grown * at // 100
        blocks = 100_000 + 100 * (at % 5) + int(kept * jobs)
        storm.weights.append(chaos.Weight(jobs, own, 40 * MB, blocks))
    storm.check_size()
    assert storm.wrong == wrong
    del sys.modules["chaos"]
