"""A web server whose heavy endpoint leaves the event loop free.

    uvicorn --app-dir examples/web app:app
    curl 'http://127.0.0.1:8000/fib?n=27'
    curl 'http://127.0.0.1:8000/ping'

While the first request is being worked on, the second is answered at once. A client
that goes away cancels its job, and a job that runs longer than a second is stopped.

Servers tell an application that its client is gone, and cancel nothing:
`CancelOnDisconnect` does, for any ASGI application, FastAPI's too.
"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from offloop import lifespan, offload
from offloop.errors import JobTimeout, PoolFull
from offloop.web import CancelOnDisconnect


@offload(run_timeout=1, on_full="raise")
def fib(n: int) -> int:
    return n if n < 2 else fib.local(n - 1) + fib.local(n - 2)


async def fib_endpoint(request: Request) -> Response:
    n = int(request.query_params.get("n", "20"))
    try:
        return JSONResponse({"n": n, "fib": await fib(n)})
    except PoolFull as full:  # better a quick refusal than a slow answer
        wait = str(round(full.retry_after or 1))
        return PlainTextResponse("busy\n", 503, headers={"Retry-After": wait})
    except JobTimeout:
        return PlainTextResponse("that takes too long\n", 422)


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong\n")


routes = [Route("/fib", fib_endpoint), Route("/ping", ping)]
app = Starlette(
    routes=routes,
    lifespan=lifespan(max_pending=100),  # the workers start and end with the server
    middleware=[Middleware(CancelOnDisconnect)],
)
