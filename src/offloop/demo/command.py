"""The command ``offloop demo``: options, their checks, and what must be installed."""

from __future__ import annotations

import socket
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import click

from offloop.demo.loopback import is_loopback
from offloop.demo.settings import Settings
from offloop.options import size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["demo", "is_alive", "settings_from_environment"]

# Pillow is looked for and not imported: this process never opens an image.
_NEEDED = (
    *("numpy", "PIL", "prometheus_client", "python_multipart"),
    *("starlette", "uvicorn"),
)

_DEFAULTS = Settings()

# What a health check asks, and how many seconds it waits for each step.
_QUESTION = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_PATIENCE = 5.0

_F = TypeVar("_F", bound="Callable[..., Any]")


def _size(text: str) -> int:
    """Read a number such as 500000, 50M or 20MiB."""
    try:
        return size("it", int(text) if text.isdecimal() else text)
    except ValueError:
        message = f"{text!r} is not a size such as 500000, 50M or 20MiB"
        raise click.BadParameter(message) from None


def _address(text: str) -> tuple[str, int]:
    """Read a host and a port such as 127.0.0.1:9000 or [::1]:9000."""
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        message = f"{text!r} is not an address such as 127.0.0.1:9000"
        raise click.BadParameter(message)
    return host.strip("[]"), int(port)


def _option(name: str, **how: Any) -> Callable[[_F], _F]:
    """Return an option that is also an environment variable: OFFLOOP_ and its name."""
    plain = name.partition("/")[0].removeprefix("--")
    variable = "OFFLOOP_" + plain.replace("-", "_").upper()
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
@_option(
    "--upload-timeout",
    default=_DEFAULTS.upload_timeout,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that an upload may take.",
)
@_option(
    "--max-upload-bytes",
    default="256MiB",
    type=_size,
    metavar="SIZE",
    help="Bytes of all uploads in memory together.",
)
@_option(
    "--memory-limit",
    default="1GiB",
    type=_size,
    metavar="SIZE",
    help="Memory that a worker may take for an image.",
)
@_option(
    "--isolation",
    type=click.Choice(["none", "process", "sandbox"]),
    default=_DEFAULTS.isolation,
    help="Give each image a process of its own, or even one without any rights.",
)
@_option(
    "--codec",
    type=click.Choice(["pillow", "vips"]),
    default=_DEFAULTS.codec,
    help="What decodes and encodes; vips needs the extra of that name.",
)
@_option("--uds", metavar="PATH", help="Unix socket to listen on instead.")
@_option(
    "--metrics-bind",
    type=_address,
    metavar="HOST:PORT",
    help="Serve health and metrics on a port of their own, too.",
)
@_option(
    "--key",
    multiple=True,
    metavar="SECRET",
    help="Take only requests that are signed with it; several: with any of them.",
)
@_option(
    "--allow-origin",
    metavar="ORIGIN",
    help="Let pages of this origin use the server; *: of any.",
)
@_option(
    "--controls/--no-controls",
    default=None,
    show_default="on if it listens to this machine only",
    help="Let the page kill workers and encode on the event loop.",
)
@_option(
    "--debug-headers/--no-debug-headers",
    default=None,
    show_default="as --controls",
    help="Tell sizes and worker of each image in its headers.",
)
@click.option(
    "--health-check",
    is_flag=True,
    help="Ask the server that runs there whether it is alive, and exit with 0 or 1.",
)
def demo(
    host: str,
    port: int,
    uds: str | None,
    metrics_bind: tuple[str, int] | None,
    health_check: bool,
    **options: Any,
) -> None:
    """Serve a page that shrinks and converts images.

    The page is at http://HOST:PORT/; programs send images to /encode.
    """
    if health_check:
        raise SystemExit(0 if is_alive(host, port, uds) else 1)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f'{", ".join(missing)} is missing: pip install "offloop[demo]"'
        )
    if options["codec"] == "vips" and find_spec("pyvips") is None:
        raise click.ClickException('pyvips is missing: pip install "offloop[vips]"')
    from offloop.demo import server

    settings = _settings(options, local=uds is None and is_loopback(host))
    if not server.serve(settings, server.Listen(host, port, uds, metrics_bind)):
        raise SystemExit(1)


def _settings(options: dict[str, Any], *, local: bool) -> Settings:
    """Return the settings that the options of the command make.

    Args:
        options: those that are about images and requests.
        local: only this machine can reach the server.
    """
    limits = dict(options)
    controls, debug_headers = limits.pop("controls"), limits.pop("debug_headers")
    if controls is None:
        controls = local
    if debug_headers is None:
        debug_headers = controls
    keys = limits.pop("key")
    return Settings(**limits, keys=keys, controls=controls, debug_headers=debug_headers)


def settings_from_environment() -> Settings:
    """Return the settings that the environment makes, for a server of somebody else.

    Raises:
        click.UsageError: when a variable has a bad value.
    """
    options = dict(demo.make_context("offloop demo", []).params)
    for name in ("host", "port", "uds", "metrics_bind", "health_check"):
        del options[name]
    return _settings(options, local=False)


def is_alive(host: str, port: int, uds: str | None = None) -> bool:
    """Tell whether a server answers there, within some seconds."""
    try:
        with closing(_connect(host, port, uds)) as connection:
            connection.sendall(_QUESTION)
            with connection.makefile("rb") as answer:
                return answer.readline().split()[1:2] == [b"200"]
    except OSError:
        return False


def _connect(host: str, port: int, uds: str | None) -> socket.socket:
    if uds is None:
        return socket.create_connection((host, port), _PATIENCE)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_PATIENCE)
    try:
        connection.connect(uds)
    except OSError:
        connection.close()
        raise
    return connection
