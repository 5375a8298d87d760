"""An ASGI application that does what tests ask for in the path of a request."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from urllib.parse import parse_qs

import jobs
from offloop import offload

pid = offload(os.getpid)
parent = offload(os.getppid)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http":
        query = parse_qs(scope["query_string"].decode())
        text = str(await _ACTIONS[scope["path"]](query))
        body = text.encode()
        headers = [(b"content-length", str(len(body)).encode())]
        status = 200
        await send(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await send({"type": "http.response.body", "body": body})


def no_app():
    """Fail as an application with a fault does."""
    raise RuntimeError("the configuration is missing")


async def _live(receive, send):
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _pid(query):
    return os.getpid()


async def _block(query):
    """Hold the loop until a gate opens."""
    jobs.meet(*query["gates"][0].split(","))
    return os.getpid()


async def _busy(query):
    """Hold the loop for a tenth of a second."""
    time.sleep(0.1)  # noqa: ASYNC251  # that is what it is about
    return os.getpid()


async def _meet(query):
    """Wait for a gate beside the loop."""
    gates = query["gates"][0].split(",")
    await asyncio.get_running_loop().run_in_executor(None, jobs.meet, *gates)
    return os.getpid()


async def _offloaded(query):
    """Tell in which process of which pool a job runs."""
    return f"{await pid()} {await parent()}"


async def _print(query):
    print(*query["text"])
    return "printed"


async def _exit(query):
    os._exit(int(query["code"][0]))


async def _orphan(query):
    """Leave a process behind that has ended before anybody looks."""
    subprocess.run(["sh", "-c", "true & exit"], check=True)  # noqa: ASYNC221
    return "left"


async def _cores(query):
    return sorted(os.sched_getaffinity(0))


_ACTIONS = {
    "/pid": _pid,
    "/block": _block,
    "/busy": _busy,
    "/meet": _meet,
    "/offloaded": _offloaded,
    "/print": _print,
    "/exit": _exit,
    "/cores": _cores,
    "/orphan": _orphan,
}
