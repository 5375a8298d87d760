"""The web application: routes, headers, and how each error is answered.

It reads uploads, submits jobs, and writes what comes back. It never looks into an
image: no route does work that grows with one, so all answer at once while images wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import offloop
from offloop import errors
from offloop.demo import jobs
from offloop.demo.marks import Marks
from offloop.demo.problems import Problem, from_pool
from offloop.demo.recipe import FORMATS, parse
from offloop.demo.upload import read_upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp, Receive

    from offloop import Job, Pool
    from offloop.demo.jobs import Encoded
    from offloop.demo.settings import Settings

__all__ = ["build_app"]

_log = logging.getLogger("offloop.demo")

# Should an image turn out to be something else, it must not run anything.
_SANDBOX = {"Content-Security-Policy": "default-src 'none'; sandbox"}

# The page is one file: it loads nothing but images and figures of this server.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
}

# Never written, for the client has left; web servers log this number then.
_CLIENT_LEFT = 499


def build_app(settings: Settings) -> ASGIApp:
    """Return the server as an ASGI application; its lifespan opens and drains the pool.

    Args:
        settings: the limits.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with offloop.Pool(
            settings.workers,
            max_pending=settings.max_pending,
            timeout=settings.timeout,
            preload=jobs.PRELOAD,
            name="demo",
        ) as pool:
            await pool.ready()
            yield {"pool": pool, "settings": settings, "started": time.monotonic()}

    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/encode", _encode, methods=["POST", "PUT"]),
            Route("/sample/{name}", _sample),
            Route("/healthz", _health),
            Route("/readyz", _readiness),
            Route("/stats", _stats),
        ],
        exception_handlers={
            Problem: _answer_problem,
            HTTPException: _answer_http_error,
            ClientDisconnect: _answer_nobody,
            errors.OffloopError: _answer_pool_error,
            Exception: _answer_bug,
        },
        lifespan=lifespan,
    )
    return Marks(app)


async def _page(request: Request) -> Response:
    return HTMLResponse(_PAGE, headers=_PAGE_HEADERS)


async def _encode(request: Request) -> Response:
    arrived = time.perf_counter()
    data, pairs = await read_upload(request, request.state.settings.max_body)
    return await _make_image(request, arrived, jobs.encode, data, parse(pairs))


async def _sample(request: Request) -> Response:
    arrived = time.perf_counter()
    name = request.path_params["name"]
    if name not in jobs.SAMPLES:
        known = ", ".join(jobs.SAMPLES)
        raise Problem(404, f"There is no sample {name!r}; there are: {known}.")
    recipe = parse(request.query_params.multi_items())
    response = await _make_image(request, arrived, jobs.draw, name, recipe)
    response.headers["Cache-Control"] = "public, max-age=3600"
    return response


async def _health(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _readiness(request: Request) -> Response:
    reason = _why_not_ready(request.state.pool, request.state.settings)
    if reason is None:
        return JSONResponse({"ready": True})
    return JSONResponse({"ready": False, "reason": reason}, status_code=503)


def _why_not_ready(pool: Pool, settings: Settings) -> str | None:
    stats = pool.stats()
    if not pool.is_open:
        return "the server is shutting down"
    if not stats.workers:
        return "no worker is ready"
    if stats.pending >= settings.max_pending:
        return "the queue is full"
    return None


async def _stats(request: Request) -> Response:
    settings: Settings = request.state.settings
    limits = {
        "max_body": settings.max_body,
        "max_pending": settings.max_pending,
        "max_pixels": settings.max_pixels,
        "timeout": settings.timeout,
    }
    uptime = round(time.monotonic() - request.state.started, 1)
    figures = request.state.pool.stats().as_dict()
    return JSONResponse(
        {**figures, "limits": limits, "uptime": uptime, "version": offloop.__version__},
        headers={"Cache-Control": "no-store"},
    )


async def _make_image(
    request: Request,
    arrived: float,
    work: Callable[..., Encoded],
    *what: object,
) -> Response:
    """Have a worker make an image, and answer with it.

    Args:
        request: who asked, and may leave.
        arrived: when, on `time.perf_counter`.
        work: a function of `jobs`.
        *what: its arguments, but for the pixel limit, which comes last.
    """
    max_pixels = request.state.settings.max_pixels
    job = request.state.pool.submit(work, *what, max_pixels)
    encoded = await _result_unless_left(job, request.receive)
    timing = _server_timing(job, encoded, time.perf_counter() - arrived)
    return Response(
        encoded.data,
        media_type=FORMATS[encoded.format],
        headers={"Server-Timing": timing, **_SANDBOX},
    )


async def _result_unless_left(job: Job[Encoded], receive: Receive) -> Encoded:
    """Wait for the job, but cancel it when the client leaves: nobody needs it then."""
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        either: set[asyncio.Future[Any]] = {job, leaving}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientDisconnect
        return job.result()
    finally:
        leaving.cancel()
        job.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the end of a body that nobody waits for


def _server_timing(job: Job[Encoded], encoded: Encoded, total: float) -> str:
    spans = {
        "queue": job.timings.queued,
        "run": job.timings.run,
        "decode": encoded.decode,
        "resize": encoded.resize,
        "encode": encoded.encode,
        "total": total,
    }
    return ", ".join(f"{name};dur={1000 * s:.1f}" for name, s in spans.items())


# Starlette hands every handler the class that it is registered for, but types them all
# as Exception.


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return JSONResponse(
        error.as_dict(),
        status_code=error.status,
        headers={"Cache-Control": "no-store", **error.headers},
        media_type="application/problem+json",
    )


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}."
    elif error.status_code == 405:
        detail = f"{request.url.path} takes {headers.get('Allow')}."
    problem = Problem(error.status_code, detail, headers=headers)
    return await _answer_problem(request, problem)


async def _answer_pool_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.OffloopError)
    problem = from_pool(error)
    if problem.status >= 500:
        _log.warning("%s: %s", request.url.path, error)
    return await _answer_problem(request, problem)


async def _answer_bug(request: Request, error: Exception) -> Response:
    # The error itself goes on to the web server, which logs it with its traceback.
    return await _answer_problem(request, Problem(500, "The server made a mistake."))


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)


_PAGE = files("offloop.demo").joinpath("page.html").read_bytes()
