"""What one look at a target found, and what two of them together tell.

    look, look ──▶ rates, processor time ──▶ a picture: plain values

Nothing here asks, draws or waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: how a function's rows may be ordered
ORDERS = ("rate", "time", "p99", "errors", "name")

_ERRORS = ("failed", "timed_out", "lost")
_ENDED = ("completed", *_ERRORS, "cancelled")


@dataclass(frozen=True, slots=True)
class Sight:
    """One look.

    Attributes:
        at: monotonic seconds.
        pool: what the pool told; None if there is no pool now.
        serve: what the primary told; None if there is none.
        cpu: processor seconds that processes have used, by process id.
        rss: bytes that they hold, by process id.
    """

    at: float
    pool: Mapping[str, Any] | None
    serve: Mapping[str, Any] | None = None
    cpu: Mapping[int, float] = field(default_factory=dict)
    rss: Mapping[int, int] = field(default_factory=dict)


def picture(before: Sight | None, now: Sight) -> dict[str, Any]:
    """Return all that is to be shown, as plain values.

    Args:
        before: an earlier look, for what is told by the second; None: there was none.
        now: the latest one.
    """
    seconds = now.at - before.at if before is not None else 0.0
    made: dict[str, Any] = {"pool": None, "serve": None}
    if now.pool is not None:
        earlier = before.pool if before is not None else None
        made["pool"] = _pool(earlier, now, before, seconds)
    if now.serve is not None:
        earlier = before.serve if before is not None else None
        made["serve"] = _serve(earlier, now, before, seconds)
    return made


def _pool(
    earlier: Mapping[str, Any] | None, now: Sight, before: Sight | None, seconds: float
) -> dict[str, Any]:
    told = now.pool
    assert told is not None
    stats = dict(told["stats"])
    functions = stats.pop("functions")
    known = earlier["stats"] if earlier is not None else None
    return {
        "name": told["pool"],
        "pid": told["pid"],
        "program": told["program"],
        "seconds": told["seconds"],
        "wanted": told["wanted"],
        "rate": _rate(known, stats, _ENDED, seconds),
        "stats": stats,
        "workers": [
            {
                **one,
                "cpu": _share(one["pid"], before, now, seconds),
                "rss": now.rss.get(one["pid"]),
            }
            for one in told["workers"]
        ],
        "functions": [
            _function(name, one, known, seconds) for name, one in functions.items()
        ],
        "clients": told.get("clients", []),
        "lag": told["lag"],
        "events": told["events"],
    }


def _function(
    name: str, one: Mapping[str, Any], known: Mapping[str, Any] | None, seconds: float
) -> dict[str, Any]:
    earlier = known["functions"].get(name, {}) if known is not None else None
    run = one["run"]
    return {
        "function": name,
        "completed": one["completed"],
        "errors": sum(one[word] for word in _ERRORS),
        "rate": _rate(earlier, one, _ENDED, seconds),
        **{word: run[word] for word in ("p50", "p95", "p99", "largest")},
        "time": run["count"] * run["mean"],
    }


def _serve(
    earlier: Mapping[str, Any] | None, now: Sight, before: Sight | None, seconds: float
) -> dict[str, Any]:
    told = now.serve
    assert told is not None
    known = {} if earlier is None else {one["pid"]: one for one in earlier["servers"]}
    words = ("app", "pid", "state", "urls", "seconds", "wanted", "failure", "ends")
    return {
        **{word: told[word] for word in words},
        "coordinators": told["coordinators"],
        "servers": [
            {
                **one,
                "rate": _rate(known.get(one["pid"]), one, ("requests",), seconds),
                "cpu": _share(one["pid"], before, now, seconds),
            }
            for one in told["servers"]
        ],
    }


def _rate(
    earlier: Mapping[str, Any] | None,
    now: Mapping[str, Any],
    words: tuple[str, ...],
    seconds: float,
) -> float | None:
    """Return how many there were in a second; None if that is not known."""
    if earlier is None or seconds <= 0:
        return None
    more: float = sum(now[word] - earlier.get(word, 0) for word in words)
    return max(more, 0) / seconds


def _share(
    pid: int | None, before: Sight | None, now: Sight, seconds: float
) -> float | None:
    """Return which share of a core a process has used; None if that is not known."""
    if pid is None or before is None or seconds <= 0:
        return None
    if pid not in before.cpu or pid not in now.cpu:
        return None
    used: float = now.cpu[pid] - before.cpu[pid]
    return max(used, 0.0) / seconds


def ordered(functions: list[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """Return rows of functions, the most interesting first."""
    if order == "name":
        return sorted(functions, key=lambda one: str(one["function"]))
    return sorted(functions, key=lambda one: (-(one[order] or 0), one["function"]))
