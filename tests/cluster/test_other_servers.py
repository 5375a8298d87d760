"""Other servers run an application that uses the shared pool."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

import coordinators

pytestmark = pytest.mark.slow

APP = "served:app"

SERVERS = {
    "uvicorn": ["uvicorn", APP, "--workers", "2", "--port", "{port}"],
    "gunicorn": [
        *("gunicorn", APP, "-k", "uvicorn_worker.UvicornWorker"),
        *("--workers", "2", "--bind", "127.0.0.1:{port}"),
    ],
    "granian": [
        *("granian", "--interface", "asgi", APP, "--workers", "2"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    ],
    "hypercorn": ["hypercorn", APP, "--workers", "2", "--bind", "127.0.0.1:{port}"],
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as some:
        return some.getsockname()[1]


def ask(port, process):
    """Return the answer of a server that may not be up yet."""
    while True:
        assert process.poll() is None
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(line), contextlib.suppress(OSError):
            line.request("GET", "/offloaded")
            answer = line.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
            return text
        time.sleep(0.05)  # nobody tells when another project's server is up


def test_jobs_of_all_of_them_run_in_one_pool(own_runtime, monkeypatch):
    monkeypatch.setenv("OFFLOOP_ENGINE", "shared")
    pool = coordinators.start("--compute", "1")
    there = {name for name in SERVERS if find_spec(name)}
    if find_spec("uvicorn_worker") is None:
        there.discard("gunicorn")
    started = {}
    try:
        for name in there:
            port = free_port()
            words = [word.format(port=port) for word in SERVERS[name]]
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=coordinators.TESTS,
                env=coordinators.environment(),
            )
            started[name] = (port, process)
        seen = {name: ask(*where).split() for name, where in started.items()}
    finally:
        for _, process in started.values():
            process.terminate()
        for _, process in started.values():
            process.wait(60)
        coordinators.end(pool)
    assert set(seen) == there
    (forkserver,) = {parent for _, parent in seen.values()}
    assert int(forkserver) != os.getpid()
