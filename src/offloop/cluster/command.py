"""The command ``offloop serve``: options and their checks."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click


@click.command()
@click.option(
    "--compute",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compute workers; by default the usable cores less one.",
)
@click.option(
    "--name",
    default="default",
    help='Of the shared pool: Pool(engine="shared://NAME").',
)
@click.option(
    "--max-pending",
    type=click.IntRange(min=1),
    default=100_000,
    metavar="N",
    help="Jobs of all clients together that may wait or run.",
)
@click.option(
    "--max-pending-per-client",
    type=click.IntRange(min=1),
    metavar="N",
    help="The same for each client; by default as many.",
)
@click.option(
    "--preload",
    multiple=True,
    metavar="MODULE",
    help="Import a module before the first worker is forked; may be repeated.",
)
def serve(**options: Any) -> None:
    """Run a compute pool that all programs of this user can share.

    A program uses it by Pool(engine="shared"), or unchanged with OFFLOOP_ENGINE=shared
    in its environment. Runs until SIGTERM or Ctrl-C; jobs that run get some seconds.

    \b
    Examples:
      offloop serve --compute 4
      offloop serve --compute 2 --name night
    """
    from offloop import runtime
    from offloop.cluster.coordinate import PoolSettings, coordinate
    from offloop.errors import StartError, UsageError

    settings = PoolSettings(**options)
    try:
        home = runtime.make_home(settings.name)

        def ready() -> None:
            print(f"The shared pool is ready at {home / 'pool.sock'}", flush=True)

        asyncio.run(coordinate(settings, home, ready))
    except (StartError, UsageError) as error:
        print(f"offloop serve: {error}", file=sys.stderr)
        if isinstance(error, StartError) and error.output:
            print(error.output, file=sys.stderr)
        raise SystemExit(3) from None
