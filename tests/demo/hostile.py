"""Thousands of requests of all kinds, hostile ones among them, at a real server.

    python tests/demo/hostile.py 10000

Each kind of request has the statuses that it may be answered with; whatever else comes
is a violation. In the end the server must hold no more descriptors than after a tenth
of the requests, hardly more memory, and no upload; and it must have lost no worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from demo_server import start_server, stop_server

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
CLIENTS = 8
WORKERS = 2

#: descriptors by which a server and one of its workers are joined
PER_WORKER = 8

#: memory of all processes may grow by this much between the two looks
GROWTH = 1.3


def image(chance: random.Random, format: str) -> bytes:
    size = (chance.randrange(1, 200), chance.randrange(1, 200))
    out = io.BytesIO()
    noise = Image.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1]))
    noise.save(out, format)
    return out.getvalue()


def damaged(chance: random.Random) -> bytes:
    data = bytearray(image(chance, chance.choice(FORMATS)))
    for _ in range(chance.choice([1, 5, 50])):
        data[min(int(chance.paretovariate(0.4)), len(data) - 1)] ^= (
            1 << chance.randrange(8)
        )
    if chance.random() < 0.3:
        del data[chance.randrange(1, len(data)) :]
    return bytes(data)


def bomb() -> bytes:
    """Return a PNG of a few kilobytes that unfolds to 64 megapixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + sum_

    header = struct.pack(">IIBBBBB", 8000, 8000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1001) * 8000, 9)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BOMB = bomb()


def head(method: str, path: str, length: int | None, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(path: str, body: bytes, *more: str) -> bytes:
    return head("POST", path, len(body), *more) + body


BUSY = {429, 503}


def request(chance: random.Random) -> tuple[str, bytes, set[int]]:
    """Return the kind of a request, its bytes, and what it may be answered with.

    A status of 0 means that the connection may be closed without an answer.
    """
    kind = chance.choice(KINDS)
    good = image(chance, chance.choice(FORMATS))
    made = {200} | BUSY
    if kind == "encode":
        format = chance.choice(["jpeg", "webp", "png", "gif", "auto"])
        return (
            kind,
            post(f"/encode?f={format}&w={chance.randrange(1, 300)}", good),
            made,
        )
    if kind == "avif":
        return kind, post("/encode?f=avif&speed=10&w=40", good), made
    if kind == "thumbnail":
        return kind, post("/thumbnail", good), made
    if kind == "pipeline":
        path = '/pipeline?ops=[{"op":"flip"},{"op":"resize","w":9}]'
        return kind, post(path, good), made
    if kind == "variants":
        return kind, post("/variants?widths=9,20&formats=webp,jpeg", good), made
    if kind == "info":
        return kind, post("/info", good), made
    if kind == "damaged":
        return kind, post("/encode?f=webp&frames=5", damaged(chance)), made | {415, 422}
    if kind == "damaged info":
        return kind, post("/info", damaged(chance)), made | {415, 422}
    if kind == "bomb":
        return kind, post("/encode", BOMB), {422} | BUSY
    if kind == "no image":
        return kind, post("/encode", chance.randbytes(300)), {415, 422} | BUSY
    if kind == "wrong parameter":
        return kind, post("/encode?size=3", good), {400}
    if kind == "too wide":
        return kind, post("/encode?w=99999", good), {400}
    if kind == "too large":
        # The length is a lie: no body follows.
        return (
            kind,
            head("POST", "/encode", 10**9, "Expect: 100-continue"),
            {413} | BUSY,
        )
    if kind == "empty":
        return kind, post("/encode", b""), {400} | BUSY
    if kind == "broken form":
        form = "Content-Type: multipart/form-data; boundary=x"
        return kind, post("/encode", b"--x\r\nnothing", form), {400} | BUSY
    if kind == "nowhere":
        return kind, head("GET", f"/{chance.randrange(10**9)}", None), {404}
    if kind == "wrong method":
        return kind, head("DELETE", "/encode", None), {405}
    if kind == "no HTTP":
        return kind, chance.randbytes(200) + b"\r\n\r\n", {0, 400}
    if kind == "leaves":
        return kind, head("POST", "/encode", len(good)) + good[:50], {-1}
    if kind == "leaves early":
        return kind, post("/encode?f=png", good), {-1}
    return kind, head("GET", "/healthz", None), {200}


KINDS = (
    *("encode",) * 8,
    *("avif", "thumbnail", "pipeline", "variants", "info", "damaged", "damaged"),
    *("damaged", "damaged info", "bomb", "no image", "wrong parameter", "too wide"),
    *("too large", "empty", "broken form", "nowhere", "wrong method", "no HTTP"),
    *("leaves", "leaves early", "healthz"),
)


async def send(port: int, data: bytes, leave: bool) -> int:
    """Send a request over a connection of its own; returns the status, 0 for none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if leave:
            await writer.drain()
            return -1
        line = await asyncio.wait_for(reader.readline(), 60)
        words = line.split()
        return int(words[1]) if len(words) > 1 else 0
    except ConnectionError:
        return 0
    finally:
        writer.close()


async def send_all(port: int, number: int, seed: int) -> tuple[Counter, list[str]]:
    chance = random.Random(seed)
    seen: Counter = Counter()
    wrong: list[str] = []
    left = iter(range(number))

    async def client() -> None:
        for _ in left:
            kind, data, allowed = request(chance)
            status = await send(port, data, leave=-1 in allowed)
            seen[kind, status] += 1
            if status not in allowed:
                wrong.append(f"{kind}: {status}")

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return seen, wrong


class Weight(NamedTuple):
    """What a server holds, with its workers.

    Attributes:
        processes: it and all below it; some stand by once workers have been lost.
        memory: of all of them, in bytes.
        descriptors: of the server, but for those that speak to a process below it.
    """

    processes: int
    memory: int
    descriptors: int


def weigh(server: psutil.Process) -> Weight:
    """Return what a server holds now."""
    sizes = []
    for one in [server, *server.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes.append(one.memory_info().rss)
    own = server.num_fds() - PER_WORKER * len(sizes)
    return Weight(len(sizes), sum(sizes), own)


def let_close(server: psutil.Process, most: int) -> Weight:
    """Give connections that were cut time to be closed, and return what is left.

    One that was cut while the server did not read from it is ended by the limit of
    ten seconds for those that are idle, which is looked at once a second.
    """
    until = time.monotonic() + 30
    while (now := weigh(server)).descriptors > most and time.monotonic() < until:
        time.sleep(0.02)
    return now


def run(number: int, seed: int = 1) -> tuple[Counter, list[str], dict]:
    """Send so many requests to a server of its own; returns what was seen and wrong."""
    server, url = start_server(
        "--workers", str(WORKERS), "--queue", "20", "--no-controls"
    )
    port = int(url.rpartition(":")[2])
    process = psutil.Process(server.pid)
    try:
        seen, wrong = asyncio.run(send_all(port, max(number // 10, CLIENTS), seed))
        asyncio.run(settled(port))
        before = weigh(process)
        more, also = asyncio.run(send_all(port, number - number // 10, seed + 1))
        wrong += also
        after = asyncio.run(settled(port))
        then = let_close(process, before.descriptors + 2)
        figures = {
            "memory_before": before.memory,
            "memory_after": then.memory,
            "descriptors_before": before.descriptors,
            "descriptors_after": then.descriptors,
            **after,
        }
        if then.memory / then.processes > GROWTH * before.memory / before.processes:
            wrong.append(f"memory grew from {before} to {then}")
        if then.descriptors > before.descriptors + 2:
            wrong.append(f"descriptors grew from {before} to {then}")
        if after["workers_lost"] or after["upload_bytes"]:
            wrong.append(str(after))
    finally:
        code, said = stop_server(server)
    if code or "Traceback" in said:
        wrong.append(said[-2000:])
    return seen + more, wrong, figures


async def settled(port: int) -> dict:
    """Return the figures once nothing is under way, and all workers are there."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("GET", "/stats", None, "Connection: close"))
        figures = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
        rests = not figures["pending"] and not figures["upload_bytes"]
        if rests and figures["workers"] == WORKERS:
            names = ("workers_lost", "upload_bytes", "completed", "cancelled", "exits")
            return {name: figures[name] for name in names}


def main() -> None:
    seen, wrong, figures = run(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    for (kind, status), times in sorted(seen.items()):
        print(f"{kind:<18}{status:>4}{times:>8}")
    print(figures)
    if wrong:
        sys.exit(f"{len(wrong)} violations, the first: {wrong[:5]}")


if __name__ == "__main__":
    main()
