"""``offloop serve`` as the first process of a container, and the log that it shows."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess

import pytest
from click.testing import CliRunner

import serving
from offloop.cluster import operate

pytestmark = pytest.mark.slow

UNSHARE = shutil.which("unshare")
_NAMESPACE = (UNSHARE or "", "--pid", "--fork", "--mount-proc", "--kill-child")


def run(command, *arguments, code=0):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def contained(own_runtime):
    """Serve as process 1 of a namespace; gives that, and its number outside."""
    try:
        subprocess.run([*_NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no process namespace can be made here: {error}")
    with serving.serving(
        *("--workers", "1", "--compute", "0"), prefix=_NAMESPACE
    ) as one:
        one.until_said("is served at")
        (first,) = _children(one.pid)
        try:
            yield one, first
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def test_process_1_reaps_passes_signals_on_and_survives_an_upgrade(contained):
    one, first = contained
    assert one.get("/pid") != "1"
    (old,) = _children(first)
    one.get("/orphan")  # its parent has gone, and so has it
    while len(_children(first)) > 1:
        pass
    os.kill(first, signal.SIGUSR2)
    one.until_said(r"process \d+ has taken over")
    while _children(first) == [old]:
        pass
    while old in _children(first):  # it lets its requests end
        pass
    assert one.get("/pid").isdigit()
    os.kill(first, signal.SIGTERM)
    assert one.wait() == 0


def test_what_was_written_is_shown_and_followed(own_runtime):
    with serving.serving("--workers", "2", "--compute", "1") as one:
        one.until_said("is served at")
        one.get("/print?text=hello")
        one.until_said("] hello$")
        assert "] hello\n" in run(operate.logs)
        assert "hello" not in run(operate.logs, "--role", "primary")
        told = json.loads(run(operate.logs, "--role", "server", "--json"))["lines"]
        (said,) = [line for line in told if line["line"] == "hello"]
        assert said["pid"] in serving.family(one.pid)
        other = 1 - said["slot"]
        assert "hello" not in run(operate.logs, "--slot", str(other))
        assert run(operate.logs, "-n", "0").strip() == ""
        follower = subprocess.Popen(
            serving.command("logs", "-f", "--json", "--role", "server"),
            stdout=subprocess.PIPE,
            text=True,
        )
        with follower.stdout as lines:
            while json.loads(lines.readline())["line"] != "hello":
                pass
            one.get("/print?text=again")
            while json.loads(lines.readline())["line"] != "again":
                pass
            # The workers are shown by the name of the pool, not by a variable.
            before = dict(os.environ)
            assert "worker 1 (pid" in run(operate.dump)
            assert dict(os.environ) == before
            assert one.end() == 0
            assert follower.wait(60) == 0
