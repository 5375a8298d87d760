"""Runs cases within a given time: as many rounds of each as fit, at least one."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import peers
from harness.turns import Order, take_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.figures import Case

MAX_ROUNDS = 7

#: the quick form measures so much shorter, and of all peers only these
QUICK = 0.3
QUICK_PEERS = (
    "offloop",
    "asyncio.to_thread",
    "ProcessPoolExecutor",
    "multiprocessing.Pool",
    "anyio.to_process",
    "piscina (Node)",
)


def run(
    cases: list[Case],
    minutes: float,
    quick: bool,
    names: list[str] | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[tuple[str, dict[str, list[dict]]]]:
    """Run cases; what one does not need of its time, the others get.

    Args:
        cases: in this order.
        minutes: for all. A first round is made in any case, so a slow machine or peer
            takes longer.
        quick: measure for a shorter time, and fewer peers.
        names: of the contenders, if only some shall take part.
        say: is told which case runs.

    Yields:
        Name of a case when it is done, and by contender the reports of all rounds.
    """
    end, weights = monotonic() + minutes * 60, sum(case.weight for case in cases)
    for case in cases:
        allowed = (end - monotonic()) * case.weight / weights
        weights -= case.weight
        say(f"{case.name}: {case.title}")
        yield case.name, run_case(case, allowed, quick, names)


def run_case(
    case: Case, allowed: float, quick: bool, names: list[str] | None = None
) -> dict[str, list[dict]]:
    """Let the contenders of a case take turns for about so many seconds."""
    end = monotonic() + allowed
    orders, found = invite(case, quick, names)
    once = {name: orders.pop(name) for name in peers.ONCE if name in orders}
    take_turn(once, found, case.timeout)
    for _ in range(MAX_ROUNDS):
        began = monotonic()
        take_turn(orders, found, case.timeout)
        if 2 * monotonic() - began > end:  # another round would take as long
            break
    return {name: [plain(one) for one in reports] for name, reports in found.items()}


def invite(
    case: Case, quick: bool, names: list[str] | None
) -> tuple[dict[str, Order], dict[str, list[dict]]]:
    """Return an order for each contender, and the reports of those left out."""
    arguments = dict(case.arguments)
    seconds = (case.seconds or 0.3) * (QUICK if quick else 1)
    if case.seconds is not None:
        arguments["seconds"] = seconds
    orders, found = {}, {}
    for name in case.contenders or peers.ALL:
        if names and name not in names:
            continue
        found[name] = []
        if quick and name in peers.ALL and name not in QUICK_PEERS:
            found[name].append({"cannot": "left out of the quick form"})
        elif takes_too_long(name, case):
            found[name].append({"cannot": "left out of this case, to save time"})
        orders[name] = Order(case.module, name, arguments, peers.PROGRAMS.get(name))
    for name in case.floors:
        order = Order(
            f"limits.{name}", name, {"case": case.name, "seconds": max(seconds, 0.3)}
        )
        orders[name], found[name] = order, []
    return orders, found


def takes_too_long(name: str, case: Case) -> bool:
    """Tell whether this case leaves a contender out, to save time."""
    if name in peers.SLOWEST:
        return not case.slowest
    return name in peers.HEAVY and not case.heavy


def plain(report: dict) -> dict:
    """Return the report with only the first of several figures under one name."""
    return {k: v[0] if isinstance(v, list) else v for k, v in report.items()}
