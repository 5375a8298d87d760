"""Commands that operate a running ``offloop serve APP``: status, reload, scale, ...

Each asks the primary over its control socket and prints what it says. Exit codes: 0
done, 1 it could not be done, 2 wrong usage, 3 nobody is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from offloop.cluster.logs import Line

if TYPE_CHECKING:
    from collections.abc import Iterator

#: exit codes beside 0 and 2
REFUSED = 1
NOBODY = 3

# Lines that are taken at once.
_MANY = 10_000

_NAME = click.option(
    "--name", default="default", help="Of the `offloop serve` that is meant."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


def _ask(name: str, command: str, **details: Any) -> dict[str, Any]:
    """Ask the primary; ends the program if it does not do what it was asked."""
    from offloop.cluster.control import ask
    from offloop.errors import StartError, UsageError

    try:
        answer = ask(name, command, **details)
    except (StartError, UsageError) as error:
        print(f"offloop {command}: {error}", file=sys.stderr)
        raise SystemExit(NOBODY) from None
    if not answer.pop("ok"):
        print(f"offloop {command}: {answer['error']}", file=sys.stderr)
        raise SystemExit(REFUSED)
    return answer


def _show(answer: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(answer, indent=2) if as_json else text)


@click.command()
@_NAME
@_JSON
def status(name: str, as_json: bool) -> None:
    """Show how a running `offloop serve` is: its processes, and the latest ends."""
    answer = _ask(name, "status")
    _show(answer, as_json, "\n".join(_status_lines(answer)))


def _status_lines(answer: dict[str, Any]) -> list[str]:
    where = ", ".join(answer["urls"])
    uptime = _span(answer["seconds"])
    lines = [
        f"{answer['app']} at {where}: {answer['state']}, pid {answer['pid']}, {uptime}",
    ]
    if answer["failure"]:
        lines.append(f"  trouble: {answer['failure']}")
    lines += [
        f"  server {one['slot']}  pid {one['pid']}  {one['state']}  "
        f"{_span(one['seconds'])}  {one['requests']} requests, "
        f"{one['in_hand']} in hand, {one['connections']} connections, "
        f"{one['memory'] >> 20} MiB"
        for one in answer["servers"]
    ]
    lines += [
        f"  coordinator  pid {one['pid']}  {one['state']}  {_span(one['seconds'])}"
        for one in answer["coordinators"]
    ]
    lines += [
        f"  ended: {one['role']} {one['slot']} (pid {one['pid']}) after "
        f"{_span(one['seconds'])}: {one['reason']}"
        for one in answer["ends"][-5:]
    ]
    return lines


def _span(seconds: float) -> str:
    """Return a time in the unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@click.command()
@_NAME
@_JSON
@click.option(
    "--probe",
    metavar="PATH",
    help="That the new version must answer without an error; by default that of serve.",
)
def reload(name: str, as_json: bool, probe: str | None) -> None:
    """Replace all servers and workers by ones with new code; no request is lost.

    A version that cannot start, or that fails the probe, replaces nothing: the old one
    serves on, and the exit code is 1.
    """
    answer = _ask(name, "reload", probe=probe)
    _show(answer, as_json, f"reloaded within {answer['seconds']:.1f} s")


@click.command()
@_NAME
@_JSON
def upgrade(name: str, as_json: bool) -> None:
    """Replace everything, the process that watches over it too; no request is lost.

    A new `offloop serve`, by the same command line, gets the listening sockets. When
    its servers are ready, the old one lets its requests end, and ends. If it cannot
    start, the old one goes on, and the exit code is 1.
    """
    answer = _ask(name, "upgrade")
    text = f"process {answer['pid']} has taken over, within {answer['seconds']:.1f} s"
    _show(answer, as_json, text)


@click.command()
@click.argument("servers", type=click.IntRange(min=1))
@_NAME
@_JSON
def scale(servers: int, name: str, as_json: bool) -> None:
    """Have so many SERVERS; those that are too many end their requests first."""
    answer = _ask(name, "scale", servers=servers)
    _show(answer, as_json, f"{answer['servers']} servers")


@click.command()
@_NAME
@_JSON
def stop(name: str, as_json: bool) -> None:
    """End a running `offloop serve` when its open requests have ended."""
    _show(_ask(name, "stop"), as_json, "it ends")


@click.command()
@_NAME
@_JSON
def drain(name: str, as_json: bool) -> None:
    """Let load balancers know that no more requests should come here (--ready-path)."""
    _show(_ask(name, "drain"), as_json, "drained")


@click.command()
@_NAME
@_JSON
def resume(name: str, as_json: bool) -> None:
    """Take back `offloop drain`."""
    _show(_ask(name, "resume"), as_json, "resumed")


@click.command()
@_NAME
@_JSON
def dump(name: str, as_json: bool) -> None:
    """Show what each server and each compute worker is doing, as tracebacks."""
    answer = _ask(name, "dump")
    dumped = _dump_workers(name) if answer.pop("pool") else []
    answer["workers"] = dumped
    parts = [
        f"server {one['slot']} (pid {one['pid']}):\n{one['traceback']}"
        for one in answer["servers"]
    ]
    parts += [
        f"worker {one['worker']} (pid {one['pid']}) "
        f"{one['function'] or 'idle'}:\n{one['traceback']}"
        for one in answer["workers"]
    ]
    _show(answer, as_json, "\n".join(parts))


def _dump_workers(name: str) -> list[dict[str, Any]]:
    """Return what the workers of a shared pool are doing."""
    from dataclasses import asdict

    from offloop import Pool

    async def dump() -> list[dict[str, Any]]:
        async with Pool(engine=f"shared://{name}") as pool:
            return [asdict(one) for one in await pool.dump()]

    return asyncio.run(dump())


@click.command()
@_NAME
@_JSON
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=100,
    metavar="N",
    help="The latest ones.",
)
@click.option("--role", metavar="ROLE", help="server, coordinator, primary.")
@click.option("--slot", type=int, metavar="N", help="Of the server.")
def logs(name: str, as_json: bool, follow: bool, **details: Any) -> None:
    """Show what the processes of a running `offloop serve` have written.

    \b
    Examples:
      offloop logs -f
      offloop logs --role server --slot 0 --lines 500
    """
    if not follow:
        answer = _ask(name, "logs", **details)
        text = "\n".join(str(Line(**line)) for line in answer["lines"])
        _show(answer, as_json, text)
        return
    with contextlib.suppress(KeyboardInterrupt):
        for line in _follow(name, details):
            print(json.dumps(line) if as_json else Line(**line), flush=True)


def _follow(name: str, details: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Go through lines until nobody writes any more; a new primary's follow."""
    from offloop.cluster import control
    from offloop.errors import StartError

    answer = _ask(name, "logs", **details)  # says what is wrong
    yield from answer["lines"]
    with contextlib.suppress(StartError):
        while True:
            with control.connect(name) as line, contextlib.suppress(ConnectionError):
                while True:
                    more = {**details, "lines": _MANY, "after": answer["count"]}
                    answer = line.ask("logs", **more)
                    yield from answer["lines"]
            answer = {"count": 0}  # of whoever comes next


@click.command()
@click.argument("which")
@click.option("--slot", type=int, metavar="N", help="Of the server; by default all.")
@_NAME
@_JSON
def signal(which: str, slot: int | None, name: str, as_json: bool) -> None:
    """Send a signal, such as TERM or USR1, to servers."""
    from signal import Signals

    try:
        number = int(which) if which.isdigit() else Signals[f"SIG{which}"].value
    except KeyError:
        raise click.UsageError(f"{which!r} is no signal: USR1, TERM, 15, ...") from None
    answer = _ask(name, "signal", number=number, slot=slot)
    _show(answer, as_json, "sent to " + ", ".join(map(str, answer["pids"])))
