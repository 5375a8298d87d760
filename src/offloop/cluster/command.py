"""The command ``offloop serve``: options and their checks."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from offloop.cluster.coordinate import PoolSettings
    from offloop.cluster.settings import ServeSettings

_POOL_OPTIONS = [
    click.Option(
        ["--compute"],
        type=click.IntRange(min=0),
        metavar="N",
        help="Compute workers; by default the usable cores less one; 0: no pool.",
    ),
    click.Option(
        ["--name"],
        default="default",
        help='Of the shared pool: Pool(engine="shared://NAME").',
    ),
    click.Option(
        ["--max-pending"],
        type=click.IntRange(min=1),
        default=100_000,
        metavar="N",
        help="Jobs of all clients together that may wait or run.",
    ),
    click.Option(
        ["--max-pending-per-client"],
        type=click.IntRange(min=1),
        metavar="N",
        help="The same for each client; by default as many.",
    ),
    click.Option(
        ["--preload"],
        multiple=True,
        metavar="MODULE",
        help="Import a module before the first worker is forked; may be repeated.",
    ),
    click.Option(
        ["--memory-limit"],
        metavar="SIZE",
        help="Bytes that a compute worker may hold, such as 512MiB.",
    ),
    click.Option(
        ["--recycle-jobs"],
        type=click.IntRange(min=1),
        metavar="N",
        help="Replace a compute worker after so many jobs.",
    ),
    click.Option(
        ["--recycle-age"],
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Replace a compute worker at this age.",
    ),
    click.Option(
        ["--recycle-rss"],
        metavar="SIZE",
        help="Replace a compute worker that holds more than so many bytes.",
    ),
]

_SERVER_OPTIONS = [
    click.Option(
        ["-w", "--workers"],
        type=click.IntRange(min=1),
        default=1,
        metavar="N",
        help="Servers.",
    ),
    click.Option(
        ["-b", "--bind"],
        multiple=True,
        default=("127.0.0.1:8000",),
        metavar="ADDRESS",
        help="HOST:PORT or unix:PATH to listen at; may be repeated.",
    ),
    click.Option(
        ["--port-each"],
        default="",
        show_default=False,
        metavar="HOST:PORT",
        help="Instead: a port for each server, this one and those that follow.",
    ),
    click.Option(
        ["--app-dir"],
        default=".",
        type=click.Path(exists=True, file_okay=False, resolve_path=True),
        help="Directory that modules are imported from first.",
    ),
    click.Option(["--pin"], is_flag=True, help="Tie each server to one core."),
    click.Option(
        ["--graceful-timeout"],
        type=click.FloatRange(min=0),
        default=30.0,
        metavar="SECONDS",
        help="That open requests get when a server goes.",
    ),
    click.Option(
        ["--boot-timeout"],
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        metavar="SECONDS",
        help="That a server has until it is ready.",
    ),
    click.Option(
        ["--limit-concurrency"],
        type=click.IntRange(min=1),
        metavar="N",
        help="Requests that a server may have in hand; others get 503 and Retry-After.",
    ),
    click.Option(
        ["--max-requests"],
        type=click.IntRange(min=1),
        metavar="N",
        help="Replace a server after so many requests.",
    ),
    click.Option(
        ["--max-age"],
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Replace a server at this age.",
    ),
    click.Option(
        ["--max-rss"],
        metavar="SIZE",
        help="Replace a server that holds so many bytes.",
    ),
    click.Option(
        ["--probe"],
        default="",
        show_default=False,
        metavar="PATH",
        help="That a new version must answer without an error before it may serve.",
    ),
    click.Option(
        ["--watch"],
        is_flag=True,
        help="Take new code as soon as a file below --app-dir has changed.",
    ),
    click.Option(
        ["--pidfile"],
        default="",
        show_default=False,
        metavar="PATH",
        help="For the process id; refused while another process lives that has it.",
    ),
    click.Option(
        ["--ready-path"],
        default="",
        show_default=False,
        metavar="PATH",
        help="Answer this path oneself: 503 if no more requests should come, else 200.",
    ),
]

# Options of uvicorn that are passed through, and what stands for them when they are
# not given.
_UVICORN_OPTIONS = [
    click.Option(["--factory"], is_flag=True, help="APP is a function that makes it."),
    click.Option(["--ssl-keyfile"], type=click.Path(exists=True), metavar="PATH"),
    click.Option(["--ssl-certfile"], type=click.Path(exists=True), metavar="PATH"),
    click.Option(["--ssl-keyfile-password"], metavar="TEXT"),
    click.Option(["--ssl-ca-certs"], type=click.Path(exists=True), metavar="PATH"),
    click.Option(["--ssl-cert-reqs"], type=int, metavar="N"),
    click.Option(["--ssl-ciphers"], metavar="TEXT"),
    click.Option(["--root-path"], metavar="PATH", help="Where a proxy has mounted it."),
    click.Option(["--loop"], metavar="NAME", help="auto, asyncio or uvloop."),
    click.Option(["--http"], metavar="NAME", help="auto, h11 or httptools."),
    click.Option(["--ws"], metavar="NAME", help="auto, none, websockets or wsproto."),
    click.Option(["--lifespan"], type=click.Choice(["auto", "on", "off"])),
    click.Option(["--log-level"], metavar="LEVEL", help="Of uvicorn's logs."),
    click.Option(["--access-log/--no-access-log"], default=None),
    click.Option(["--proxy-headers/--no-proxy-headers"], default=None),
    click.Option(["--forwarded-allow-ips"], metavar="ADDRESSES"),
    click.Option(["--server-header/--no-server-header"], default=None),
    click.Option(["--timeout-keep-alive"], type=int, metavar="SECONDS"),
]


@click.command()
@click.argument("app", required=False)
@click.option("--log-json", is_flag=True, help="Write each line as a JSON object.")
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="Write lines there instead of stdout; ten files of 10 MiB are kept.",
)
def serve(
    app: str | None, log_json: bool, log_file: str | None, **options: Any
) -> None:
    """Serve an ASGI application by several processes with one compute pool.

    APP is MODULE:ATTRIBUTE. Everything that it offloads runs on the workers of one
    pool, which other programs of this user can share by Pool(engine="shared"), or
    unchanged with OFFLOOP_ENGINE=shared in their environment. Without APP there is
    nothing but that pool.

    SIGTERM or Ctrl-C lets open requests end; Ctrl-C again, or SIGQUIT, ends it at once.
    SIGUSR2 has a new one take over, as `offloop upgrade` does.

    \b
    Examples:
      offloop serve app:app --workers 4 --compute 8 --bind 0.0.0.0:8000
      offloop serve --factory app:make --bind unix:/run/app.sock --bind :8000
      offloop serve --compute 4
      offloop serve --compute 2 --name night
    """
    from offloop.cluster import init
    from offloop.cluster.coordinate import PoolSettings
    from offloop.errors import StartError, UsageError

    if app is None and options["compute"] == 0:
        raise click.UsageError("without APP there must be compute workers")
    pool = _chosen(PoolSettings, options)
    init.stand_aside()
    try:
        if app is None:
            _coordinate(pool)
            return
        from offloop.cluster.launch import launch

        settings = _serve_settings(app, options)
        code = launch(settings, pool, as_json=log_json, log_file=log_file)
    except (StartError, UsageError, ValueError) as error:
        print(f"offloop serve: {error}", file=sys.stderr)
        if isinstance(error, StartError) and error.output:
            print(error.output, file=sys.stderr)
        raise SystemExit(3) from None
    sys.exit(code)


serve.params[1:1] = [*_SERVER_OPTIONS, *_POOL_OPTIONS, *_UVICORN_OPTIONS]


def _chosen(kind: Any, options: dict[str, Any]) -> Any:
    """Return settings of a kind, made of those options that are its."""
    names = kind.__slots__
    return kind(**{name: options[name] for name in names if name in options})


def _serve_settings(app: str, options: dict[str, Any]) -> ServeSettings:
    from dataclasses import replace

    from offloop.cluster.settings import ServeSettings

    names = [str(option.name) for option in _UVICORN_OPTIONS]
    uvicorn = {name: options[name] for name in names if options[name] is not None}
    settings: ServeSettings = _chosen(ServeSettings, {**options, "app": app})
    return replace(settings, uvicorn=uvicorn)


def _coordinate(settings: PoolSettings) -> None:
    """Run a shared pool and nothing else."""
    from offloop import runtime
    from offloop.cluster.coordinate import coordinate

    home = runtime.make_home(settings.name)

    def ready() -> None:
        print(f"The shared pool is ready at {home / 'pool.sock'}", flush=True)

    asyncio.run(coordinate(settings, home, ready))
