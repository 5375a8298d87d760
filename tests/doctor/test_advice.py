"""What the doctor says of machines that are fit, and of others. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offloop.doctor.advice import judge
from offloop.doctor.facts import Facts
from offloop.doctor.measures import Measures

GIB = 1 << 30

FIT = Facts(
    python="CPython 3.13.0",
    system="Linux 6.8",
    cores=8,
    affinity=8,
    workers=7,
    load=0.5,
    memory=16 * GIB,
    available=8 * GIB,
    open_files=1024,
    sockets="/tmp",
)

QUICK = Measures("local", 0.2, 120e-6, 300e-6, 100_000, 3 * GIB, 2 * GIB, 0.002)


def levels(facts, measures=None):
    return [finding.level for finding in judge(facts, measures)]


def test_a_machine_that_is_fit_needs_nothing():
    assert judge(FIT, None) == []


def test_it_says_what_work_is_worth_a_call():
    (finding,) = judge(FIT, QUICK)
    assert finding.level == "note"
    assert "costs 120 µs here: work of 1.2 ms and more" in finding.what


@pytest.mark.parametrize(
    ("change", "level", "what", "cure"),
    [
        ({"system": "Darwin 23"}, "note", "Darwin is not tested", ""),
        ({"pidfd": False}, "bad", "cannot be watched", "Linux 5.3"),
        ({"gil": False}, "note", "without a global lock", ""),
        ({"sockets_trouble": "no directory"}, "bad", "no dir", "OFFLOOP_RUNTIME_DIR"),
        ({"quota": 0.5, "workers": 1}, "warning", "0.5 of a core", "2 or more"),
        ({"quota": 4.0, "throttled": 0.3}, "warning", "in 30% of all", "quota"),
        ({"affinity": 1, "workers": 1}, "note", "one core", ""),
        ({"workers": 20}, "warning", "20 workers on 8 cores", "OFFLOOP_MAX_WORKERS"),
        ({"load": 20.0}, "warning", "20.0 processes want", "quiet machine"),
        ({"memory": GIB, "available": GIB}, "warning", "128 MiB for each", "fewer"),
        ({"available": GIB}, "warning", "1 GiB of memory are free", "who has it"),
        ({"memfd": False}, "note", "go through files", ""),
        ({"address_space": GIB}, "warning", "map 1 GiB", "ulimit -v"),
        ({"open_files": 100}, "bad", "open 100 files", "ulimit -n 1024"),
        ({"processes": 9}, "bad", "9 more processes", "pids.max"),
        ({"variables": {"OFFLOOP_ENGINE": "inline"}}, "note", "=inline", "unset"),
        ({"variables": {"OMP_NUM_THREADS": "8"}}, "warning", "many threads", "unset"),
    ],
)
def test_each_trouble_has_a_finding_and_a_cure(change, level, what, cure):
    findings = judge(replace(FIT, **change), None)
    named = [finding for finding in findings if what in finding.what]
    assert [finding.level for finding in named] == [level]
    assert cure in named[0].cure
    assert bool(named[0].cure) == (level != "note" or bool(cure))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"round_trip": 2e-3}, "takes 2 ms"),
        ({"first_result": 3.0}, "after 3 s"),
        ({"copy_out": 100 << 20}, "100 MiB a second"),
        ({"copy_in": 900 * 1024}, "900 KiB a second"),
    ],
)
def test_slow_calls_are_noticed(change, what):
    findings = judge(FIT, replace(QUICK, **change))
    assert findings[0].level == "warning"
    assert what in findings[0].what


def test_another_engine_is_not_judged_by_figures_of_workers():
    assert levels(FIT, replace(QUICK, engine="inline", round_trip=1.0)) == []


def test_the_worst_comes_first():
    facts = replace(FIT, gil=False, load=20.0, open_files=10)
    assert levels(facts) == ["bad", "warning", "note"]
