"""The routes for those who watch: health, figures, events, and the page."""

from __future__ import annotations

import asyncio
import json
import time
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)

import offloop
from offloop.demo import openapi
from offloop.demo.metrics import CONTENT_TYPE
from offloop.demo.orders import service_of
from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from offloop.demo.service import Service

__all__ = [
    "events",
    "health",
    "metrics",
    "page",
    "readiness",
    "schema",
    "stats",
]

# The page is one file: it loads nothing but images and figures of this server.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}

_NO_STORE = {"Cache-Control": "no-store"}

# Seconds between two events, and how many may listen: each costs a connection.
_PERIOD = 0.25
_MAX_LISTENERS = 32


async def page(request: Request) -> Response:
    """Return the page."""
    return HTMLResponse(_page(), headers=_PAGE_HEADERS)


@cache
def _page() -> bytes:
    return files("offloop.demo").joinpath("page.html").read_bytes()


async def health(request: Request) -> Response:
    """Tell that the loop is alive: whatever the pool does, this answers."""
    return PlainTextResponse("ok\n", headers=_NO_STORE)


async def readiness(request: Request) -> Response:
    """Tell whether an image that is sent now would be taken."""
    reason = _why_not_ready(service_of(request))
    if reason is None:
        return JSONResponse({"ready": True}, headers=_NO_STORE)
    answer = {"ready": False, "reason": reason}
    return JSONResponse(answer, status_code=503, headers=_NO_STORE)


def _why_not_ready(service: Service) -> str | None:
    if service.closing.is_set() or not service.pool.is_open:
        return "the server is shutting down"
    if not service.pool.stats().workers:
        return "no worker is ready"
    if service.pending >= service.settings.max_pending:
        return "the queue is full"
    return None


async def metrics(request: Request) -> Response:
    """Return all figures for Prometheus."""
    text = service_of(request).metrics.text()
    return Response(text, headers={"Content-Type": CONTENT_TYPE, **_NO_STORE})


async def schema(request: Request) -> Response:
    """Return the OpenAPI document."""
    service = service_of(request)
    settings = service.settings
    text = openapi.text(
        service.abilities.writes, settings.controls, bool(settings.keys)
    )
    return Response(text, media_type="application/json", headers=_NO_STORE)


async def stats(request: Request) -> Response:
    """Return the figures of the pool and of the server, once."""
    service = service_of(request)
    return JSONResponse(snapshot(service, time.monotonic() - 1), headers=_NO_STORE)


def snapshot(service: Service, since: float) -> dict[str, Any]:
    """Return the figures of this moment.

    Args:
        service: whose.
        since: monotonic seconds; samples of the lag after it are told.
    """
    settings = service.settings
    figures = service.pool.stats()
    now = time.monotonic()
    lag = [
        [round(sample.at - now, 3), round(1000 * sample.lag, 1)]
        for sample in service.lag.since(since)
    ]
    return {
        **figures.as_dict(),
        "aside": service.aside,
        "refused": service.metrics.refused,
        "processes": service.board.workers(figures.workers),
        "lag_ms": lag,
        "upload_bytes": service.budget.used,
        "retry_after": service.retry_after(),
        "uptime": round(now - service.started, 1),
        "version": offloop.__version__,
        "encoders": service.abilities.versions,
        "writes": service.abilities.writes,
        "controls": settings.controls,
        "limits": {
            "max_body": settings.max_body,
            "max_pending": settings.max_pending,
            "max_pixels": settings.max_pixels,
            "timeout": settings.timeout,
        },
    }


async def events(request: Request) -> Response:
    """Send the figures again and again, as server-sent events."""
    service = service_of(request)
    if service.listeners >= _MAX_LISTENERS:
        raise Problem(
            503,
            f"{_MAX_LISTENERS} others listen already; ask /stats instead.",
            headers={"Retry-After": "10"},
        )
    return StreamingResponse(
        _figures(service), media_type="text/event-stream", headers=_NO_STORE
    )


async def _figures(service: Service) -> AsyncIterator[str]:
    service.listeners += 1
    try:
        seen = time.monotonic() - 1
        while not service.closing.is_set():
            now = time.monotonic()
            yield f"data: {json.dumps(snapshot(service, seen))}\n\n"
            seen = now
            try:
                async with asyncio.timeout(_PERIOD):
                    await service.closing.wait()
            except TimeoutError:
                pass
    finally:
        service.listeners -= 1
