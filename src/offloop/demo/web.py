"""The web application: which routes there are.

It reads uploads, submits jobs, and writes what comes back. It never looks into an
image: no route does work that grows with one, so all answer at once while images wait.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from offloop.demo import controls, endpoints, watching
from offloop.demo.answers import HANDLERS
from offloop.demo.marks import Marks
from offloop.demo.service import open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from offloop.demo.service import Service
    from offloop.demo.settings import Settings

__all__ = ["build_app", "build_watching_app"]

# What a page of another origin may read of an answer.
_EXPOSED = (
    "ETag",
    "Server-Timing",
    "X-Request-Id",
    "Retry-After",
    "Content-Disposition",
)


def build_app(settings: Settings, closing: asyncio.Event | None = None) -> ASGIApp:
    """Return the server as an ASGI application; its lifespan opens and drains the pool.

    Args:
        settings: the limits.
        closing: set by whoever ends the server, before it waits for requests, so that
            endless answers end; None: there is nobody who would.
    """
    ending = closing or asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with open_service(settings, ending) as service:
            yield {"service": service}

    routes = [
        Route("/", watching.page),
        Route("/encode", endpoints.encode, methods=["POST", "PUT"]),
        Route("/thumbnail", endpoints.thumbnail, methods=["POST", "PUT"]),
        Route("/pipeline", endpoints.make_pipeline, methods=["POST", "PUT"]),
        Route("/variants", endpoints.make_variants, methods=["POST", "PUT"]),
        Route("/info", endpoints.info, methods=["POST", "PUT"]),
        Route("/sample/{name}", endpoints.sample),
        Route("/healthz", watching.health),
        Route("/readyz", watching.readiness),
        Route("/metrics", watching.metrics),
        Route("/stats", watching.stats),
        Route("/events", watching.events),
        Route("/openapi.json", watching.schema),
        Route("/controls/kill", controls.kill, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers=HANDLERS,
        lifespan=lifespan,
        middleware=_middleware(settings),
    )
    return Marks(app, {route.path.split("/")[1] for route in routes})


def build_watching_app(service: Service) -> ASGIApp:
    """Return an application with nothing but health and figures.

    It is for a port of its own, which a flood of images or a closed firewall does not
    keep from answering.
    """
    app = Starlette(
        routes=[
            Route("/healthz", watching.health),
            Route("/readyz", watching.readiness),
            Route("/metrics", watching.metrics),
        ],
        exception_handlers=HANDLERS,
    )

    async def with_service(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["service"] = service
        await app(scope, receive, send)

    return with_service


def _middleware(settings: Settings) -> list[Middleware]:
    if settings.allow_origin is None:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[settings.allow_origin],
        allow_methods=["GET", "POST", "PUT"],
        allow_headers=["If-None-Match", "X-Request-Id"],
        expose_headers=_EXPOSED,
    )
    return [cors]
