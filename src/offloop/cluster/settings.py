"""What `offloop serve` was asked for, in plain values that travel to its children."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from offloop.options import Recycle

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How an application is served.

    Attributes:
        app: what to serve, as "module:attribute".
        workers: servers.
        bind: where to listen, each "HOST:PORT" or "unix:PATH".
        port_each: where the first server listens, as "HOST:PORT"; each further one has
            the next port; "": all listen at `bind`.
        app_dir: directory that modules are imported from first.
        pin: tie each server to one core.
        graceful_timeout: seconds that open requests get when a server goes.
        boot_timeout: seconds that a server has until it is ready.
        limit_concurrency: requests that a server may have in hand; those that are more
            are turned away with 503; None: any number.
        max_requests, max_age, max_rss: after so many requests, seconds, or at so many
            bytes a server is replaced by a fresh one; None: never.
        ready_path: path of a request that asks whether this is a good place for more
            requests; "": the application has its own.
        watch: take new code as soon as a source file below `app_dir` has changed.
        pidfile: file for the primary's process id; "": none.
        probe: path that must be answered without an error before a new version of the
            application may serve; "": to be ready is enough.
        uvicorn: options of `uvicorn.Config`, passed through.
    """

    app: str
    workers: int = 1
    bind: tuple[str, ...] = ("127.0.0.1:8000",)
    port_each: str = ""
    app_dir: str = "."
    pin: bool = False
    graceful_timeout: float = 30.0
    boot_timeout: float = 60.0
    limit_concurrency: int | None = None
    max_requests: int | None = None
    max_age: float | None = None
    max_rss: int | str | None = None
    ready_path: str = ""
    probe: str = ""
    watch: bool = False
    pidfile: str = ""
    uvicorn: Mapping[str, Any] = field(default_factory=dict)

    def recycle(self) -> Recycle | None:
        """Return when a server has been used enough; None: never.

        Raises:
            ValueError, TypeError: a limit is out of range.
        """
        limits = (self.max_requests, self.max_age, self.max_rss)
        return None if limits == (None, None, None) else Recycle(*limits)
