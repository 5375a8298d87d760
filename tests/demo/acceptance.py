"""The acceptance tests of the image server, in full: what is promised, and the figure.

    python tests/demo/acceptance.py              # all of them, about a minute
    python tests/demo/acceptance.py 4 11         # some

One real server with two workers and a queue of eight stands them all, one after the
other. The tests run the same functions, with less work where a promise holds at any
size. The fourteenth, throughput beside others, is benchmarks/uploads_to_webp.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import hostile

from demo_server import serve, start_server, stop_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1024**2
QUEUE, WORKERS = 8, 2
SHARED = ("--workers", str(WORKERS), "--queue", str(QUEUE), "--controls")

#: bytes that a worker may hold when it is done: half of what one image may take
CAP = 512 * MIB

PROMTOOL = shutil.which("promtool")


class Stage:
    """A running server, and what the tests ask of it.

    Attributes:
        url: its address.
        client: for one request after the other.
        photo: the sample photograph as JPEG, 400 kB.
        process: the server's.
        alarm: a file that is there once somebody has started Ghostscript.
    """

    def __init__(
        self, url: str, client: httpx.Client, process: psutil.Process, alarm: Path
    ) -> None:
        self.url = url
        self.client = client
        self.process = process
        self.alarm = alarm
        self.photo = client.get("/sample/photo?f=jpeg&q=90").content

    def stats(self) -> dict:
        return self.client.get("/stats").json()

    def workers(self) -> list[psutil.Process]:
        """Return the processes of all workers, once they are known."""
        while True:
            pids = [row["pid"] for row in self.stats()["processes"]]
            if len(pids) == WORKERS and None not in pids:
                return [psutil.Process(pid) for pid in pids]

    def until(self, **wanted: int) -> dict:
        """Ask for the figures until they are as wanted."""
        while True:
            figures = self.stats()
            if wanted.items() <= figures.items():
                return figures

    def connect(self) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=30)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Run a server that would notice if anybody started Ghostscript."""
    with tempfile.TemporaryDirectory() as folder:
        alarm = Path(folder, "started")
        program = Path(folder, "gs")
        program.write_text(f"#!/bin/sh\ntouch {alarm}\n")
        program.chmod(0o755)
        path = f"{folder}:{os.environ['PATH']}"
        server, url = start_server(*SHARED, env={"PATH": path})
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                yield Stage(url, client, psutil.Process(server.pid), alarm)
        finally:
            code, said = stop_server(server)
        assert (code, "Traceback" in said) == (0, False), said


def peak(process: psutil.Process) -> int:
    """Return the most memory that a process ever held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


# ---- one function for each promise; each returns its figure --------------------------


def refuse_bomb(on: Stage, full: bool) -> str:
    """A PNG of 7.8 kB with 64 megapixels: 422 in 50 ms, under 20 MiB in the worker."""
    on.client.post("/encode", content=hostile.image(random.Random(1), "PNG"))
    before = [peak(worker) for worker in on.workers()]
    took = []
    for _ in range(10 if full else 3):
        began = time.perf_counter()
        answer = on.client.post("/encode", content=hostile.BOMB)
        took.append(time.perf_counter() - began)
        assert answer.status_code == 422, answer.text
    more = max(peak(w) - b for w, b in zip(on.workers(), before, strict=True))
    if full:  # tests hold on busy machines as well
        assert min(took) < 0.05
    assert more < 20 * MIB
    return f"422 after {1000 * min(took):.0f} ms, {more / MIB:.1f} MiB more at most"


def refuse_lies(on: Stage, full: bool) -> str:
    """21 MiB, whatever Content-Length says: 413, and the connection is closed."""
    size = 21 * MIB
    post = "POST /encode HTTP/1.1\r\nHost: x\r\n"
    declared = f"{post}Content-Length: {size}\r\n\r\n".encode()
    chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
    streamed = f"{post}Transfer-Encoding: chunked\r\n\r\n".encode() + 21 * chunk
    short = f"{post}Content-Length: 99\r\n\r\n".encode() + bytes(size)
    answers = []
    # Of the first one nothing more comes, and the server waits for a moment.
    for sent in ([declared] * full) + [streamed + b"0\r\n\r\n", short]:
        with on.connect() as connection:
            with contextlib.suppress(ConnectionError):  # it need not take it all
                connection.sendall(sent)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(65536):  # to the end: it is closed
                    received += part
            answers.append(received)
    *large, small = [int(answer[9:12] or b"0") for answer in answers]
    assert {*large} == {413}, large
    # The first 99 bytes are no image, and what follows is no request.
    assert small in (415, 400, 0), small
    return f"413 when it is told and when it is not; {small} when it is hidden"


def refuse_eps(on: Stage, full: bool) -> str:
    """EPS called .jpg: 415, and no program is started."""
    before = {child.pid for child in on.process.children(recursive=True)}
    eps = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\nshowpage\n"
    )
    files = {"file": ("picture.jpg", eps, "image/jpeg")}
    answer = on.client.post("/encode", files=files)
    assert answer.status_code == 415, answer.text
    assert {child.pid for child in on.process.children(recursive=True)} == before
    assert not on.alarm.exists()
    return "415, nothing started"


def stand_flood(on: Stage, full: bool) -> str:
    """300 at once, 8 may wait: 200 or 429 only, /healthz p99 under 20 ms meanwhile."""
    number = 300 if full else 60
    command = [sys.executable, __file__, "--watch", on.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watcher:
        watcher.stdout.readline()  # it has begun

        async def flood() -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=number)
            async with httpx.AsyncClient(
                base_url=on.url, timeout=60, limits=limits
            ) as client:
                path = "/encode?f=webp&w=800"
                asked = (client.post(path, content=on.photo) for _ in range(number))
                return await asyncio.gather(*asked)

        answers = asyncio.run(flood())
        health = [float(text) for text in watcher.communicate("\n")[0].split()]
    seen = Counter(answer.status_code for answer in answers)
    assert {200, 429} == {*seen}, seen
    assert seen[200] >= WORKERS
    for answer in answers:
        assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
    late = 1000 * percentile(health, 99)
    if full:
        assert late < 20, late
    return f"{seen[200]} made, {seen[429]} refused; /healthz p99 {late:.1f} ms"


def watch(url: str) -> None:
    """Ask for health until stdin ends; print how long each answer took."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
    took = []
    with httpx.Client(base_url=url, timeout=60) as client:
        client.get("/healthz")
        print(flush=True)
        while not ended.wait(0.01):
            began = time.perf_counter()
            assert client.get("/healthz").text == "ok\n"
            took.append(time.perf_counter() - began)
    print(*took)


def keep_to_one_core(on: Stage, full: bool) -> str:
    """AVIF: processor time at most 1.1 times the wall's."""
    side, speed = (2048, 6) if full else (500, 8)
    before = {one.pid: sum(one.cpu_times()[:2]) for one in on.workers()}
    answer = on.client.post(
        f"/encode?f=avif&w={side}&enlarge=1&speed={speed}", content=on.photo
    )
    assert answer.status_code == 200, answer.text
    pid = int(answer.headers["x-worker-pid"])
    used = sum(psutil.Process(pid).cpu_times()[:2]) - before[pid]
    timing = re.findall(r"\b(decode|resize|encode);dur=([\d.]+)", str(answer.headers))
    wall = sum(float(value) for _, value in timing) / 1000
    ratio = used / wall
    if full:  # the kernel counts in hundredths of a second
        assert ratio <= 1.1, ratio
    return f"{used:.2f} s of processor in {wall:.2f} s: {ratio:.2f}"


def forget_who_left(on: Stage, full: bool) -> str:
    """A client leaves while its image waits: it is never made."""
    before = on.until(pending=0)
    head = "POST /encode?f=avif&speed={} HTTP/1.1\r\nHost: x\r\nContent-Length: "
    head += f"{len(on.photo)}\r\n\r\n"
    with contextlib.ExitStack() as running:
        for _ in range(WORKERS):
            one = running.enter_context(on.connect())
            one.sendall(head.format(8).encode() + on.photo)
        on.until(busy=WORKERS)
        with on.connect() as waits:
            waits.sendall(head.format(9).encode() + on.photo)
            on.until(queued=1)
        left = before["cancelled"] + 1
        figures = on.until(queued=0, cancelled=left)
        assert figures["completed"] - before["completed"] <= WORKERS
    after = on.until(pending=0)
    made = after["completed"] - before["completed"]
    gone = after["cancelled"] - before["cancelled"]
    assert made + gone == WORKERS + 1
    assert gone >= 1
    return f"cancelled while it waited; {made} of the others made, {gone - 1} given up"


def die_at_word(data, recipe, max_pixels):
    if bytes(data) == b"die":
        os._exit(7)
    from offloop.demo import images

    return images.encode(data, recipe, max_pixels)


def contain_crash(on: Stage, full: bool) -> str:
    """An image that ends its worker: 502 for it, 200 for all others."""
    from offloop.demo import jobs

    good = hostile.image(random.Random(1), "PNG")
    number = 60 if full else 12

    async def run() -> Counter:
        async with serve(workers=WORKERS, queue=100) as client:
            bodies = [b"die" if n % 6 == 3 else good for n in range(number)]
            asked = (client.post("/encode?f=webp", content=one) for one in bodies)
            answers = await asyncio.gather(*asked)
            return Counter(
                (body == b"die", answer.status_code)
                for body, answer in zip(bodies, answers, strict=True)
            )

    real, jobs.encode = jobs.encode, die_at_word
    try:
        seen = asyncio.run(run())
    finally:
        jobs.encode = real
    assert seen == {(True, 502): number // 6, (False, 200): number - number // 6}, seen
    return f"{seen[True, 502]} times 502, {seen[False, 200]} times 200"


def negotiate(on: Stage, full: bool) -> str:
    """Accept: image/webp;q=0, */* leads to JPEG, with Vary: Accept."""
    headers = {"Accept": "image/webp;q=0, */*"}
    answer = on.client.post("/encode?w=40", content=on.photo, headers=headers)
    told = (answer.headers["content-type"], answer.headers["vary"])
    assert told == ("image/jpeg", "Accept"), told
    return f"{told[0]}, Vary: {told[1]}"


def answer_from_name(on: Stage, full: bool) -> str:
    """The same image and parameters: the same ETag, and 304 without a job."""
    tags = {
        on.client.post("/encode?w=40", content=on.photo).headers["etag"]
        for _ in range(2)
    }
    assert len(tags) == 1
    before = on.stats()["submitted"]
    known = {"If-None-Match": tags.pop()}
    again = on.client.post("/encode?w=40", content=on.photo, headers=known)
    assert again.status_code == 304
    more = on.stats()["submitted"] - before
    assert more == 0
    return f"304, {more} jobs"


def replace_workers(on: Stage, full: bool) -> str:
    """All workers are replaced while images come in: none fails."""
    times = 5 if full else 1
    goal = on.stats()["exits"].get("reloaded", 0) + times * WORKERS
    statuses: list[int] = []
    over = threading.Event()

    def send_until_over(_: int) -> None:
        with httpx.Client(base_url=on.url, timeout=30) as client:
            while not over.is_set():
                answer = client.post("/encode?f=webp&w=100", content=on.photo)
                statuses.append(answer.status_code)

    with ThreadPoolExecutor(4) as threads:
        sent = threads.map(send_until_over, range(4))
        try:
            for turn in range(1, times + 1):
                sofar = len(statuses)
                while len(statuses) < sofar + 8:
                    time.sleep(0.001)
                on.process.send_signal(signal.SIGHUP)
                due = goal - (times - turn) * WORKERS
                while on.stats()["exits"].get("reloaded", 0) < due:
                    pass
        finally:
            over.set()
        list(sent)
    assert {*statuses} == {200}, Counter(statuses)
    return f"{times} times; {len(statuses)} images sent, {len(statuses)} made"


def stay_small(on: Stage, full: bool) -> str:
    """2,000 mixed encodes: every worker below its cap, no descriptor more."""
    chance = random.Random(3)
    formats = ("jpeg", "webp", "png", "gif", "tiff", "jp2", "qoi", "avif&speed=10")
    sources = [hostile.image(chance, format) for format in hostile.FORMATS] + [on.photo]
    number = 2000 if full else 60

    def send(count: int) -> int:
        def some(seed: int) -> None:
            mine = random.Random(seed)
            with httpx.Client(base_url=on.url, timeout=60) as client:
                for _ in range(count // 4):
                    path = (
                        f"/encode?f={mine.choice(formats)}&w={mine.randrange(1, 400)}"
                    )
                    answer = client.post(path, content=mine.choice(sources))
                    assert answer.status_code == 200, answer.text

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(some, range(4)))
        on.until(pending=0)
        return on.process.num_fds()

    descriptors = send(number // 10)
    after = send(number - number // 10)
    largest = max(worker.memory_info().rss for worker in on.workers())
    assert largest < CAP
    assert after <= descriptors + 1, (descriptors, after)
    return (
        f"largest worker {largest / MIB:.0f} of {CAP // MIB} MiB; "
        f"{descriptors} descriptors before, {after} after"
    )


def please_prometheus(on: Stage, full: bool) -> str:
    """`promtool check metrics` has nothing to say."""
    if PROMTOOL is None:
        return "there is no promtool here"
    text = on.client.get("/metrics").content
    command = [PROMTOOL, "check", "metrics"]
    checked = subprocess.run(command, input=text, capture_output=True, check=False)
    said = checked.stdout + checked.stderr
    assert (checked.returncode, said) == (0, b""), said
    return f"nothing, of {text.count(b'# TYPE')} metrics"


def need_nobody(on: Stage, full: bool) -> str:
    """The page loads nothing from elsewhere, and works without JavaScript."""
    from browser import PROGRAM, Browser

    if PROGRAM is None:
        return "there is no Chromium here"
    with Browser() as browser, tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(on.photo)
        file.flush()
        browser.call("Network.enable")
        browser.open(f"{on.url}/")
        browser.until("!!document.querySelector('#saving b')")
        asked = [
            url for url in browser.requests if not url.startswith(("blob:", "data:"))
        ]
        elsewhere = [url for url in asked if not url.startswith(f"{on.url}/")]
        assert asked
        assert elsewhere == []
        browser.open(f"{on.url}/", scripts=False)
        browser.until("document.getElementById('live')?.hidden")
        browser.choose_file("#file", file.name)
        browser.run("document.querySelector('#send').click()")
        browser.until("document.contentType == 'image/webp'")
    return f"{len(asked)} requests, all to the server; the form alone makes a WebP"


TESTS: dict[int, Callable[[Stage, bool], str]] = {
    1: refuse_bomb,
    2: refuse_lies,
    3: refuse_eps,
    4: stand_flood,
    5: keep_to_one_core,
    6: forget_who_left,
    7: contain_crash,
    8: negotiate,
    9: answer_from_name,
    10: replace_workers,
    11: stay_small,
    12: please_prometheus,
    13: need_nobody,
}


def main() -> None:
    if sys.argv[1:2] == ["--watch"]:
        return watch(sys.argv[2])
    wanted = [int(number) for number in sys.argv[1:]] or [*TESTS]
    missed = []
    with stage() as on:
        for number in wanted:
            test = TESTS[number]
            print(f"{number:>2}  {test.__doc__}", flush=True)
            try:
                print(f"    {test(on, True)}", flush=True)
            except AssertionError as error:
                missed.append(number)
                print(f"    MISSED: {error}", flush=True)
    if missed:
        sys.exit(f"missed: {missed}")


if __name__ == "__main__":
    main()
