"""Makes a running primary of what `offloop serve` was asked for, and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

from offloop import runtime
from offloop.cluster.binding import bind
from offloop.cluster.heritage import Heritage, receive
from offloop.cluster.logs import LogFile, Output, Printer
from offloop.cluster.notify import Notifier, inherited
from offloop.cluster.primary import Primary
from offloop.errors import StartError, UsageError

if TYPE_CHECKING:
    from offloop.cluster.binding import Bound
    from offloop.cluster.coordinate import PoolSettings
    from offloop.cluster.settings import ServeSettings


def launch(
    settings: ServeSettings, pool: PoolSettings, *, as_json: bool, log_file: str | None
) -> int:
    """Serve an application until it ends; returns the exit code.

    Args:
        settings: of the servers.
        pool: of their shared pool.
        as_json: each line of the log is an object.
        log_file: where the log goes; None: to stdout.

    Raises:
        StartError: it cannot begin.
        UsageError, ValueError: a setting is wrong.
    """
    heritage = receive()
    try:
        return _launch(settings, pool, heritage, as_json, log_file)
    except (StartError, UsageError, ValueError) as error:
        if heritage is not None:
            heritage.give_up(str(error))
        raise


def _launch(
    settings: ServeSettings,
    pool: PoolSettings,
    heritage: Heritage | None,
    as_json: bool,
    log_file: str | None,
) -> int:
    shared = None if pool.compute == 0 else pool
    if shared is not None:
        shared.options()  # says what is wrong with them
    settings.recycle()  # likewise
    home = runtime.make_home(pool.name)
    folder = logical_folder()
    with contextlib.ExitStack() as stack:
        stack.callback(runtime.leave_home, home)
        bound = listen(settings, heritage)
        for one in bound:
            stack.callback(one.close)
        output = LogFile(log_file) if log_file else Output(sys.stdout.fileno())
        stack.callback(output.close)
        printer = Printer(output, as_json=as_json)
        stack.callback(printer.close)

        async def run() -> int:
            primary = Primary(
                settings, shared, home, bound, printer, Notifier(), heritage, folder
            )
            return await primary.run()

        return asyncio.run(run())


def listen(settings: ServeSettings, heritage: Heritage | None) -> list[Bound]:
    """Return the sockets that all servers listen on: left, handed down or opened.

    Raises:
        StartError, UsageError: an address cannot be had, or is none.
    """
    scheme = "https" if settings.uvicorn.get("ssl_certfile") else "http"
    bound = inherited(scheme) if heritage is None else heritage.given()
    for address in () if settings.port_each or bound else settings.bind:
        left = None if heritage is None else heritage.take(address)
        bound.append(left or bind(address, scheme))
    return bound


def logical_folder() -> str:
    """Return the working directory, by the links that lead to it.

    A deployment may turn a link to the directory of a new version: who comes this way
    again, finds that.
    """
    named = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    return os.getcwd()
