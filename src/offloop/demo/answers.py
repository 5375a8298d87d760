"""How each thing that goes wrong is answered: as problem details (RFC 9457)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from offloop import errors
from offloop.demo import tracing
from offloop.demo.problems import Problem, from_pool

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["HANDLERS", "problem_response"]

_log = logging.getLogger("offloop.demo")

# Never written, for the client has left; web servers log this number then.
_CLIENT_LEFT = 499


def problem_response(problem: Problem) -> Response:
    """Return a problem as the answer to a request."""
    return JSONResponse(
        problem.as_dict(),
        status_code=problem.status,
        headers={"Cache-Control": "no-store", **problem.headers},
        media_type="application/problem+json",
    )


# Starlette hands every handler the class that it is registered for, but types them all
# as Exception.


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path[:200]}."
    elif error.status_code == 405:
        detail = f"{request.url.path} takes {headers.get('Allow')}."
    return problem_response(Problem(error.status_code, detail, headers=headers))


async def _answer_pool_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.OffloopError)
    problem = from_pool(error, request.state.service.retry_after())
    if problem.status >= 500:
        _log.warning("%s, %s: %s", request.url.path, _whose(), error)
    return problem_response(problem)


def _whose() -> str:
    """Return how the log tells one request from the others."""
    span = tracing.traceparent.get()
    return f"request {tracing.request_id.get()}" + (f", trace {span}" if span else "")


async def _answer_bug(request: Request, error: Exception) -> Response:
    # The error itself goes on to the web server, which logs it with its traceback.
    return problem_response(Problem(500, "The server made a mistake."))


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)


HANDLERS: dict[Any, Any] = {
    Problem: _answer_problem,
    HTTPException: _answer_http_error,
    ClientDisconnect: _answer_nobody,
    errors.OffloopError: _answer_pool_error,
    Exception: _answer_bug,
}
