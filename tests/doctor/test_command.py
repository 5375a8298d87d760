"""``offloop doctor`` as people run it."""

from __future__ import annotations

import json

import pytest

from offloop.doctor import facts, measures
from offloop.doctor.command import doctor
from offloop.errors import StartError


@pytest.fixture
def run(monkeypatch):
    """Run the command and return its exit code and what it printed."""
    testing = pytest.importorskip("click.testing")
    monkeypatch.delenv("OFFLOOP_ENGINE", raising=False)
    monkeypatch.setenv("OFFLOOP_MAX_WORKERS", "1")

    def run_it(*words):
        done = testing.CliRunner().invoke(doctor, words)
        return done.exit_code, done.output

    return run_it


@pytest.mark.slow
def test_it_measures_this_machine(run, monkeypatch):
    measure = measures.measure
    monkeypatch.setattr(measures, "measure", lambda: measure(0.05))
    code, said = run("--json")
    told = json.loads(said)
    assert (code, told["ok"]) == (0, True)
    figures = told["measures"]
    assert figures["engine"] == "local"
    assert 0 < figures["round_trip"] <= figures["round_trip_p99"]
    assert all(figures[name] > 0 for name in ("calls", "copy_in", "copy_out"))
    assert figures["round_trip"] < figures["first_result"]
    assert told["facts"]["workers"] == 1


def test_without_measures_it_tells_what_it_has_read(run):
    code, said = run("--no-measure")
    assert code == 0
    assert "workers  1 in a pool" in said
    assert "set  OFFLOOP_MAX_WORKERS=1" in said
    assert "empty call" not in said


def test_inline_jobs_are_measured_too(run, monkeypatch):
    monkeypatch.setenv("OFFLOOP_ENGINE", "inline")
    measure = measures.measure
    monkeypatch.setattr(measures, "measure", lambda: measure(0.01))
    code, said = run()
    assert code == 0
    assert "64 in flight" in said
    assert "OFFLOOP_ENGINE=inline: all pools" in said


def test_a_pool_that_does_not_start_is_bad(run, monkeypatch):
    async def none():
        raise StartError("no worker could start")

    monkeypatch.setattr(measures, "measure", none)
    code, said = run()
    assert code == 1
    assert "bad  a pool does not work: no worker could start" in said
    code, said = run("--json")
    assert (code, json.loads(said)["ok"]) == (1, False)


def test_what_to_do_is_said_too(run, monkeypatch):
    fit = facts.gather()
    monkeypatch.setattr(
        facts, "gather", lambda: facts.Facts(system="Linux 6", open_files=9, memory=1)
    )
    code, said = run("--no-measure")
    assert code == 1
    assert "do: ulimit -n 1024" in said
    assert fit.open_files != 9
