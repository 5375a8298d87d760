"""A client of image servers that costs next to nothing, and the load that it makes."""

from __future__ import annotations

import asyncio
import re
from time import perf_counter

PAUSE = 0.005  # between two questions


class Connection:
    """One kept-alive HTTP connection, as cheap as can be."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Connection:
        streams = await asyncio.open_connection("127.0.0.1", self._port)
        self._reader, self._writer = streams
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send one request; returns the status and the body of its answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        self._writer.write(head.encode() + b"\r\n\r\n" + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"(?i)\r\ncontent-length: (\d+)", answer)
        assert size is not None
        return int(answer[9:12]), await self._reader.readexactly(int(size[1]))


async def start_server(
    command: list[str], env: dict[str, str]
) -> tuple[asyncio.subprocess.Process, int]:
    """Start a server and wait until it says where it runs; returns it and its port."""
    server = await asyncio.create_subprocess_exec(
        *command, env=env, stderr=asyncio.subprocess.PIPE
    )
    assert server.stderr is not None
    said = b""
    async for line in server.stderr:
        said += line
        if found := re.search(rb"running on http://127\.0\.0\.1:(\d+)", line):
            return server, int(found[1])
    raise RuntimeError(said.decode())


class Load:
    """Clients that send a photograph, wait for the answer, and send it again."""

    def __init__(self, port: int, path: str, photo: bytes) -> None:
        self._port, self._path, self._photo = port, path, photo
        self.images = 0
        self.running = asyncio.Event()

    async def client(self) -> None:
        async with Connection(self._port) as connection:
            while True:
                status, answer = await connection.ask("POST", self._path, self._photo)
                if status != 200:
                    raise RuntimeError(f"/encode answered {status}: {answer.decode()}")
                self.images += 1
                self.running.set()  # the first image has warmed the server up


async def watch(port: int, seconds: float) -> list[float]:
    """Return how long each /healthz took."""
    answers = []
    end = perf_counter() + seconds
    async with Connection(port) as connection:
        while perf_counter() < end:
            asked = perf_counter()
            await connection.ask("GET", "/healthz")
            answers.append(perf_counter() - asked)
            await asyncio.sleep(PAUSE)
    return answers
