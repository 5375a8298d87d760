"""The route for one's own machine: killing a worker, to see what becomes of its job.

Anybody who can reach it can do harm, so it is off unless the server is for this machine
alone, and then it answers only to requests that come from it, without a proxy between
and not sent by a page of another site.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from offloop import errors
from offloop.demo import jobs
from offloop.demo.loopback import is_loopback
from offloop.demo.orders import service_of
from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["kill"]

# A proxy on this machine makes the whole world look local.
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


async def kill(request: Request) -> Response:
    """Kill a worker, as a crash or the kernel would.

    The query may name it by its number: `worker=3`. Otherwise it is the one that takes
    the next job.
    """
    _check_caller(request)
    service = service_of(request)
    text = request.query_params.get("worker", "")
    if text and not (text.isascii() and text.isdigit()):
        raise Problem(400, f"worker must be a number, not {text[:40]!r}.", "worker")
    pid = service.board.pid(int(text[:18])) if text else None
    if pid is not None and _is_ours(pid):
        os.kill(pid, signal.SIGKILL)
        service.board.forget(int(text))
    elif text:
        raise Problem(404, f"There is no worker {text[:18]} now.", "worker")
    else:
        try:
            await service.pool.options(priority=100).run(jobs.die)
        except errors.WorkerLost as lost:
            service.board.forget(lost.worker)
            pid = lost.pid
    return JSONResponse({"killed": pid}, headers={"Cache-Control": "no-store"})


def _check_caller(request: Request) -> None:
    if not service_of(request).settings.controls:
        raise Problem(403, "This server has no controls; see --controls.")
    headers = request.headers
    local = (
        is_loopback(request.client.host if request.client else "")
        and is_loopback(request.url.hostname or "")
        and not any(name in headers for name in _PROXY_HEADERS)
        and headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    )
    if not local:
        raise Problem(403, "The controls answer only to the machine that they run on.")


def _is_ours(pid: int) -> bool:
    """Tell whether a process is a descendant of this one; numbers are used again."""
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            # Its name, in parentheses, may hold anything; the parent comes after it.
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(stat.rpartition(")")[2].split()[1])
    return False
