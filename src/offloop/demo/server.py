"""Run the application on uvicorn until a signal ends it."""

from __future__ import annotations

import signal
from math import ceil
from typing import TYPE_CHECKING

import uvicorn

from offloop.demo.app import build_app

if TYPE_CHECKING:
    from offloop.demo.settings import Settings

__all__ = ["serve"]

# A client may take so much longer than its image to read the answer.
_SLACK = 2.0


def serve(settings: Settings, host: str, port: int) -> bool:
    """Serve until SIGINT or SIGTERM; answers that are under way are finished first.

    Args:
        settings: the limits.
        host: address to listen on.
        port: port to listen on; 0: any that is free.

    Returns:
        False when it could not start; why, is on stderr.

    Raises:
        SystemExit: likewise; it depends on the version of uvicorn.
    """
    config = uvicorn.Config(
        build_app(settings),
        host=host,
        port=port,
        lifespan="on",
        access_log=False,  # the page asks for figures each second
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=ceil(settings.timeout + _SLACK),
    )
    server = uvicorn.Server(config)
    # When it has ended, uvicorn raises the signal again, which would end this process
    # as if it had not been handled.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    server.run()
    return server.started
