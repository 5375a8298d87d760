"""Clients that go away take the work for them along: by hand, and by a real server."""

from __future__ import annotations

import asyncio
import contextlib
import os

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request  # noqa: TC002 - FastAPI reads annotations
from starlette.responses import PlainTextResponse

import jobs
import offloop
from offloop import Pool
from offloop.errors import StartError
from offloop.web import CancelOnDisconnect

GONE = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": []}
PART = {"type": "http.response.body", "body": b"part", "more_body": True}
END = {"type": "http.response.body", "body": b"end"}


class Server:
    """What a server is to one request: it says what it is told to say."""

    def __init__(self, *messages):
        self.says = asyncio.Queue()
        self.asked = 0
        self.heard = []
        for message in messages:
            self.says.put_nowait(message)

    async def receive(self):
        self.asked += 1
        message = await self.says.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message):
        self.heard.append(message)

    async def serve(self, app, kind="http", headers=()):
        scope = {"type": kind, "headers": headers}
        await CancelOnDisconnect(app)(scope, self.receive, self.send)


def body(part, more=False):
    return {"type": "http.request", "body": part, "more_body": more}


async def for_ever(scope, receive, send):
    await asyncio.Event().wait()


async def test_who_goes_before_the_answer_cancels_it():
    server = Server(body(b""))
    cancelled = []

    async def app(scope, receive, send):
        server.says.put_nowait(GONE)
        try:
            await for_ever(scope, receive, send)
        except asyncio.CancelledError:
            cancelled.append([await receive() for _ in range(3)])
            raise

    await server.serve(app)
    assert cancelled == [[body(b""), GONE, GONE]]
    assert server.heard == []


async def test_who_goes_in_the_midst_of_an_answer_cancels_the_rest():
    server = Server(body(b""))

    async def app(scope, receive, send):
        await send(START)
        await send(PART)
        assert await receive() == body(b"")
        server.says.put_nowait(GONE)
        assert await receive() == GONE
        await for_ever(scope, receive, send)

    await server.serve(app)
    assert server.heard == [START, PART]


@pytest.mark.parametrize("last", [END, {"type": "http.response.pathsend"}])
async def test_what_follows_an_answer_goes_on(last):
    server, over = Server(body(b"")), []

    async def app(scope, receive, send):
        await send(START)
        await send(last)
        server.says.put_nowait(GONE)
        while await receive() != GONE:
            pass
        over.append(await asyncio.sleep(0, "done"))

    await server.serve(app)
    assert over == ["done"]


async def test_a_body_is_read_as_the_application_reads_it():
    server = Server(*[body(b"%d" % n, more=n < 9) for n in range(10)])

    async def app(scope, receive, send):
        for n in range(10):
            for _ in range(5):
                await asyncio.sleep(0)
            assert server.asked <= n + 3
            assert (await receive())["body"] == b"%d" % n
        await send(END)

    await server.serve(app)
    assert server.heard == [END]


async def test_who_waits_to_be_told_to_go_on_is_told_by_the_application():
    server = Server()

    async def app(scope, receive, send):
        for _ in range(5):
            await asyncio.sleep(0)
        assert server.asked == 0
        server.says.put_nowait(body(b"large"))
        assert await receive() == body(b"large")
        server.says.put_nowait(GONE)
        await for_ever(scope, receive, send)

    await server.serve(app, headers=[(b"Expect", b"100-continue")])
    assert server.asked == 2


async def test_errors_of_both_sides_are_raised():
    async def fails(scope, receive, send):
        raise ValueError("of the application")

    async def cancels_itself(scope, receive, send):
        raise asyncio.CancelledError

    with pytest.raises(ValueError, match="of the application"):
        await Server().serve(fails)
    with pytest.raises(ValueError, match="of the server"):
        await Server(ValueError("of the server")).serve(for_ever)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(Server().serve(cancels_itself))


async def test_a_server_that_gives_up_waits_for_the_application():
    server, ended = Server(), []

    async def app(scope, receive, send):
        begun.set_result(None)
        try:
            await for_ever(scope, receive, send)
        finally:
            ended.append(await asyncio.sleep(0, "cleaned"))

    begun = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(server.serve(app))
    await begun
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert ended == ["cleaned"]


async def test_other_connections_pass_through():
    server, seen = Server(), []

    async def app(scope, receive, send):
        seen.append((scope["type"], receive, send))

    await server.serve(app, kind="lifespan")
    assert seen == [("lifespan", server.receive, server.send)]


class _Server(uvicorn.Server):
    """Says when it is up, and leaves signals to the test runner."""

    def __init__(self, app):
        super().__init__(uvicorn.Config(app, port=0, log_level="error"))
        self.up = asyncio.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@contextlib.asynccontextmanager
async def _serving(app):
    """Give the port at which an application is served in this loop."""
    server = _Server(app)
    running = asyncio.ensure_future(server.serve())
    await server.up.wait()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


@pytest.mark.slow
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_a_client_that_leaves_a_plain_endpoint_cancels_its_job(
    framework, gate, tmp_path
):
    reached, cleaned, after = gate(), tmp_path / "cleaned", asyncio.Event()
    app = framework()
    app.add_middleware(CancelOnDisconnect)

    async def endless(request: Request):
        await pool.run(jobs.clean_up_when_stopped, str(reached), str(cleaned))

    async def length(request: Request):
        answer = str(await pool.run(len, await request.body()))
        return PlainTextResponse(answer, background=BackgroundTask(later))

    async def later():
        await pool.run(jobs.nothing)
        after.set()

    add_route = getattr(app, "add_api_route", app.router.add_route)
    add_route("/endless", endless)
    add_route("/length", length, methods=["POST"])
    async with Pool(1, grace=10) as pool, _serving(app) as port:
        _, client = await asyncio.open_connection("127.0.0.1", port)
        client.write(b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n")
        worker = await reached.reached()
        client.close()
        assert await pool.run(jobs.pid) != worker
        assert cleaned.exists()
        assert pool.stats().cancelled == 1
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as other:
            answer = await other.post("/length", content=bytes(300_000), timeout=30)
        assert answer.text == "300000"
        await after.wait()


@pytest.mark.slow
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_a_pool_lives_as_long_as_the_application(framework):
    app = framework(lifespan=offloop.lifespan(max_workers=1, deadline=5))
    offloaded, seen = offloop.offload(jobs.pid), []

    async def pids(request: Request):
        pool = request.state.pool
        seen.append(pool)
        return PlainTextResponse(f"{await pool.run(jobs.pid)} {await offloaded()}")

    getattr(app, "add_api_route", app.router.add_route)("/", pids)
    for _ in range(2):  # an application may be started again, as tests do it
        async with _serving(app) as port, httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/", timeout=30)
            by_pool, by_decorator = answer.text.split()
            assert by_pool == by_decorator
            assert seen[-1].is_open
        assert not seen[-1].is_open
    assert seen[0] is not seen[1]


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_lifespan_itself_is_one_with_the_usual_options(framework):
    app = framework(lifespan=offloop.lifespan)

    async def pid(request: Request):
        return PlainTextResponse(f"{await request.state.pool.run(jobs.pid)}")

    getattr(app, "add_api_route", app.router.add_route)("/", pid)
    async with _serving(app) as port, httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/", timeout=30)
    assert int(answer.text) != os.getpid()


async def test_jobs_that_outlive_the_application_are_cancelled(gate):
    reached = gate()
    live = offloop.lifespan(max_workers=1, deadline=0)
    async with live(None) as state:
        job = state["pool"].submit(
            jobs.clean_up_when_stopped, str(reached), "/dev/null"
        )
        await reached.reached()
    assert job.cancelled()


async def test_an_application_whose_workers_cannot_start_does_not_start_either():
    live = offloop.lifespan(max_workers=1, preload=["no_such_module"])
    with pytest.raises(StartError, match="no_such_module"):
        async with live(None):
            pytest.fail("it has started")


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"n_jobs": 2}, TypeError, "max_workers"),
        ({"max_workers": 0}, ValueError, "max_workers"),
        ({"deadline": -1}, ValueError, "deadline"),
    ],
)
def test_wrong_options_are_refused_where_they_are_written(options, kind, says):
    with pytest.raises(kind, match=says):
        offloop.lifespan(**options)
