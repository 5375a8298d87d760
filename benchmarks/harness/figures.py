"""What a case is, what it measures, and what many measurements say together."""

from __future__ import annotations

import os
import statistics
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

#: cores that this process may use; so many workers there are, and two at least
CORES = max(2, len(os.sched_getaffinity(0)))


class Metric(NamedTuple):
    """One figure of a case.

    Attributes:
        key: under which a report has it.
        label: head of its column.
        unit: "s", "/s", "B", or "share" of what is ideal.
    """

    key: str
    label: str
    unit: str = "s"

    @property
    def less_is_better(self) -> bool:
        return self.unit in ("s", "B")


class Case(NamedTuple):
    """One thing that is measured.

    Attributes:
        name: on the command line.
        title: in the tables.
        module: whose `measure` does it.
        metrics: what it reports.
        contenders: who takes part; None: all peers.
        floors: limits, by module, that are measured beside them.
        arguments: for `measure`.
        seconds: `measure` is given for each thing that it looks at, in the long form.
        weight: share of the whole time, among the other weights.
        quick: whether it is in the quick form too.
        heavy: whether those peers take part that need seconds to start.
        slowest: whether those do that are far behind, and take seconds as well.
        timeout: seconds after which a contender is given up.
    """

    name: str
    title: str
    module: str
    metrics: tuple[Metric, ...]
    contenders: tuple[str, ...] | None = None
    floors: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = MappingProxyType({})
    seconds: float | None = 1.0
    weight: float = 1.0
    quick: bool = True
    heavy: bool = True
    slowest: bool = False
    timeout: float = 60.0


def percentile(values: list[float], percent: float) -> float:
    """Return the value that so many percent of the others do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def middle(reports: list[dict], key: str) -> float | str | None:
    """Return the median of one figure, or the words that stand for it."""
    values = [report[key] for report in reports if report.get(key) is not None]
    words = [value for value in values if isinstance(value, str)]
    if not values or words:
        return words[0] if words else None
    return statistics.median(values)


def ratio(metric: Metric, ours: list[dict], theirs: list[dict]) -> float | None:
    """Return how many times better ours are: the median of the ratios of each round.

    Those who took part in fewer rounds are compared with the same rounds of ours.
    """
    found = []
    for our, their in zip(ours, theirs, strict=False):
        a, b = our.get(metric.key), their.get(metric.key)
        if isinstance(a, (int, float)) and isinstance(b, (int, float)) and a and b:
            found.append(b / a if metric.less_is_better else a / b)
    return statistics.median(found) if found else None


def readable(value: float | str | None, unit: str) -> str:
    """Return a figure with its unit, to two or three digits."""
    if value is None or isinstance(value, str):
        return value or "-"
    if unit == "s":
        return _readable_time(value)
    if unit == "B":
        return f"{_digits(value / 2**20)} MB"
    if unit == "share":
        return f"{value:.0%}"
    return f"{_digits(value)}/s"


def _readable_time(seconds: float) -> str:
    for factor, name in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{_digits(seconds * factor)} {name}"
    return f"{_digits(seconds * 1e6)} µs"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
