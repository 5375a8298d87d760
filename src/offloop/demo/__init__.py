"""The image server of ``offloop demo``: pictures in, smaller pictures out.

It shows what the framework is for. Encoding an image takes tens to thousands of
milliseconds of processor time; the process that answers HTTP spends none of them, so it
answers everybody else meanwhile.

    command ─▶ server ─▶ web ─▶ endpoints    orders, upload, variants      the HTTP
                          │        └─▶ making ══ jobs ═══╗                 process:
                          └─▶ watching, controls         ║                 no pixel
    - - - - - - - - - - - - - process border - - - - - - ╫ - - - - - - - - - - - - - -
                                                         ╚═▶ images        workers
                                       source ─▶ arrange ─▶ writers        (or samples)

`recipe` is what both sides speak of, and `problems` what can go wrong; `settings` are
the limits, and `service` is what all requests share. Any ASGI server can run the whole
as ``offloop.demo:app``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["app"]

app: ASGIApp


def __getattr__(name: str) -> object:
    """Make the application when a server asks for ``offloop.demo:app``.

    Its settings are those of ``offloop demo``, from the environment.
    """
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from offloop.demo.command import settings_from_environment
    from offloop.demo.web import build_app

    return build_app(settings_from_environment())
