"""Signals end a program in order: real processes, real signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

import offloop

TESTS = Path(__file__).parent

# A job that runs, one that waits, and what becomes of a third one later.
PROGRAM = """
import asyncio, os, sys
sys.path.insert(0, {tests!r})
import jobs, offloop
from offloop import Pool
from offloop.errors import PoolClosed

async def main():
    async with Pool(1, grace={grace}) as pool:
        await pool.run(jobs.nothing)
        first = pool.submit(jobs.{job}, *sys.argv[1:])
        second = pool.submit(jobs.add, 1, 1)
        told = asyncio.create_task(tell_when_closed(pool))
        print(await first, await second, flush=True)
        await asyncio.Event().wait()

async def tell_when_closed(pool):
    try:
        while {tells}:
            pool.submit(jobs.nothing)
            await asyncio.sleep(0.01)
    except PoolClosed:
        print("closed", flush=True)

{run}(main())
"""


async def start(tmp_path, job, *arguments, grace=60, run="offloop.run", tells=False):
    path = tmp_path / "program.py"
    how = {"job": job, "grace": grace, "run": run, "tells": tells}
    path.write_text(PROGRAM.format(tests=str(TESTS), **how))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(path),
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(program, worker):
    """Wait for a program's end; returns its exit code, output and errors."""
    async with asyncio.timeout(60):
        out, err = await program.communicate()
    _, alive = await asyncio.to_thread(psutil.wait_procs, worker, 10)
    assert not alive
    return program.returncode, out.decode(), err.decode()


def process(pid):
    return [psutil.Process(pid)]


@pytest.mark.slow
async def test_sigterm_lets_jobs_end(tmp_path, gate):
    reached, until = gate(), gate()
    program = await start(tmp_path, "meet", reached, until, tells=True)
    worker = process(await reached.reached())
    program.send_signal(signal.SIGTERM)
    assert await program.stdout.readline() == b"closed\n"
    until.open()
    assert await end(program, worker) == (143, "met 2\n", "")


@pytest.mark.slow
async def test_a_second_signal_waits_for_nobody(tmp_path, gate):
    """Nor for a grace of a minute."""
    reached = gate()
    program = await start(tmp_path, "loop_in_c", reached)
    worker = process(await reached.reached())
    program.send_signal(signal.SIGTERM)
    program.send_signal(signal.SIGINT)
    code, out, err = await end(program, worker)
    assert (code, out) in ((143, ""), (-signal.SIGINT, "")), err


@pytest.mark.slow
@pytest.mark.parametrize("run", ["offloop.run", "asyncio.run"])
async def test_ctrl_c_stops_jobs_in_order(tmp_path, gate, run):
    reached, cleaned = gate(), tmp_path / "cleaned"
    program = await start(tmp_path, "clean_up_when_stopped", reached, cleaned, run=run)
    worker = process(await reached.reached())
    program.send_signal(signal.SIGINT)
    code, out, err = await end(program, worker)
    assert (code, out) == (-signal.SIGINT, "")
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert cleaned.exists(), "the job's finally was run"


@pytest.mark.slow
@pytest.mark.parametrize("run", ["offloop.run", "asyncio.run"])
async def test_ctrl_c_twice_kills(tmp_path, gate, run):
    reached = gate()
    program = await start(tmp_path, "loop_in_c", reached, run=run)
    worker = process(await reached.reached())
    while program.returncode is None:  # as people do
        # Not by `send_signal`, which may take the exit code away from its watcher.
        with contextlib.suppress(ProcessLookupError):
            os.kill(program.pid, signal.SIGINT)
        await asyncio.sleep(0.05)
    code, out, _ = await end(program, worker)
    assert (code, out) == (-signal.SIGINT, "")


SERVER = """
import sys
sys.path.insert(0, {tests!r})
from contextlib import asynccontextmanager
import jobs, uvicorn
from offloop import Pool
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

@asynccontextmanager
async def lifespan(app):
    async with Pool(1, grace=60) as app.state.pool:
        yield

async def meet(request):
    job = request.app.state.pool.submit(jobs.meet, *sys.argv[2:])
    return PlainTextResponse(await job)

app = Starlette(routes=[Route("/", meet)], lifespan=lifespan)
uvicorn.run(app, fd=int(sys.argv[1]), log_level="error")
"""


@pytest.mark.slow
async def test_uvicorn_drains_by_itself(tmp_path, gate):
    """Its handlers are its own; the pool ends with its lifespan."""
    import socket

    pytest.importorskip("uvicorn")
    reached, until = gate(), gate()
    path = tmp_path / "server.py"
    path.write_text(SERVER.format(tests=str(TESTS)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            str(path),
            str(listener.fileno()),
            str(reached),
            str(until),
            pass_fds=[listener.fileno()],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        worker = process(await reached.reached())
        server.send_signal(signal.SIGTERM)
        until.open()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.endswith(b"met")
    code, _, err = await end(server, worker)
    assert (code, err) in ((-signal.SIGTERM, ""), (0, ""))


def test_run_is_asyncios_otherwise():
    async def main():
        return asyncio.get_running_loop().get_debug()

    assert offloop.run(main(), debug=True) is True
    with pytest.raises(ValueError, match="a coroutine was expected"):
        offloop.run(main)
    made = []

    def factory():
        made.append(asyncio.new_event_loop())
        return made[0]

    assert offloop.run(main(), loop_factory=factory) is False
    assert len(made) == 1
    results = []
    thread = threading.Thread(target=lambda: results.append(offloop.run(main())))
    thread.start()
    thread.join()
    assert results == [False]

    async def cancelled():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        offloop.run(cancelled())


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    async def main():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    with pytest.raises(SystemExit) as caught:
        offloop.run(main())
    assert caught.value.code == 143
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
