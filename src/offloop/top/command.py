"""The command ``offloop top``."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from offloop.top.watcher import Watcher

#: exit code when there is nothing to watch
NOBODY = 3

# Seconds between the two looks that --once takes, for what is told by the second.
_ONCE = 0.5

_ORDERS = ("rate", "time", "p99", "errors", "name")


@click.command()
@click.argument("target", default="")
@click.option("--once", is_flag=True, help="Show it once, and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print each picture as a line of JSON."
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=60),
    default=1.0,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option(
    "--sort", "order", type=click.Choice(_ORDERS), default="rate", help="Of functions."
)
def top(target: str, *, once: bool, as_json: bool, interval: float, order: str) -> None:
    """Show what a running pool, program or `offloop serve` does, live.

    TARGET is a process id, the name of a pool, or that of an `offloop serve`; without
    it, the first one that runs is shown. Any program of yours that has a Pool open can
    be watched.

    Keys: up and down choose a worker, d shows its stack, k kills it; s orders functions
    anew, r reloads, + and - change the number of workers, D drains, tab goes to the
    next program, q leaves. Where no terminal is, plain text is printed.

    \b
    Examples:
      offloop top
      offloop top 4711 --sort p99
      offloop top --once --json | jq .pool.stats
    """
    from offloop.errors import StartError
    from offloop.top import targets

    try:
        found = targets.find()
        chosen = targets.choose(found, target)
    except StartError as error:
        print(f"offloop top: {error}", file=sys.stderr)
        raise SystemExit(NOBODY) from None
    if once or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        from offloop.top.watcher import Watcher

        _print(Watcher(chosen, interval), order, once=once, as_json=as_json)
        return
    from offloop.top.live import Live
    from offloop.top.terminal import Terminal

    others = [one for one in found if one != chosen]
    with Terminal() as terminal:
        why = Live(terminal, [chosen, *others], interval, order).run()
    if why:
        print(why)


def _print(watcher: Watcher, order: str, *, once: bool, as_json: bool) -> None:
    """Print pictures: one, or until the target ends or nobody reads any more."""
    watcher.look()
    try:
        while True:
            time.sleep(_ONCE if once else watcher.interval)
            watcher.look()
            if watcher.ended:
                print(watcher.ended, file=sys.stderr)
                return
            print(_as_text(watcher, order, as_json=as_json), flush=True)
            if once:
                return
    except (KeyboardInterrupt, BrokenPipeError):
        return
    finally:
        watcher.close()


def _as_text(watcher: Watcher, order: str, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(watcher.picture)
    from rich.console import Console

    from offloop.top.drawing import View, draw

    width = shutil.get_terminal_size((80, 24)).columns
    view = View(watcher.picture, watcher.rates, order, clock=time.time())
    console = Console(width=width)
    with console.capture() as captured:
        for line in draw(view, width, None):
            line.rstrip()
            console.print(line, no_wrap=True, crop=False, overflow="ignore")
    return captured.get()
