"""Every example runs, is silent on stderr, and prints what its docstring says."""

from __future__ import annotations

import ast
import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

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
