"""The table of figures in the README: the few that matter most, with the best peer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.figures import middle, readable
from harness.tables import figure, is_limit, row

if TYPE_CHECKING:
    from pathlib import Path

    from harness.figures import Case, Metric

BEGIN, END = "<!-- figures: begin", "<!-- figures: end -->"

#: what stands in the table: the words, the case, and its figure
LINES = (
    ("Empty call, one at a time, 1 worker", "round-trip", "p50"),
    ("Empty calls a second, 64 in flight, {cores} workers", "throughput", "many"),
    ("`map` of 100,000 small items, items a second", "map", "rate"),
    ("Jobs of 2 ms, 64 in flight: share of ideal", "short-jobs", "share"),
    ("An array of 128 MB to a worker, and its sum back", "array-in", "134217728"),
    ("Images a second over HTTP, all cores", "images", "rate"),
    ("`/healthz` meanwhile, p99", "images", "p99"),
    ("From nothing to the first result", "start", "first"),
    ("From the kill of a busy worker to the next result", "recovery", "next"),
    ("Memory of one more idle worker", "memory", "worker"),
    ("**Not worth a call**: a job of 1 µs, 64 in flight", "crossover", "1e-06"),
)
FIXED = ("offloop", "ProcessPoolExecutor", "asyncio.to_thread")


def write(readme: Path, results: dict, cases: dict[str, Case]) -> None:
    """Put the table between the marks.

    Raises:
        ValueError: there are no marks.
    """
    text = readme.read_text()
    pattern = re.compile(f"({re.escape(BEGIN)}[^\n]*\n).*?({re.escape(END)})", re.S)
    if not pattern.search(text):
        raise ValueError(f"{readme} has no place for figures: {BEGIN} ... {END}")
    lines = table(results, cases)
    readme.write_text(pattern.sub(lambda m: m[1] + lines + m[2], text))


def table(results: dict, cases: dict[str, Case]) -> str:
    about = results["machine"]
    python = about["python"].rpartition(".")[0]
    heads = [f"{about['cores']} cores, {python}, {about['date'][:10]}", *FIXED]
    lines = [row([*heads, "best other"]), row(["---"] * 5)]
    for words, name, key in LINES:
        if name not in results["cases"]:
            continue
        case = cases[name]
        metric = next(metric for metric in case.metrics if metric.key == key)
        texts = [short(figure(results, case, metric, who)) for who in FIXED]
        best = best_other(metric, results["cases"][name])
        lines.append(row([words.format(cores=about["cores"]), *texts, best]))
    return "\n".join(lines) + "\n"


def short(text: str) -> str:
    """Return a reason in so few words that it fits into a cell."""
    return re.split(r"[(:]", text)[0].strip()


def best_other(metric: Metric, reports: dict[str, list[dict]]) -> str:
    """Return the best of those that have no column of their own, with its name."""
    found = {
        name: value
        for name, rounds in reports.items()
        if isinstance(value := middle(rounds, metric.key), (int, float))
        and not name.startswith("offloop")
        and name not in FIXED
        and not is_limit(name)
    }
    if not found:
        return "-"
    best = (min if metric.less_is_better else max)(found, key=found.__getitem__)
    return f"{readable(found[best], metric.unit)}, {best}"
