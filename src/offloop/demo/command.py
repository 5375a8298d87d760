"""The command ``offloop demo``: options, their checks, and what must be installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import click

from offloop.demo.settings import Settings
from offloop.options import size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["demo"]

# Pillow is looked for and not imported: this process never opens an image.
_NEEDED = ("numpy", "PIL", "python_multipart", "starlette", "uvicorn")

_DEFAULTS = Settings()

_F = TypeVar("_F", bound="Callable[..., Any]")


def _size(text: str) -> int:
    """Read a number such as 500000, 50M or 20MiB."""
    try:
        return size("it", int(text) if text.isdecimal() else text)
    except ValueError:
        message = f"{text!r} is not a size such as 500000, 50M or 20MiB"
        raise click.BadParameter(message) from None


def _option(name: str, **how: Any) -> Callable[[_F], _F]:
    """Return an option that is also an environment variable: OFFLOOP_ and its name."""
    variable = "OFFLOOP_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, **how)


@click.command(
    epilog="""\b
Examples:
  offloop demo
  offloop demo --host 0.0.0.0 --port 80 --workers 8
  OFFLOOP_MAX_BODY=50MiB offloop demo
  curl --data-binary @photo.jpg "localhost:8000/encode?f=webp&w=800" -o small.webp
"""
)
@_option("--host", default="127.0.0.1", help="Address to listen on.")
@_option(
    "--port",
    default=8000,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0: any that is free.",
)
@_option(
    "--workers",
    default=_DEFAULTS.workers,
    type=click.IntRange(min=1),
    help="Processes that encode.",
)
@_option(
    "--queue",
    type=click.IntRange(min=0),
    show_default="two for each worker",
    help="Images that may wait; one more is refused.",
)
@_option(
    "--timeout",
    default=_DEFAULTS.timeout,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that an image may take, waiting included.",
)
@_option(
    "--max-body",
    default="20MiB",
    type=_size,
    metavar="SIZE",
    help="Bytes of an upload.",
)
@_option(
    "--max-pixels",
    default="50M",
    type=_size,
    metavar="SIZE",
    help="Pixels of an image, summed over its frames.",
)
def demo(
    host: str,
    port: int,
    workers: int,
    queue: int | None,
    timeout: float,
    max_body: int,
    max_pixels: int,
) -> None:
    """Serve a page that shrinks and converts images.

    The page is at http://HOST:PORT/; programs send images to /encode.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f'{", ".join(missing)} is missing: pip install "offloop[demo]"'
        )
    from offloop.demo import server

    settings = Settings(workers, queue, max_body, max_pixels, timeout)
    if not server.serve(settings, host, port):
        raise SystemExit(1)
