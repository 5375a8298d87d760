"""What is written from results: tables, the README, charts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cases
from harness import machine, readme, tables

ROOT = Path(__file__).parent.parent.parent
CASES = cases.everything()

RESULTS = {
    "form": "quick",
    "machine": {
        "date": "2026-01-02T03:04:05+00:00",
        "cores": 2,
        "cpu": "a processor",
        "memory": 2**30,
        "system": "Linux 6",
        "python": "CPython 3.11.7",
        "load": 0.1,
        "commit": "abc",
        "versions": {"loky": "3.7"},
    },
    "cases": {
        "round-trip": {
            "offloop": [{"p50": 1e-4, "p99": 2e-4}, {"p50": 1e-4, "p99": 2e-4}],
            "ProcessPoolExecutor": [{"p50": 3e-4, "p99": 2e-4}],
            "loky": [{"p50": 5e-5, "p99": 2e-3}],
            "ray": [{"cannot": "is not installed (No module)"}],
            "pyzmq_pair": [{"p50": 2e-5, "p99": 3e-5}],
        },
        "crossover": {"offloop": [{"1e-06": 2e-5}], "inline": [{"1e-06": 1e-6}]},
    },
}


def test_a_table_has_ratios_and_reasons():
    text, reasons = tables.table(CASES["round-trip"], RESULTS["cases"]["round-trip"])
    lines = text.splitlines()
    assert lines[0] == "| 2 rounds | median | p99 |"
    assert lines[2] == "| offloop | **100 µs** | **200 µs** |"
    assert lines[3] == "| ProcessPoolExecutor | 300 µs (3x) | 200 µs (1x) |"
    assert lines[5] == "| *floor: raw pyzmq PAIR* | 20 µs (0.2x) | 30 µs (0.15x) |"
    assert reasons == "- ray: is not installed (No module)"


def test_a_document_names_the_machine_and_the_versions():
    text = tables.document(RESULTS, CASES)
    assert "2 cores of a processor, 1 GB, Linux 6, CPython 3.11.7" in text
    assert "loky 3.7" in text
    assert f"## {CASES['crossover'].title}" in text


def test_the_break_even_is_where_the_lines_cross():
    case = CASES["crossover"]
    lengths = [float(metric.key) for metric in case.metrics]
    here = [{str(length): length for length in lengths}]
    there = [{str(length): 2e-5 + length / 2 for length in lengths}]
    reports = {"offloop": there, "inline": here, "never": [{}], "always": here}
    assert 3.5e-5 < tables.break_even(case, reports, "offloop") < 4.5e-5
    assert tables.break_even(case, reports, "never") is None
    assert tables.break_even(case, reports, "always") is None
    (sentence,) = tables.break_evens(case, reports)
    assert sentence.startswith("With offloop, a job is worth a call from about")


def test_the_machine_describes_itself():
    found = machine.describe()
    assert found["cores"] >= 2
    assert found["versions"]["offloop"]
    assert found["python"] in machine.sentence(found)


def test_the_readme_gets_its_figures_and_nothing_else_changes(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{readme.BEGIN} (x) -->\nold\n{readme.END}\nafter\n")
    readme.write(page, RESULTS, CASES)
    lines = page.read_text().splitlines()
    assert lines[:2] == ["before", f"{readme.BEGIN} (x) -->"]
    assert lines[-2:] == [readme.END, "after"]
    assert lines[4] == (
        "| Empty call, one at a time, 1 worker | 100 µs | 300 µs | - | 50 µs, loky |"
    )
    assert lines[5].endswith("| 20 µs | - | - | 1 µs, inline |")


def test_a_page_without_a_place_for_figures_is_an_error(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="no place for figures"):
        readme.write(page, RESULTS, CASES)


def test_the_readme_has_a_place_for_figures_and_they_are_about_real_cases():
    text = (ROOT / "README.md").read_text()
    assert readme.BEGIN in text
    assert readme.END in text
    for _, name, key in readme.LINES:
        assert key in [metric.key for metric in CASES[name].metrics]


def suite(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_charts_are_drawn_light_and_dark(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    read = suite("--from", str(tmp_path), "--into", str(tmp_path))
    assert read.returncode == 0, read.stderr
    charts = tmp_path / "2026-01-02T0304-quick" / "charts"
    made = {path.name: path.stat().st_size for path in charts.iterdir()}
    looks = [(look, kind) for look in ("light", "dark") for kind in ("svg", "png")]
    assert {f"round-trip-{look}.{kind}" for look, kind in looks} <= set(made)
    assert {f"crossover-{look}.{kind}" for look, kind in looks} <= set(made)
    assert min(made.values()) > 1000


@pytest.mark.slow
def test_the_suite_writes_results_and_reads_them_again(tmp_path):
    only = ("--only", "start", "--peers", "asyncio.to_thread")
    done = suite("--quick", *only, "--minutes", "0.001", "--into", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    results = json.loads((folder / "results.json").read_text())
    assert set(results["cases"]["start"]) == {"offloop", "asyncio.to_thread", "fork"}
    first = (folder / "tables.md").read_text()

    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    again = suite("--from", str(tmp_path), str(folder), "--into", str(tmp_path))
    assert again.returncode == 0, again.stderr
    joined = (tmp_path / "2026-01-02T0304-quick" / "tables.md").read_text()
    assert first.splitlines()[-1] in joined  # of the case that was measured here
    assert "300 µs (3x)" in joined


@pytest.mark.slow
def test_the_suite_says_what_there_is(tmp_path):
    assert "round-trip" in suite("--list").stdout
    wrong = suite("--only", "round_trip")
    assert wrong.returncode == 2
    assert "no such case: round_trip; there are round-trip, throughput" in wrong.stderr


SCRIPTS = [
    "against_executor",
    "healthz_under_load",
    "loop_lag",
    "payloads",
    "scheduler_scaling",
    "start_and_recovery",
]


@pytest.mark.slow
def test_each_script_runs_by_itself():
    commands = [[f"benchmarks/{name}.py"] for name in SCRIPTS]
    commands += [["-m", f"benchmarks.{name}"] for name in SCRIPTS]
    running = [
        subprocess.Popen(
            [sys.executable, *command, "--help"], stdout=subprocess.PIPE, cwd=ROOT
        )
        for command in commands
    ]
    assert all(b"usage" in one.communicate()[0] for one in running)
