"""A service of systemd's: the unit file, what it is told, and sockets that it opens."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

import serving
from offloop.cluster import operate
from offloop.cluster.units import systemd_unit, unit_of

ANALYZE = shutil.which("systemd-analyze")


# Does what systemd does with a socket that it has opened for a service.
_HAND_DOWN = (
    "import os, sys; number, *command = sys.argv[1:]; os.dup2(int(number), 3);"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
    "os.execv(command[0], command)"
)


def run(*arguments, code=0):
    done = CliRunner().invoke(systemd_unit, arguments)
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path):
    unit = tmp_path / "app.service"
    unit.write_text(run("served:app", "--workers", "4", "--graceful-timeout", "7"))
    assert "TimeoutStopSec=27" in unit.read_text()
    subprocess.run([ANALYZE, "verify", str(unit)], check=True, capture_output=True)


def test_what_serve_would_refuse_gets_no_unit():
    assert "No such option" in run("app:app", "--nonsense", code=2)
    assert "name the application" in run("--workers", "2", code=2)
    assert "Example:" in run("--help")
    text = unit_of("a.b:app", ("a.b:app", "--root-path", "/100% $x"), 1.0)
    assert "'/100%% $$x'" in text
    assert "RuntimeDirectory=offloop-a-b\n" in text


@pytest.mark.slow
def test_the_manager_is_told_and_its_sockets_are_used(own_runtime, tmp_path):
    path = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        manager.bind(path)
        manager.settimeout(60)
        port, number = listener.getsockname()[1], listener.fileno()
        one = serving.Serving(
            *(serving.APP, "--workers", "1", "--compute", "0"),
            prefix=(sys.executable, "-c", _HAND_DOWN, str(number)),
            files=(number,),
            NOTIFY_SOCKET=path,
            WATCHDOG_USEC="5000000",
        )

        def until_told(word):
            while word not in (told := manager.recv(4096).decode()):
                assert told == "WATCHDOG=1"
            return told

        one.until_said("is served at")  # it has not ended

        until_told("READY=1")
        assert one.port == port
        assert one.get("/pid").isdigit()
        until_told("WATCHDOG=1")
        CliRunner().invoke(operate.reload, ["--json"])
        assert re.search(r"^MONOTONIC_USEC=\d+$", until_told("RELOADING=1"), re.M)
        until_told("READY=1")
        one.send_signal(signal.SIGTERM)
        until_told("STOPPING=1")
        assert one.wait() == 0
