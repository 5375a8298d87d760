"""The command line: which commands there are, and where each lives.

Commands are found in modules of their own, which import what they need only when they
run; so `offloop --help` is quick, and one command's missing dependency is no other's
trouble.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from offloop import __version__

if TYPE_CHECKING:
    import click

__all__ = ["main"]

# Name of each command, and the module that holds it under that name, with "_" for "-".
_COMMANDS = {
    "demo": "offloop.demo.command",
    "doctor": "offloop.doctor.command",
    "serve": "offloop.cluster.command",
    "systemd-unit": "offloop.cluster.units",
    "proxy-config": "offloop.cluster.proxy_command",
    "top": "offloop.top.command",
    **dict.fromkeys(
        (
            *("status", "reload", "upgrade", "scale", "stop", "drain", "resume"),
            *("dump", "signal", "logs"),
        ),
        "offloop.cluster.operate",
    ),
}


def main() -> None:
    """Run the command that the program's arguments name."""
    try:
        group = _group()
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        if sys.argv[1:] == ["--version"]:  # a bare installation has that to tell
            print(f"offloop, version {__version__}")
            return
        sys.exit('The command line needs click: pip install "offloop[demo]"')
    group(prog_name="offloop")


def _group() -> click.Group:
    import click

    group = click.Group(
        help="Take the work off the loop: every core for asyncio programs.",
        epilog="`offloop COMMAND --help` explains a command, with examples.",
        context_settings={
            "help_option_names": ["-h", "--help"],
            "show_default": True,
        },
    )
    for name, module in _COMMANDS.items():
        group.add_command(getattr(import_module(module), name.replace("-", "_")))
    return click.version_option(__version__, prog_name="offloop")(group)
