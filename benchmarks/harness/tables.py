"""Writes results as Markdown."""

from __future__ import annotations

import math
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from harness import machine
from harness.figures import Metric, middle, ratio, readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.figures import Case

OURS = "offloop"


def document(results: dict, cases: dict[str, Case]) -> str:
    """Return all tables, and what is to be known about them."""
    about = results["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in sorted(about["versions"].items()))
    parts = [
        f"# Results of {about['date'][:10]}, {results['form']} form",
        f"{machine.sentence(about)}. Load before it began: {about['load']:.1f}.",
        f"Versions: {versions}.",
        "In parentheses: how many times better offloop is, the median of the ratios of "
        "each round; below 1, it is worse.",
    ]
    for name, reports in results["cases"].items():
        parts += [f"## {cases[name].title}", *table(cases[name], reports)]
        if name == "crossover":
            parts += break_evens(cases[name], reports)
    return "\n\n".join(parts) + "\n"


def table(case: Case, reports: dict[str, list[dict]]) -> list[str]:
    """Return the table of one case, and the reasons for what it lacks."""
    rounds = len(reports.get(OURS, ()))
    count = "1 round" if rounds == 1 else f"{rounds} rounds"
    heads = [count, *(metric.label for metric in case.metrics)]
    lines = [row(heads), row(["---"] * len(heads))]
    reasons: dict[str, list[str]] = {}
    for name, found in reports.items():
        if "cannot" in found[-1]:
            reasons.setdefault(found[-1]["cannot"], []).append(title(name))
        else:
            lines.append(row([title(name), *cells(case, reports, name)]))
    missing = [f"- {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return ["\n".join(lines), *(["\n".join(missing)] if missing else [])]


def break_evens(case: Case, reports: dict[str, list[dict]]) -> Iterator[str]:
    """Yield from which length on work is faster elsewhere than on the loop."""
    for name in reports:
        if name != "inline" and (length := break_even(case, reports, name)):
            text = readable(length, "s")
            yield f"With {name}, a job is worth a call from about {text} on."


def break_even(case: Case, reports: dict[str, list[dict]], name: str) -> float | None:
    """Return the length at which the line of a contender crosses that of `inline`.

    Between two lengths that were measured, both are taken as straight on logarithmic
    axes.
    """
    before = None
    for metric in case.metrics:
        there = middle(reports[name], metric.key)
        here = middle(reports.get("inline", []), metric.key)
        if not (isinstance(there, float) and isinstance(here, float)):
            return None
        length, lead = math.log(float(metric.key)), math.log(here / there)
        if lead > 0:
            if before is None:
                return None
            x, y = before
            return math.exp(x + (length - x) * y / (y - lead))
        before = length, lead
    return None


def cells(case: Case, reports: dict, name: str) -> Iterator[str]:
    ours, theirs = reports.get(OURS, []), reports[name]
    for metric in case.metrics:
        text = readable(middle(theirs, metric.key), metric.unit)
        times = None if name == OURS else ratio(metric, ours, theirs)
        yield f"**{text}**" if name == OURS else text + in_parentheses(times)


def in_parentheses(times: float | None) -> str:
    if times is None:
        return ""
    return f" ({times:.0f}x)" if times >= 10 else f" ({times:.2g}x)"


def title(name: str) -> str:
    """Return what a contender or a limit is called in tables."""
    if is_limit(name):
        return f"*{import_module(f'limits.{name}').NAME}*"
    return name


def is_limit(name: str) -> bool:
    """Say whether figures are of what the machine allows, and not of a peer."""
    return name.isidentifier() and find_spec(f"limits.{name}") is not None


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def figure(results: dict, case: Case, metric: Metric, name: str) -> str:
    """Return one figure with its unit, or why there is none."""
    found = results["cases"].get(case.name, {}).get(name)
    if not found:
        return "-"
    if "cannot" in found[-1]:
        return found[-1]["cannot"]
    return readable(middle(found, metric.key), metric.unit)
