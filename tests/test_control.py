"""The socket by which running things are asked: one line each way, whatever comes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from pathlib import Path

import pytest

from offloop.control import ControlSocket, Line
from offloop.errors import StartError


@pytest.fixture
def path(own_runtime):
    folder = tempfile.mkdtemp(dir=own_runtime)
    yield f"{folder}/one.sock"
    os.rmdir(folder)


async def obey(command, details):
    return {"command": command, **details}


@pytest.mark.loops
async def test_what_cannot_be_understood_is_answered_and_harms_nobody(path):
    listening = ControlSocket(path, obey)
    listening.open()
    reader, writer = await asyncio.open_unix_connection(path)
    for line in (b"hello", b"[]", b"{}", b'"command"'):
        writer.write(line + b"\n")
        answer = json.loads(await reader.readline())
        assert answer == {"ok": False, "error": 'a request is {"command": NAME, ...}'}
    writer.write(b'{"command": "sing", "song": 7}\n')
    answer = json.loads(await reader.readline())
    assert answer == {"ok": True, "command": "sing", "song": 7}
    writer.write(b"x" * 200_000)  # a line without an end
    assert await reader.read() == b""
    writer.close()
    await listening.close()


async def test_who_waits_gets_an_answer_at_the_end_if_it_comes_soon(path):
    asked, let = asyncio.Event(), asyncio.Event()

    async def obey(command, details):
        asked.set()
        if command == "wait":
            await let.wait()
        else:
            await asyncio.Event().wait()
        return {}

    listening = ControlSocket(path, obey)
    listening.open()
    lines = [await asyncio.open_unix_connection(path) for _ in range(3)]
    for (_, writer), command in zip(lines, ("wait", "never"), strict=False):
        asked.clear()
        writer.write(json.dumps({"command": command}).encode() + b"\n")
        await asked.wait()
    asyncio.get_running_loop().call_soon(let.set)
    await listening.close(0.05)
    answers = [await reader.read() for reader, _ in lines]
    assert answers == [b'{"ok": true}\n', b"", b""]
    for _, writer in lines:
        writer.close()
    await listening.close()  # twice is harmless


async def test_a_socket_of_one_that_was_killed_is_taken_over(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listening = ControlSocket(path, obey)
    listening.open()
    with await asyncio.to_thread(Line, Path(path), 60.0) as line:
        assert (await asyncio.to_thread(line.ask, "sing"))["command"] == "sing"
    await listening.close()
    with pytest.raises(FileNotFoundError):
        Line(Path(path))


async def test_what_others_may_enter_is_not_trusted(path):
    folder = os.path.dirname(path)
    os.chmod(folder, 0o755)
    with pytest.raises(StartError, match="chmod 700"):
        Line(Path(path))
