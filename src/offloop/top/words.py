"""Figures as people read them in a narrow column: times, sizes, rates, small charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉"


def span(seconds: float) -> str:
    """Return a time, in the unit that fits: "12 µs", "3.4 ms", "1.2 s", "2 h"."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    if seconds >= 1:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    for size, unit in ((1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size * 0.9995 or size == 1e-6:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
    raise AssertionError("unreachable")


def volume(size: int | None) -> str:
    """Return bytes: "512 B", "45 MiB"; "" if they are not known."""
    if size is None:
        return ""
    value, units = float(size), ("B", "KiB", "MiB", "GiB", "TiB")
    for unit in units:
        if value < 1023.5 or unit == units[-1]:
            fine = unit != "B" and value < 9.95
            return f"{value:.1f} {unit}" if fine else f"{value:.0f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def count(number: int) -> str:
    """Return a number that grows: "12,345", and above a million "1.23 M"."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:,}"


def rate(speed: float | None) -> str:
    """Return a number a second; "" if it is not known, or nothing happens."""
    if speed is None:
        return ""
    if 0 < speed < 9.95:
        return f"{speed:.1f}/s"
    return f"{count(round(speed))}/s"


def percent(share: float | None) -> str:
    """Return a share of a core; "" if it is not known."""
    return "" if share is None else f"{100 * share:.0f}%"


def bar(share: float | None, width: int) -> str:
    """Return a bar that is full at 1; "" if the share is not known."""
    if share is None:
        return ""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_PARTS[rest] if rest else "")).ljust(width)


def spark(values: Sequence[float], width: int, least: float = 0.0) -> str:
    """Return a chart of the latest values, as high as the largest of them.

    Args:
        values: oldest first.
        width: columns; one for each value.
        least: what is full height if all are lower.
    """
    shown = list(values)[-width:] if width > 0 else []
    top = max([*shown, least])
    if top <= 0:
        return _LEVELS[0] * len(shown)
    last = len(_LEVELS) - 1
    return "".join(_LEVELS[min(round(value / top * last), last)] for value in shown)


def clip(text: str, width: int) -> str:
    """Return a text that fits, cut in its middle: both ends of a name tell much."""
    if len(text) <= width:
        return text
    if width < 5:
        return text[: max(width, 0)]
    left = (width - 1) // 2
    return f"{text[:left]}…{text[len(text) - (width - 1 - left) :]}"
