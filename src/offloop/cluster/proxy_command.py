"""The command ``offloop proxy-config``: options and their checks."""

from __future__ import annotations

import sys
from typing import Any

import click


def _pairs(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Split each FROM=TO."""
    pairs = [text.partition("=") for text in value]
    for text, (left, _, right) in zip(value, pairs, strict=True):
        if not (left.startswith("/") and right):
            raise click.BadParameter(f"{text!r} is not /PATH=SOMETHING")
    return tuple((left, right) for left, _, right in pairs)


@click.command("proxy-config")
@click.argument("kind", type=click.Choice(["nginx", "haproxy"]))
@click.option(
    "--to",
    "backends",
    multiple=True,
    metavar="ADDRESS",
    help="HOST:PORT or unix:PATH of servers; may be repeated. By default those of the "
    "`offloop serve` that runs here.",
)
@click.option(
    "--listen",
    default="*:80",
    metavar="ADDRESS",
    help="Where the proxy listens.",
)
@click.option(
    "--ready-path",
    default="",
    show_default=False,
    metavar="PATH",
    help="As of `offloop serve`: who answers it with 503 gets no more requests "
    "(HAProxy).",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Requests that each address gets at once; 0: any number.",
)
@click.option(
    "--client-connections",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Connections that one client may have; 0: any number.",
)
@click.option(
    "--static",
    multiple=True,
    callback=_pairs,
    metavar="/PATH/=DIR/",
    help="Serve files of a directory (nginx).",
)
@click.option(
    "--rewrite",
    "rewrites",
    multiple=True,
    callback=_pairs,
    metavar="/OLD=/NEW",
    help="Change the beginning of paths.",
)
@click.option(
    "--deny", multiple=True, metavar="/PATH", help="Answer with 404 from outside."
)
@click.option(
    "--pass",
    "passes",
    multiple=True,
    callback=_pairs,
    metavar="/PATH=HOST:PORT",
    help="Pass requests on to another service.",
)
@click.option("--name", default="default", help="Of the `offloop serve` that is meant.")
def proxy_config(kind: str, name: str, **options: Any) -> None:
    """Print a configuration of nginx or HAProxy for servers of `offloop serve`.

    \b
    Examples:
      offloop proxy-config nginx > /etc/nginx/conf.d/offloop.conf
      offloop proxy-config nginx --to 127.0.0.1:3000 --to 127.0.0.1:3001
      offloop proxy-config haproxy --to 10.0.0.1:8000 --to 10.0.0.2:8000 \\
          --ready-path /readyz > /etc/haproxy/haproxy.cfg
    """
    from offloop.cluster import proxies
    from offloop.errors import StartError, UsageError

    try:
        if not options["backends"]:
            options["backends"] = _running(name)
        front = proxies.Front(**options)
        print({"nginx": proxies.nginx, "haproxy": proxies.haproxy}[kind](front), end="")
    except (StartError, UsageError) as error:
        print(f"offloop proxy-config: {error}", file=sys.stderr)
        raise SystemExit(3 if isinstance(error, StartError) else 1) from None


def _running(name: str) -> tuple[str, ...]:
    """Return where the servers of a running `offloop serve` are."""
    from offloop.cluster.control import ask

    urls = ask(name, "status")["urls"]
    return tuple(url.rpartition("//")[2] for url in urls)
