"""The command ``offloop systemd-unit``: a unit file for `offloop serve`.

It knows what systemd must be told about a program that reports readiness and reloads,
drains before it ends, and answers for its children.
"""

from __future__ import annotations

import os
import shlex
import sys

import click

# Seconds that systemd waits for longer than requests have to end.
_OVERTIME = 20

_UNIT = """\
[Unit]
Description={description}
After=network.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={folder}
{user}# SIGTERM is for the primary alone: it lets requests end, and then its children.
KillMode=mixed
TimeoutStopSec={stop}
TimeoutStartSec=infinity
WatchdogSec=30
Restart=on-failure
RuntimeDirectory={name}
RuntimeDirectoryMode=0700
Environment=OFFLOOP_RUNTIME_DIR=%t/{name}

[Install]
WantedBy=multi-user.target
"""


@click.command(
    "systemd-unit",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def systemd_unit(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Print a unit file for `offloop serve` with these ARGUMENTS.

    \b
    Example:
      offloop systemd-unit app:app --workers 4 --bind 0.0.0.0:8000 \\
          > /etc/systemd/system/app.service

    The service runs in this directory, with this Python.
    """
    from offloop.cluster.command import serve

    if not arguments or {"-h", "--help"} & set(arguments):
        print(context.get_help())
        return
    parsed = serve.make_context("offloop serve", list(arguments))
    app = parsed.params["app"]
    if app is None:
        raise click.UsageError("name the application: offloop systemd-unit APP ...")
    print(unit_of(app, arguments, parsed.params["graceful_timeout"]), end="")


def unit_of(app: str, arguments: tuple[str, ...], graceful: float) -> str:
    """Return the unit file.

    Args:
        app: what is served.
        arguments: of `offloop serve`.
        graceful: seconds that requests have to end.
    """
    command = [sys.executable, "-m", "offloop", "serve", *arguments]
    # To systemd "%" begins a specifier and "$" a variable.
    line = shlex.join(command).replace("%", "%%").replace("$", "$$")
    return _UNIT.format(
        description=f"{app}, by offloop".replace("%", "%%"),
        command=line,
        folder=os.getcwd().replace("%", "%%"),
        user="" if os.getuid() == 0 else f"User={os.getuid()}\n",
        stop=int(graceful) + _OVERTIME,
        name="offloop-" + app.partition(":")[0].replace(".", "-"),
    )
