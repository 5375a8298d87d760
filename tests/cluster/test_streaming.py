"""What lasts, while servers change: websockets, events, bodies in parts."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

import serving
from offloop.cluster import control

websockets = pytest.importorskip("websockets")

pytestmark = pytest.mark.slow


def command(word, **details):
    answer = control.ask("default", word, **details)
    assert answer["ok"], answer
    return answer


async def begin(port, path):
    """Ask for something, and return what reads the answer's body and closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head
    return reader, writer


async def part(reader):
    """Return the next chunk of a body; "" at its end."""
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2)).decode().strip()


async def all_of(reader):
    """Read a body to its end."""
    while await part(reader):
        pass


def connect(port):
    return websockets.connect(f"ws://127.0.0.1:{port}/", proxy=None)


async def say(line, text):
    """Return which process has sent a text back."""
    await line.send(text)
    pid, back = (await line.recv()).split(" ", 1)
    assert back == text
    return int(pid)


async def test_a_reload_lets_them_last_until_the_deadline(own_runtime, gate):
    where = ("--bind", "127.0.0.1:0", "--graceful-timeout", "1.5")
    one = serving.Serving("streaming:app", "--workers", "1", "--compute", "0", *where)
    writers = []
    try:
        port = one.port
        reached, until = gate(), gate()
        events, writer = await begin(port, "/events")
        writers.append(writer)
        parts, writer = await begin(port, f"/parts?{reached},{until}")
        writers.append(writer)
        await reached.reached()
        async with connect(port) as line:
            old = await say(line, "hello")
            await asyncio.to_thread(command, "reload")
            # The new version serves who comes; the old one those who are there.
            assert int((await part(events)).removeprefix("data: ")) == old
            assert await say(line, "still here") == old
            async with connect(port) as another:
                new = await say(another, "hello")
                assert new != old
                until.open()
                begun, end = await part(parts), await part(parts)
                assert (begun, end) == (f"{old} first", "last")
                assert await part(parts) == ""
                # Then the deadline: in order for websockets, cut for events.
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await line.recv()
                assert closed.value.rcvd.code == 1012  # "service restart"
                with pytest.raises((EOFError, ConnectionError, ValueError)):
                    await all_of(events)
                assert await say(another, "still here") == new
                # A new primary does the same to them.
                answer = await asyncio.to_thread(command, "upgrade")
                assert await say(another, "and here") == new
                async with connect(port) as third:
                    assert await say(third, "hello") not in (old, new)
                    with pytest.raises(websockets.ConnectionClosed):
                        await another.recv()
                    assert await asyncio.to_thread(one.process.wait, 60) == 0
                    os.kill(answer["pid"], signal.SIGTERM)
                    with pytest.raises(websockets.ConnectionClosed):
                        await third.recv()
    finally:
        for writer in writers:
            writer.close()
        if one.process.poll() is None:
            one.send_signal(signal.SIGTERM)
        await asyncio.to_thread(one.wait)
