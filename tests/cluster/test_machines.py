"""Several machines behind a load balancer: network namespaces play them.

this test ──path──▶ HAProxy (namespace lb) ══veth══▶ offloop serve (namespace a)
                                           ══veth══▶ offloop serve (namespace b)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess

import pytest

import serving
import waiting
from offloop.cluster import control
from offloop.cluster.proxies import Front, haproxy

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
HAPROXY = shutil.which("haproxy", path=_PATH)
IP = shutil.which("ip", path=_PATH)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(HAPROXY is None, reason="there is no HAProxy here"),
]

MACHINES = ("a", "b")


def ip(*words):
    subprocess.run([IP, *words], check=True, capture_output=True)


def namespace(name):
    return f"offloop-{os.getpid()}-{name}"


@pytest.fixture
def network():
    """Make three namespaces, two of which have a cable to the third."""
    names = ("lb", *MACHINES)
    try:
        ip("netns", "add", namespace("lb"))
    except (OSError, TypeError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces can be made here: {error}")
    try:
        for name in MACHINES:
            ip("netns", "add", namespace(name))
        for name in names:
            ip("-n", namespace(name), "link", "set", "lo", "up")
        for number, name in enumerate(MACHINES):
            there, here = namespace(name), namespace("lb")
            cable = ("type", "veth", "peer", "name", "wire", "netns", there)
            ip("-n", here, "link", "add", f"to-{name}", *cable)
            for where, device, last in ((here, f"to-{name}", 1), (there, "wire", 2)):
                address = f"10.77.{number}.{last}/24"
                ip("-n", where, "address", "add", address, "dev", device)
                ip("-n", where, "link", "set", device, "up")
        yield
    finally:
        for name in names:
            subprocess.run([IP, "netns", "delete", namespace(name)], check=False)


def serve(number):
    """Run a machine's servers."""
    return serving.Serving(
        *(serving.APP, "--workers", "2", "--compute", "0", "--ready-path", "/readyz"),
        *("--bind", f"10.77.{number}.2:8000", "--name", MACHINES[number]),
        prefix=(IP, "netns", "exec", namespace(MACHINES[number])),
    )


def operate(command, name):
    """Have something done on a machine; returns its answer."""
    answer = control.ask(name, command)
    assert answer["ok"], answer
    return answer


class Balancer:
    """HAProxy in its namespace.

    Args:
        folder: for its files.
    """

    def __init__(self, folder):
        self._path = f"{folder}/front"
        backends = tuple(f"10.77.{number}.2:8000" for number in range(2))
        front = Front(backends, listen=f"unix@{self._path}", ready_path="/readyz")
        (folder / "config").write_text(haproxy(front))
        command = [IP, "netns", "exec", namespace("lb"), HAPROXY]
        self._process = subprocess.Popen([*command, "-f", folder / "config"])
        waiting.poll(self._is_there)

    def _is_there(self):
        assert self._process.poll() is None, "HAProxy has ended"
        return os.path.exists(self._path)

    def ask(self):
        """Return which process has answered; it must be without an error."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(60)
            line.connect(self._path)
            line.sendall(b"GET /pid HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert " 200 " in head, answer
        return int(body)

    def until_asked(self, servers):
        """Ask until all of these have answered lately, and nobody else has."""
        waiting.poll(lambda: {self.ask() for _ in range(12)} == servers)

    def close(self):
        self._process.terminate()
        self._process.wait(60)


def servers_of(name):
    seen = operate("status", name)["servers"]
    return {server["pid"] for server in seen if server["state"] == "ready"}


def test_machines_come_and_go_and_no_request_fails(network, own_runtime, tmp_path):
    with contextlib.ExitStack() as stack:
        a, b = serve(0), serve(1)
        for one in (a, b):
            stack.callback(_end, one)
            one.until_said("is served at")
        balancer = Balancer(tmp_path)
        stack.callback(balancer.close)
        both = servers_of("a") | servers_of("b")
        balancer.until_asked(both)
        # One is drained and upgraded, then the other.
        for name, other in (("a", "b"), ("b", "a")):
            operate("drain", name)
            balancer.until_asked(servers_of(other))
            operate("reload", name)
            operate("resume", name)
            balancer.until_asked(servers_of("a") | servers_of("b"))
        # A server dies, a cable is pulled, a whole machine dies.
        os.kill(servers_of("a").pop(), signal.SIGKILL)
        a.until_said("was killed by SIGKILL: crashed")
        balancer.ask()
        ip("-n", namespace("lb"), "link", "set", "to-a", "down")
        balancer.until_asked(servers_of("b"))
        ip("-n", namespace("lb"), "link", "set", "to-a", "up")
        balancer.until_asked(servers_of("a") | servers_of("b"))
        b.send_signal(signal.SIGKILL)
        balancer.until_asked(servers_of("a"))
    shutil.rmtree(f"{own_runtime}/offloop-{os.getuid()}")


def _end(one):
    if one.process.poll() is None:
        one.send_signal(signal.SIGTERM)
    one.wait()
