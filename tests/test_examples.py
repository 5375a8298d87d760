"""Every example runs, is silent on stderr, and prints what its docstring says."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request  # noqa: TC002 - FastAPI reads annotations
from starlette.responses import PlainTextResponse

import jobs
from offloop import Pool

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("[0-9]*.py"))


def promised(script):
    """Return the lines that the docstring promises under "Prints:"."""
    docstring = ast.get_docstring(ast.parse(script.read_text()))
    _, _, lines = docstring.partition("Prints:\n\n")
    return inspect.cleandoc(lines)


@pytest.fixture(autouse=True)
def _own_engine(monkeypatch):
    monkeypatch.delenv("OFFLOOP_ENGINE", raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_prints_what_it_promises(script):
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.strip() == promised(script)


def test_every_script_promises_something():
    assert len(SCRIPTS) >= 12
    assert [script.name for script in SCRIPTS if not promised(script)] == []


@pytest.fixture
def web():
    """Base address of the web example, which runs under uvicorn on a free port."""
    command = [sys.executable, "-m", "uvicorn", "--port=0", "app:app"]
    with subprocess.Popen(
        [*command, f"--app-dir={EXAMPLES / 'web'}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    ) as server:
        try:
            yield _address(server)
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)


def _address(server):
    said = []
    for line in server.stderr:
        said.append(line)
        if address := re.search(r"running on (http://\S+)", line):
            return address[1]
    pytest.fail("the server did not start:\n" + "".join(said))


@pytest.mark.slow
def test_the_web_example_answers(web):
    assert httpx.get(f"{web}/fib?n=20").json() == {"n": 20, "fib": 6765}
    assert httpx.get(f"{web}/ping").text == "pong\n"


@pytest.mark.slow
def test_the_web_example_stops_what_takes_too_long(web):
    answer = httpx.get(f"{web}/fib?n=99", timeout=30)
    assert (answer.status_code, answer.text) == (422, "that takes too long\n")
    assert httpx.get(f"{web}/fib?n=10").json() == {"n": 10, "fib": 55}


class _Server(uvicorn.Server):
    """Says when it is up, and leaves signals to the test runner."""

    def __init__(self, app):
        super().__init__(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
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
    app.add_middleware(runpy.run_path(str(EXAMPLES / "web/app.py"))["CancelOnLeave"])

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
