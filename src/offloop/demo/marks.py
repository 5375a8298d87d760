"""What every answer carries, whoever wrote it; and its place in the figures.

An ASGI layer of its own around the application, because the answer to a bug is written
outside of all of the application's own layers.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from offloop.demo import tracing

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from offloop.demo.service import Service

__all__ = ["Marks"]

# The answers of these depend on the Accept header, their errors too.
_NEGOTIATING = ("encode", "thumbnail", "pipeline", "variants", "sample")


class Marks:
    """Wraps an application: adds headers to each of its answers, and counts it.

    Args:
        app: the application.
        routes: first parts of the paths that it has; others are counted together, or
            anybody could make as many figures as there are words.
    """

    def __init__(self, app: ASGIApp, routes: Collection[str]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        first = scope["path"].removeprefix(scope.get("root_path", "")).split("/")[1:2]
        route = first[0] if first and first[0] in self._routes else "other"
        request_id = tracing.begin(Headers(scope=scope))
        status = 499  # unless something is answered, the client has left

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                if route in _NEGOTIATING:
                    headers.add_vary_header("Accept")
            await send(message)

        try:
            await self._app(scope, receive, marked)
        finally:
            service: Service | None = scope.get("state", {}).get("service")
            if service is not None:
                seconds = perf_counter() - began
                service.metrics.note_request(f"/{route}", status, seconds)
