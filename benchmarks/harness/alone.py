"""For the scripts that run one case by itself, such as `payloads.py`."""

from __future__ import annotations

import statistics

from harness import machine
from harness.figures import middle, ratio
from harness.tables import row
from harness.turns import Order, take_turn, take_turns
from peers import PROGRAMS, CannotDo

#: those that the scripts about payloads compare offloop with
OTHERS = (
    "ProcessPoolExecutor",
    "multiprocessing.Pool",
    "loky",
    "joblib",
    "pebble",
    "dask",
    "ray",
    *PROGRAMS,
)


def in_turn(module: str, names: dict, timeout: float, **case) -> dict:
    """Let contenders take turns in one case.

    Args:
        module: of the case.
        names: of the contenders, and how many rounds each takes part in.
        timeout: seconds after which a contender is given up.
        case: arguments of the case, its name among them.

    Returns:
        Contender and name of the case: medians, or why there are none.
    """
    orders = {name: Order(module, name, case, PROGRAMS.get(name)) for name in names}
    found: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(max(names.values())):
        present = {name: orders[name] for name in names if number < names[name]}
        take_turn(present, found, timeout)
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


def print_machine() -> None:
    """Say where the figures come from."""
    about = machine.describe()
    print(f"{machine.sentence(about)}. Load before it began: {about['load']:.1f}.")


def print_table(heads: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown, as wide as it has to be."""
    texts = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    texts = [
        [text.ljust(width) for text, width in zip(cells, widths, strict=True)]
        for cells in texts
    ]
    texts.insert(1, ["-" * width for width in widths])
    print("", *map(row, texts), sep="\n", flush=True)


def print_reasons(results: dict) -> None:
    """Say why there are gaps in a table."""
    lines = [
        f"- {name}, {case}: {result['cannot']}"
        for (name, case), result in results.items()
        if "cannot" in result
    ]
    if lines:
        print("", *lines, sep="\n", flush=True)


def print_broken(promises: list[str]) -> None:
    """Say what offloop promises and did not do."""
    if promises:
        print("\nmissed:\n", *(f"- {one}" for one in promises), sep="\n")
