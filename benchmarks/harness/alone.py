"""For the scripts that run one case by itself, such as `payloads.py`."""

from __future__ import annotations

import statistics

from harness.figures import middle, ratio
from harness.turns import Order, take_turns
from peers import CannotDo

OURS = ("offloop", "offloop, pool.empty")
OTHERS = (
    "ProcessPoolExecutor",
    "multiprocessing.Pool",
    "loky",
    "joblib",
    "pebble",
    "dask",
    "ray",
)


def contenders(ours_only: bool) -> tuple[str, ...]:
    return OURS if ours_only else OURS + OTHERS


def in_turn(module: str, names: tuple, rounds: int, timeout: float, **case) -> dict:
    """Let contenders take turns in one case.

    Returns:
        Contender and name of the case: medians, or why there are none.
    """
    orders = {name: Order(module, name, case) for name in names}
    found = take_turns(orders, rounds, timeout)
    return {(name, case["case"]): merge(reports) for name, reports in found.items()}


def compare(module, peer: str | None, rounds: int, **arguments) -> dict[str, tuple]:
    """Let offloop and one peer take turns in a case that a module defines.

    Returns:
        Key of each figure: the metric, ours, theirs, and how many times better we are.

    Raises:
        CannotDo: offloop cannot, today.
    """
    names = [name for name in ("offloop", peer) if name]
    orders = {name: Order(module.__name__, name, arguments) for name in names}
    found = take_turns(orders, rounds, 60)
    ours, theirs = found["offloop"], found.get(peer, [{}])
    if "cannot" in ours[-1]:
        raise CannotDo(ours[-1]["cannot"])
    return {
        metric.key: (
            metric,
            middle(ours, metric.key),
            middle(theirs, metric.key),
            ratio(metric, ours, theirs),
        )
        for metric in module.CASES[0].metrics
    }


def merge(reports: list[dict]) -> dict:
    """Return the median of each figure, and of each member of a list of figures."""
    if "cannot" in reports[-1]:
        return reports[-1]
    return {key: _median([one[key] for one in reports]) for key in reports[0]}


def _median(values: list):
    if isinstance(values[0], list):
        return [statistics.median(column) for column in zip(*values, strict=True)]
    return statistics.median(values)


def print_reasons(results: dict) -> None:
    """Say why there are gaps in a table."""
    for (name, case), result in results.items():
        if "cannot" in result:
            print(f"    {name}, {case}: {result['cannot']}")
