"""``offloop serve APP``: several servers at one port, and who keeps them alive."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess

import psutil
import pytest

import demo_server
import serving
import waiting

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def four(runtime):
    """Four servers without a pool, that several tests use."""
    with serving.serving("--workers", "4", "--compute", "0", "--name", "four") as one:
        one.until_said("is served at")
        with demo_server.sharing(one.pid):
            yield one


@pytest.fixture
def alone(own_runtime):
    """Return what serves in a runtime directory of its own."""
    return serving.serving


async def ask(port, path="/pid"):
    """Return the answer to a request over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert " 200 " in head, answer
    return body


async def shares(asked):
    """Return how many requests each server has answered, in a round that was fair.

    A server gets a millisecond to be the first, and where others use the cores it may
    wake up later: then another round shows whether it was that.
    """
    for _ in range(10):
        served = collections.Counter(await asked())
        fair = max(served.values()) <= 1.5 * min(served.values())
        if fair and len(served) == 4:
            return served
    raise AssertionError(f"never fair, at last {served}")


async def test_all_servers_get_their_share_of_connections(four):
    async def one_by_one():
        return [await ask(four.port) for _ in range(60)]

    assert (await shares(one_by_one)).total() == 60


async def test_a_blocked_server_stalls_nobody(four, gate):
    reached, until = gate(), gate()
    path = f"/block?gates={reached},{until}"
    blocked = asyncio.ensure_future(ask(four.port, path))
    await reached.reached()
    others = await asyncio.gather(*(ask(four.port) for _ in range(100)))
    assert not blocked.done()
    until.open()
    assert await blocked not in others
    assert len(set(others)) == 3


async def test_a_burst_of_blocking_requests_spreads_evenly(four):
    async def at_once():
        return await asyncio.gather(*(ask(four.port, "/busy") for _ in range(20)))

    assert (await shares(at_once)).total() == 20


async def test_one_that_connects_and_says_nothing_keeps_nobody_out(four):
    silent = [socket.create_connection(("127.0.0.1", four.port)) for _ in range(20)]
    assert len({await ask(four.port) for _ in range(20)}) > 1
    for one in silent:
        one.close()


def test_what_servers_write_comes_in_whole_lines_with_their_name(four):
    four.get("/print?text=hello")
    found = four.until_said(r"^\[server (\d) pid (\d+)\] hello$")
    assert int(found[2]) in serving.family(four.pid)


def test_the_pool_is_one_for_all_servers_and_a_lost_one_is_replaced(alone):
    with alone("--workers", "2", "--compute", "1") as one:
        seen = {one.get("/offloaded") for _ in range(6)}
        assert len(seen) == 1
        served = set()
        while len(served) < 2:  # the one that is woken first may win several times
            served.add(one.get("/pid"))
        _, forkserver = map(int, seen.pop().split())
        coordinator = psutil.Process(forkserver).parent()
        coordinator.kill()
        one.until_said(r"coordinator 0 \(pid \d+\) was killed by SIGKILL")
        _, another = map(int, one.get("/offloaded").split())
        assert another != forkserver
        code = one.end()
        assert (code, serving.family(one.pid)) == (0, [])


def test_a_server_that_is_killed_or_exits_is_replaced(alone):
    with alone("--workers", "2", "--compute", "0") as one:
        for _ in range(3):
            old = int(one.get("/pid"))
            os.kill(old, signal.SIGKILL)
            one.until_said(rf"server \d \(pid {old}\) was killed by SIGKILL: crashed")
            one.get("/pid")
        with contextlib.suppress(OSError), contextlib.closing(one.connect()) as line:
            line.request("GET", "/exit?code=5")
            line.getresponse()
        one.until_said(r"server \d \(pid \d+\) exited with code 5: crashed")
        old = int(one.get("/pid"))
        os.kill(old, signal.SIGTERM)
        one.until_said(rf"server \d \(pid {old}\) exited with code 0: it was sent SIG")
        assert int(one.get("/pid")) != old


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_open_requests_end_before_it_does(alone, gate, number):
    reached, until = gate(), gate()
    with alone("--workers", "2", "--compute", "0") as one:
        path = f"/meet?gates={reached},{until}"
        pending = asyncio.ensure_future(ask(one.port, path))
        await reached.reached()
        port = one.port
        one.send_signal(number)
        # Both have closed their gates by then, and one has gone.
        await asyncio.to_thread(one.until_said, "Shutting down", times=2)
        await asyncio.to_thread(one.until_said, "Finished server process")
        with pytest.raises(ConnectionRefusedError):
            await ask(port)
        until.open()
        assert (await pending).isdigit()
        assert await asyncio.to_thread(one.wait) == 0


@pytest.mark.parametrize("numbers", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]])
async def test_it_ends_at_once_when_told_so(alone, gate, numbers):
    reached, until = gate(), gate()
    with alone("--workers", "1", "--compute", "1") as one:
        path = f"/block?gates={reached},{until}"
        pending = asyncio.ensure_future(ask(one.port, path))
        await reached.reached()
        for number in numbers:
            one.send_signal(number)
            await asyncio.to_thread(one.until_said, "ending: ")
        assert await asyncio.to_thread(one.wait) == 0
        with pytest.raises((OSError, AssertionError)):
            await pending


async def test_nothing_survives_the_primary(alone, gate, own_runtime):
    reached, until = gate(), gate()
    with alone("--workers", "2", "--compute", "1") as one:
        port, path = one.port, f"/block?gates={reached},{until}"
        assert await ask(port, "/offloaded")  # all of it is there
        pending = asyncio.ensure_future(ask(port, path))
        await reached.reached()
        tree = [psutil.Process(pid) for pid in serving.family(one.pid)]
        assert len(tree) >= 5
        one.send_signal(signal.SIGKILL)
        _, alive = await asyncio.to_thread(psutil.wait_procs, tree, 10)
        assert not alive
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with pytest.raises((OSError, AssertionError)):
            await pending
    shutil.rmtree(f"{own_runtime}/offloop-{os.getuid()}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["served:no_app", "--factory"], "the configuration is missing"),
        (["served:nothing"], 'Attribute "nothing" not found'),
        (["served:app", "--bind", "nowhere"], "is no address to listen at"),
        (["served:app", "--preload", "not_there"], "No module named 'not_there'"),
    ],
)
def test_what_cannot_start_ends_with_its_words(own_runtime, arguments, words):
    where = [] if "--bind" in arguments else ["--bind", "127.0.0.1:0"]
    one = serving.Serving(*arguments, *where, "--workers", "2")
    assert one.wait() == 3
    assert words in one.said


def test_a_port_that_is_in_use_is_an_error(own_runtime):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        one = serving.Serving(serving.APP, "--bind", f"127.0.0.1:{port}")
        assert one.wait() == 3
    assert "Address already in use" in one.said


def test_servers_that_do_not_stay_alive_end_it(alone):
    with alone("--workers", "1", "--compute", "0") as one:
        served = 0
        while one.process.poll() is None:
            with (
                contextlib.suppress(OSError),
                contextlib.closing(one.connect()) as line,
            ):
                line.request("GET", "/exit?code=1")
                line.getresponse()
                served += 1
        assert one.wait() == 4
        assert "unasked deaths within 30 s" in one.said
        assert "giving up" in one.said


def test_it_listens_at_several_places_with_tls_and_pins(alone, tmp_path):
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    path = str(tmp_path / "app.sock")
    request = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
        f"-keyout {key} -out {certificate} -subj /CN=localhost "
        "-addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(request.split(), check=True, capture_output=True)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    where = ("--bind", "127.0.0.1:0", "--bind", f"unix:{path}")
    tls = ("--ssl-keyfile", key, "--ssl-certfile", certificate)
    with alone("--workers", "1", "--compute", "0", "--pin", *where, *tls) as one:
        context = ssl.create_default_context(cafile=certificate)
        with socket.create_connection(("127.0.0.1", one.port)) as plain:
            secure = context.wrap_socket(plain, server_hostname="127.0.0.1")
            assert _ask(secure, "/cores").count(",") == 0
        line = socket.socket(socket.AF_UNIX)
        line.connect(path)
        secure = context.wrap_socket(line, server_hostname="127.0.0.1")
        assert _ask(secure, "/pid").isdigit()
    assert not os.path.exists(path)


def _ask(line, path):
    with line:
        request = f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        line.sendall(request.encode())
        answer = b"".join(iter(lambda: line.recv(65536), b""))
        return answer.decode().partition("\r\n\r\n")[2]


def test_the_image_server_runs_unchanged_with_limits_of_the_shared_pool(alone):
    pytest.importorskip("starlette")
    limits = ("--memory-limit", "1GiB", "--recycle-rss", "512MiB")
    where = ("--bind", "127.0.0.1:0", "--workers", "2", "--compute", "1")
    one = serving.Serving("offloop.demo:app", *where, *limits)
    try:
        port = one.port
        for path in ("/readyz", "/sample/gradient", "/metrics"):
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.closing(line):
                line.request("GET", path)
                answer = line.getresponse()
                assert answer.status in (200, 404), answer.read()
    finally:
        assert one.end() == 0


async def test_requests_that_are_too_many_are_turned_away(alone, gate):
    reached, until = gate(), gate()
    limit = ("--limit-concurrency", "1")
    with alone("--workers", "1", "--compute", "0", *limit) as one:
        path = f"/meet?gates={reached},{until}"
        first = asyncio.ensure_future(ask(one.port, path))
        await reached.reached()
        with contextlib.closing(one.connect()) as line:
            line.request("GET", "/pid")
            answer = line.getresponse()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert b"too many" in answer.read()
        until.open()
        assert await first == one.get("/pid")


def test_lines_go_to_a_file_as_json(alone, tmp_path):
    path = tmp_path / "log"
    logs = ("--log-file", str(path), "--log-json", "--no-access-log")
    with alone("--workers", "1", "--compute", "0", *logs) as one:
        # It says so nowhere else.
        waiting.poll(lambda: path.exists() and "is served at" in path.read_text())
        path.rename(tmp_path / "moved")
        one.send_signal(signal.SIGUSR1)
        waiting.poll(path.exists)
        assert one.end() == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"primary", "server"} == {line["role"] for line in lines}
    assert "ending: " in path.read_text()
