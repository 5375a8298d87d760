"""Draws a picture of a target as lines of a terminal, at any width and height.

    who it is                                                   since when
    what has become of jobs                       throughput ▁▂▃▅▇
    what waits                                    loop lag   ▁▁▂▁▁
    SERVERS, WORKERS, FUNCTIONS, EVENTS           as many rows of each as there is room
    keys, or what is to be said

A function of its arguments alone: it looks at no clock and at no terminal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.text import Text

from offloop.top import words
from offloop.top.sight import ordered

if TYPE_CHECKING:
    from collections.abc import Sequence

# Lag above which something should be done, and which is full height in its chart.
_LATE = 0.1
_LEAST_LAG = 0.02

_STATES = {
    "busy": "bold green",
    "idle": "dim",
    "ready": "green",
    "starting": "cyan",
    "standby": "cyan",
    "retiring": "yellow",
    "stopping": "yellow",
    "leaving": "yellow",
    "trial": "cyan",
}

_KEYS = (
    ("q", "quit"),
    ("↑↓", "worker"),
    ("d", "dump"),
    ("k", "kill"),
    ("s", "sort"),
    ("r", "reload"),
    ("+-", "scale"),
    ("D", "drain"),
)


@dataclass(slots=True)
class View:
    """What is to be drawn, and how.

    Attributes:
        picture: see `sight.picture`; None while nothing was seen yet.
        rates: jobs a second, oldest first.
        order: of functions, a word of `sight.ORDERS`.
        chosen: number of the worker that keys are about; None: nobody.
        message: instead of the keys; "" if there is nothing to say.
        silent: seconds for which a question is without an answer.
        several: there are other targets to go to.
        clock: what time it is, in seconds since the epoch.
    """

    picture: dict[str, Any] | None
    rates: Sequence[float] = field(default_factory=list)
    order: str = "rate"
    chosen: int | None = None
    message: str = ""
    silent: float = 0.0
    several: bool = False
    clock: float = 0.0


@dataclass(slots=True)
class _Section:
    """A table of which some rows may be shown."""

    head: Text
    rows: list[Text]
    weight: int
    #: row that must be seen
    keep: int = 0


def draw(view: View, width: int, height: int | None) -> list[Text]:
    """Return the lines, none longer than the width.

    Args:
        view: what and how.
        width: columns.
        height: lines; None: as many as it takes, and no keys.
    """
    if view.picture is None:
        lines = [_title("offloop top", "", width), Text(" looking ...", "dim")]
    else:
        lines = _all_of(view, view.picture, width, height)
    if height is not None:
        lines = [*lines[: height - 1], *[Text()] * (height - 1 - len(lines))]
        lines.append(_foot(view, width))
    for line in lines:
        line.truncate(width)
    return lines


def _all_of(
    view: View, picture: dict[str, Any], width: int, height: int | None
) -> list[Text]:
    pool, serve = picture["pool"], picture["serve"]
    lines = _head(view, pool, serve, width)
    sections = []
    if serve is not None:
        sections.append(_servers(serve, width))
    if pool is not None:
        sections.append(_workers(view, pool, width))
        sections.append(_functions(view, pool, width))
        sections.append(_events(pool, width))
    else:
        lines.append(Text(" no compute pool", "dim"))
    room = None
    if height is not None:
        room = height - 1 - len(lines) - len(sections)
    wants = [(len(one.rows), one.weight) for one in sections]
    for section, rows in zip(sections, share_rows(wants, room), strict=True):
        lines.append(section.head)
        first = max(min(section.keep - rows + 1, len(section.rows) - rows), 0)
        lines += section.rows[first : first + rows]
    return lines


def share_rows(wants: Sequence[tuple[int, int]], room: int | None) -> list[int]:
    """Return how many rows each section gets.

    Args:
        wants: how many it has, and how much they matter.
        room: rows that there are for all; None: as many as they want.
    """
    if room is None:
        return [rows for rows, _ in wants]
    got = [0] * len(wants)
    for _ in range(max(room, 0)):
        short = [n for n, (rows, _) in enumerate(wants) if got[n] < rows]
        if not short:
            break
        got[min(short, key=lambda n: got[n] / wants[n][1])] += 1
    return got


# The head


def _head(
    view: View, pool: dict[str, Any] | None, serve: dict[str, Any] | None, width: int
) -> list[Text]:
    told: dict[str, Any] = serve or pool or {}
    if serve is not None:
        where = ", ".join(serve["urls"])
        about = f"{serve['app']} at {where} (pid {serve['pid']}), {serve['state']}"
    else:
        about = f"{told['name']}: {told['program']} (pid {told['pid']})"
    clock = time.strftime("%H:%M:%S", time.localtime(view.clock)) if view.clock else ""
    since = f"up {words.span(told['seconds'])}  {clock}".rstrip()
    lines = [_title(about, since, width)]
    if pool is not None:
        lines += _figures(view, pool, width)
    trouble = (pool or {}).get("stats", {}).get("failure") or (serve or {}).get(
        "failure"
    )
    if trouble:
        lines.append(Text(f" {trouble}".partition("\n")[0], "bold white on red"))
    return lines


def _title(about: str, since: str, width: int) -> Text:
    line = Text(" offloop ", "bold white on blue")
    room = width - len(line) - len(since) - 3
    line.append(f" {words.clip(about, room)}".ljust(room + 1), "bold")
    line.append(f" {since}", "dim")
    return line


def _figures(view: View, pool: dict[str, Any], width: int) -> list[Text]:
    stats, lag = pool["stats"], pool["lag"]
    half = max(width * 11 // 20, 40)
    done = Text(" jobs   ", "dim").append(words.count(stats["completed"]), "bold")
    done.append(" done")
    for word, style in (
        ("failed", "red"),
        ("timed_out", "red"),
        ("lost", "bold red"),
        ("cancelled", "yellow"),
    ):
        if stats[word]:
            text = f"  {words.count(stats[word])} {word.replace('_', ' ')}"
            done.append(text, style)
    queue = Text(" queue  ", "dim").append(words.count(stats["queued"]), "bold")
    queue.append(f" wait  {words.count(stats['in_flight'])} with workers")
    if stats["refused"]:
        queue.append(f"  {words.count(stats['refused'])} refused", "red")
    if stats["arena_used"]:
        queue.append(f"  {words.volume(stats['arena_used'])}", "cyan")
    late = lag[-1] if lag else 0.0
    room = width - half - 19
    speed = _chart("rate", words.rate(pool["rate"]), view.rates, room, "green", 0.0)
    style = "bold red" if late >= _LATE else "magenta"
    shown = words.span(late) if lag else ""
    delay = _chart("lag", shown, lag, room, style, _LEAST_LAG)
    lines = []
    for left, right in ((done, speed), (queue, delay)):
        left.truncate(half, pad=True)
        lines.append(left.append_text(right))
    if view.silent >= 1:
        text = f" no answer for {words.span(view.silent)}: its event loop stands still "
        lines.append(Text(text, "bold white on red"))
    return lines


def _chart(
    label: str, value: str, values: Sequence[float], room: int, style: str, least: float
) -> Text:
    chart = Text(f" {label:<5}", "dim").append(f"{value:>11} ", "bold")
    return chart.append(words.spark(values, room, least), style)


# The tables


def _columns(first: str, cells: Sequence[tuple[str, int]], width: int) -> str:
    """Return a row: what takes all the room that there is, and cells of a width."""
    room = width - sum(size for _, size in cells)
    rest = "".join(text.rjust(size) for text, size in cells)
    return words.clip(first, room - 1).ljust(room) + rest


def _heading(first: str, cells: Sequence[tuple[str, int]], width: int) -> Text:
    line = Text(_columns(first, cells, width), "dim")
    line.stylize("not dim bold blue", 0, len(first))
    line.stylize("underline")
    return line


def _servers(serve: dict[str, Any], width: int) -> _Section:
    sizes = [("pid", 9), ("requests", 12), ("rate", 10), ("now", 6), ("conns", 7)]
    sizes += [("cpu", 6), ("rss", 9)]
    servers = serve["servers"]
    head = _heading(f" SERVERS {len(servers)} of {serve['wanted']}", sizes, width)
    rows = []
    for one in servers:
        told = (
            str(one["pid"]),
            words.count(one["requests"]),
            words.rate(one["rate"]),
            words.count(one["in_hand"]),
            words.count(one["connections"]),
            words.percent(one["cpu"]),
            words.volume(one["memory"]),
        )
        cells = [(text, size) for text, (_, size) in zip(told, sizes, strict=True)]
        first = f"  {one['slot']:<3} {one['state']}"
        row = Text(_columns(first, cells, width))
        row.stylize(_STATES.get(one["state"], ""), 6, len(first))
        rows.append(row)
    return _Section(head, rows, 2)


_BAR = 6


def _workers(view: View, pool: dict[str, Any], width: int) -> _Section:
    workers, stats = pool["workers"], pool["stats"]
    sizes = (("pid", 9), ("state", 10), ("cpu", _BAR + 7), ("rss", 9), ("for", 8))
    title = f" WORKERS {stats['workers']} of {pool['wanted']}, {stats['busy']} busy"
    head = _heading(title, sizes, width)
    rows: list[Text] = []
    keep = 0
    for one in workers:
        place = "spare" if one["slot"] < 0 else str(one["slot"])
        runs = f"{one['function']} #{one['job']}" if one["job"] is not None else ""
        if one["jobs"] > 1:
            runs += f"  +{one['jobs'] - 1}"
        gauge = f"{words.bar(one['cpu'], _BAR)}{words.percent(one['cpu']):>5}"
        told = (
            str(one["pid"] or ""),
            one["state"],
            gauge,
            words.volume(one["rss"]),
            words.span(one["running"]) if one["job"] is not None else "",
        )
        cells = [(text, size) for text, (_, size) in zip(told, sizes, strict=True)]
        chosen = one["worker"] == view.chosen
        row = Text(
            _columns(f" {'▸' if chosen else ' '}{place:<5} {runs}", cells, width)
        )
        at = width - sum(size for _, size in sizes) + 9
        row.stylize(_STATES.get(one["state"], ""), at, at + 10)
        row.stylize("cyan", at + 10, at + 10 + 13 - 5)
        if chosen:
            row.stylize("reverse")
            keep = len(rows)
        rows.append(row)
    return _Section(head, rows, 4, keep)


def _functions(view: View, pool: dict[str, Any], width: int) -> _Section:
    sizes = [("done", 9), ("rate", 10), ("p50", 8), ("p95", 8), ("p99", 8)]
    sizes += [("errors", 8)]
    functions = ordered(pool["functions"], view.order)
    title = f" FUNCTIONS {len(functions)}, by {view.order}"
    head = _heading(title, sizes, width)
    rows = []
    for one in functions:
        told = (
            words.count(one["completed"]),
            words.rate(one["rate"]) if one["rate"] else "",
            *(words.span(one[word]) for word in ("p50", "p95", "p99")),
            words.count(one["errors"]) if one["errors"] else "",
        )
        cells = [(text, size) for text, (_, size) in zip(told, sizes, strict=True)]
        row = Text(_columns(f"  {one['function']}", cells, width))
        if one["errors"]:
            row.stylize("red", width - 8)
        rows.append(row)
    return _Section(head, rows, 4)


def _events(pool: dict[str, Any], width: int) -> _Section:
    head = _heading(" EVENTS", (), width)
    rows = []
    for one in reversed(pool["events"]):
        at = time.strftime("%H:%M:%S", time.localtime(one["at"]))
        bad = one["level"] >= 30 or one["event"] in _BAD
        row = Text(f"  {at} ", "dim")
        row.append(one["text"], "red" if bad else "")
        rows.append(row)
    return _Section(head, rows, 2)


_BAD = ("job_failed", "job_lost", "job_poisoned", "job_timed_out", "job_quarantined")


def _foot(view: View, width: int) -> Text:
    if view.message:
        return Text(f" {view.message}".ljust(width), "bold black on yellow")
    line = Text(" ")
    keys = (*_KEYS, ("tab", "next")) if view.several else _KEYS
    for key, what in keys:
        line.append(key, "bold blue").append(f" {what}  ", "dim")
    return line


def page(title: str, text: str, first: int, width: int, height: int) -> list[Text]:
    """Return a page of a long text, from a line of it on, for a whole screen."""
    lines = text.splitlines()
    shown = [Text(f" {line}") for line in lines[first : first + height - 2]]
    shown += [Text()] * (height - 2 - len(shown))
    foot = Text(" ↑↓ ", "bold blue").append("scroll  ", "dim")
    foot.append("any other key", "bold blue").append(" back", "dim")
    made = [_title(title, "", width), *shown, foot]
    for line in made:
        line.truncate(width)
    return made
