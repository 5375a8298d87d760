"""Photographs over HTTP: how many a second, and does /healthz answer meanwhile?

A photograph of 1600x1200 as JPEG comes in, a WebP of 400 px goes out, and as many are
made at once as there are cores. In one run, taking turns:

    bare Pillow        a process for each core, without HTTP: the ceiling
    offloop demo       the image server, a worker for each core; also with libvips
    Starlette + ...    one small application, the same handler; encoding in a pool of
                       offloop, in ProcessPoolExecutor, in threads, on the event loop
    thumbor            in several settings. It cannot scale what a request brings: a
                       photograph is uploaded, stored, and then asked for. In the rows
                       "from disk" it is there already, and nothing is uploaded
    sharp              libvips behind Node's own HTTP server

    python benchmarks/uploads_to_webp.py --setup     # installs thumbor and sharp
    python benchmarks/uploads_to_webp.py --rounds 3 --seconds 4
    python benchmarks/uploads_to_webp.py --only "bare Pillow" "offloop demo"

Fails when the image server makes less than 95 % of what bare Pillow makes, less than
1.5 times what thumbor makes of uploads, or when its /healthz has not the best p99 of
all that encode in Python.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import uvloop

from harness import node
from healthz_under_load import Connection as Plain
from healthz_under_load import percentile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HERE = Path(__file__).parent
THUMBOR = HERE.parent / ".venv-thumbor"
CORES = len(os.sched_getaffinity(0))

SIDE, QUALITY = 400, 80
PAUSE = 0.01  # between two questions for health
PATH = f"/encode?f=webp&w={SIDE}&q={QUALITY}"

LEAST_OF_BARE = 0.95
LEAST_OF_THUMBOR = 1.5


class Figures(NamedTuple):
    """What one turn measured.

    Attributes:
        rate: images a second.
        p99: milliseconds of /healthz; None: there is none.
        lag: milliseconds that the event loop was late, 99th percentile; None: not told.
    """

    rate: float
    p99: float | None = None
    lag: float | None = None


class Missing(Exception):
    """A contender cannot run here; the message says what it needs."""


# ---- the work ------------------------------------------------------------------------


def draw_photo() -> bytes:
    """Return the sample photograph of the image server as JPEG."""
    from offloop.demo import images, samples
    from offloop.demo.recipe import Recipe

    recipe = Recipe("jpeg", quality=85)
    return images.render(samples.draw("photo"), recipe, 10**8).data


def shrink(data: bytes) -> bytes:
    """Make the WebP with nothing but Pillow, by the same steps as the image server."""
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    size = (SIDE, round(SIDE * image.height / image.width))
    image.draft("RGB", size)  # a quarter, which is what is wanted
    image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


# ---- the small application -----------------------------------------------------------


def serve_small(engine: str) -> None:
    """Run an application whose only difference is where `shrink` runs."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    import offloop
    from offloop.demo.lag import LagMonitor

    monitor = LagMonitor()

    async def encode(request):
        return Response(await run(await request.body()), media_type="image/webp")

    async def health(request):
        return PlainTextResponse("ok\n")

    async def lag(request):
        seconds = float(request.query_params["seconds"])
        lags = [
            one.lag
            for one in monitor.since(asyncio.get_running_loop().time() - seconds)
        ]
        return PlainTextResponse(str(percentile(lags, 99)))

    @contextlib.asynccontextmanager
    async def lifespan(app):
        nonlocal run
        async with monitor, contextlib.AsyncExitStack() as stack:
            if engine == "offloop":
                pool = await stack.enter_async_context(offloop.Pool(CORES))
                await pool.ready()

                async def run(data):
                    return await pool.run(shrink, data)

            elif engine == "executor":
                executor = stack.enter_context(ProcessPoolExecutor(CORES))
                loop = asyncio.get_running_loop()

                async def run(data):
                    return await loop.run_in_executor(executor, shrink, data)

            elif engine == "thread":

                async def run(data):
                    return await asyncio.to_thread(shrink, data)

            else:

                async def run(data):
                    return shrink(data)

            yield

    run = None
    routes = [
        Route("/encode", encode, methods=["POST"]),
        Route("/healthz", health),
        Route("/lag", lag),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    uvicorn.run(app, port=0, access_log=False)


# ---- contenders ----------------------------------------------------------------------


def bare(photo: bytes, seconds: float) -> Figures:
    """Let a process for each core work without being asked over HTTP."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(photo)
        file.flush()
        command = [sys.executable, __file__, "--bare", file.name, str(seconds)]
        workers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            for _ in range(CORES)
        ]
        return Figures(sum(float(worker.communicate()[0]) for worker in workers))


def work_alone(path: str, seconds: float) -> None:
    photo = Path(path).read_bytes()
    shrink(photo)
    began, made = perf_counter(), 0
    while (passed := perf_counter() - began) < seconds:
        shrink(photo)
        made += 1
    print(made / passed)


def demo(*options: str) -> list[str]:
    limits = ["--workers", str(CORES), "--queue", "100", "--timeout", "60"]
    return [sys.executable, "-m", "offloop", "demo", "--port", "0", *limits, *options]


def small(engine: str) -> list[str]:
    return [sys.executable, __file__, "--serve", engine]


THUMBOR_SETTINGS = """
LOADER = "thumbor.loaders.file_loader"
FILE_LOADER_ROOT_PATH = {folder!r}
STORAGE = "thumbor.storages.{storage}"
FILE_STORAGE_ROOT_PATH = {folder!r}
UPLOAD_ENABLED = True
UPLOAD_PHOTO_STORAGE = "thumbor.storages.file_storage"
AUTO_WEBP = False
ENGINE_THREADPOOL_SIZE = {threads}
"""


def thumbor(
    folder: str, port: int, processes: int, threads: int, uploads: bool
) -> list[str]:
    if not (THUMBOR / "bin/thumbor").exists():
        raise Missing("needs --setup")
    config = Path(folder, "thumbor.conf")
    storage = "file_storage" if uploads else "no_storage"
    config.write_text(
        THUMBOR_SETTINGS.format(folder=folder, threads=threads, storage=storage)
    )
    return [
        *(str(THUMBOR / "bin/thumbor"), "--conf", str(config), "--log-level", "error"),
        *("--ip", "127.0.0.1", "--port", str(port), "--processes", str(processes)),
    ]


def sharp() -> list[str]:
    try:
        return node.command("sharp_server.mjs")
    except node.Missing as missing:
        raise Missing(str(missing)) from None


#: settings of thumbor: processes, threads of its engine in each, uploads or from disk
THUMBORS = {
    "thumbor, a process a core": (CORES, 0, True),
    "thumbor, threads": (1, CORES, True),
    "thumbor, both": (CORES, CORES, True),
    "thumbor from disk, threads": (1, CORES, False),
    "thumbor from disk, both": (CORES, CORES, False),
}
SERVERS = {
    "offloop demo": lambda: demo(),
    "offloop demo, libvips": lambda: demo("--codec", "vips"),
    "Starlette + offloop": lambda: small("offloop"),
    "Starlette + ProcessPoolExecutor": lambda: small("executor"),
    "Starlette + to_thread": lambda: small("thread"),
    "Starlette, inline": lambda: small("inline"),
    "sharp (Node)": sharp,
}
CONTENDERS = ["bare Pillow", *SERVERS, *THUMBORS]


# ---- measuring -----------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(command: list[str], port: int | None):
    """Start a server and yield its port; with its children it ends with the block."""
    with tempfile.TemporaryFile("w+") as said:
        server = await asyncio.create_subprocess_exec(
            *command, stderr=said, start_new_session=True
        )
        try:
            async with asyncio.timeout(30):
                while True:
                    await asyncio.sleep(0.05)
                    said.seek(0)
                    text = said.read()
                    if server.returncode is not None:
                        raise Missing((text.strip().splitlines() or ["it ended"])[-1])
                    if found := re.search(
                        r"running on http://127\.0\.0\.1:(\d+)", text
                    ):
                        port = int(found[1])
                        break
                    if port is not None and is_open(port):
                        break
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(server.wait(), 10)
            except TimeoutError:
                os.killpg(server.pid, signal.SIGKILL)
                await server.wait()


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Connection(Plain):
    """A connection over which an image can also be left at thumbor's."""

    async def leave(self, photo: bytes) -> str:
        """Upload a photograph; returns the name by which it can be asked for."""
        head = f"POST /image HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}"
        kind = "\r\nContent-Type: image/jpeg\r\n\r\n"
        self._writer.write((head + kind).encode() + photo)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        place = re.search(rb"(?i)\r\nlocation: /image/(\w+)", answer)
        if place is None:
            raise RuntimeError(f"the upload was answered with {answer!r}")
        return place[1].decode()


class Load:
    """Clients that have one image made after the other.

    Args:
        port: of the server.
        once: has one made over a connection; returns the status and the body.
    """

    def __init__(self, port: int, once: Callable[[Connection], Awaitable]) -> None:
        self._port = port
        self._once = once
        self.images = 0
        self.warm = asyncio.Event()

    async def client(self) -> None:
        async with Connection(self._port) as connection:
            while True:
                status, answer = await self._once(connection)
                if status != 200 or answer[8:12] != b"WEBP":
                    raise RuntimeError(f"answered with {status}: {answer[:300]!r}")
                self.images += 1
                if self.images >= 3 * CORES:
                    self.warm.set()


def by_thumbor(photo: bytes, uploads: bool) -> Callable[[Connection], Awaitable]:
    async def once(connection: Connection):
        name = await connection.leave(photo) if uploads else "photo.jpg"
        filters = f"filters:quality({QUALITY}):format(webp)"
        return await connection.ask("GET", f"/unsafe/{SIDE}x0/{filters}/{name}")

    return once


async def watch(port: int, seconds: float, path: str) -> list[float]:
    """Return how long the server took to say that it is alive, each time."""
    answers = []
    end = perf_counter() + seconds
    async with Connection(port) as connection:
        while perf_counter() < end:
            asked = perf_counter()
            await connection.ask("GET", path)
            answers.append(perf_counter() - asked)
            await asyncio.sleep(PAUSE)
    return answers


async def measure(
    port: int, load: Load, args: argparse.Namespace, health: str, tells_lag: bool
) -> Figures:
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(load.client()) for _ in range(args.clients)]
        await load.warm.wait()
        before, began = load.images, perf_counter()
        answers = await watch(port, args.seconds, health)
        rate = (load.images - before) / (perf_counter() - began)
        lag = None
        if tells_lag:
            async with Connection(port) as connection:
                _, text = await connection.ask("GET", f"/lag?seconds={args.seconds}")
            lag = 1000 * float(text)
        for client in clients:
            client.cancel()
    return Figures(rate, 1000 * percentile(answers, 99), lag)


async def turn(
    name: str, photo: bytes, folder: str, args: argparse.Namespace
) -> Figures:
    if name == "bare Pillow":
        return await asyncio.to_thread(bare, photo, args.seconds)
    if name in THUMBORS:
        port = free_port()
        command = thumbor(folder, port, *THUMBORS[name])
        once, health = by_thumbor(photo, THUMBORS[name][2]), "/healthcheck"
    else:
        port, command = None, SERVERS[name]()
        once, health = (lambda one: one.ask("POST", PATH, photo)), "/healthz"
    async with running(command, port) as port:
        load = Load(port, once)
        return await measure(port, load, args, health, name.startswith("Starlette"))


def put(photo: bytes, folder: str) -> None:
    Path(folder, "photo.jpg").write_bytes(photo)


async def take_turns(args: argparse.Namespace) -> dict[str, list[Figures]]:
    names = args.only or CONTENDERS
    found: dict[str, list[Figures]] = {name: [] for name in names}
    photo = draw_photo()
    with tempfile.TemporaryDirectory() as folder:
        put(photo, folder)
        for _ in range(args.rounds):
            for name in list(found):
                try:
                    found[name].append(await turn(name, photo, folder, args))
                except Missing as missing:
                    print(f"{name}: {missing}", file=sys.stderr)
                    del found[name]
    return found


def setup() -> None:
    """Install the contenders of other worlds, each into a place of its own."""
    venv.create(THUMBOR, with_pip=True)
    pip = [THUMBOR / "bin/python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "thumbor", "setuptools<80"], check=True)
    subprocess.run(["npm", "install", "--no-fund"], cwd=node.FOLDER, check=True)


# ---- the table -----------------------------------------------------------------------


def summary(turns: list[Figures]) -> Figures:
    def middle(values):
        return median(values) if None not in values else None

    return Figures(*(middle(column) for column in zip(*turns, strict=True)))


def show(found: dict[str, Figures]) -> None:
    ceiling = found.get("bare Pillow")
    print(
        f"{'':<34}{'images/s':>9}{'of bare':>9}{'healthz p99':>13}{'loop lag p99':>14}"
    )
    for name, figures in found.items():
        share = f"{figures.rate / ceiling.rate:.0%}" if ceiling else "-"
        rest = ["-" if one is None else f"{one:.1f} ms" for one in figures[1:]]
        print(f"{name:<34}{figures.rate:>9.1f}{share:>9}{rest[0]:>13}{rest[1]:>14}")


def missed(found: dict[str, Figures]) -> list[str]:
    """Return what the image server promises and does not hold."""
    ours = found.get("offloop demo")
    if ours is None:
        return []
    said = []
    ceiling = found.get("bare Pillow")
    if ceiling and ours.rate < LEAST_OF_BARE * ceiling.rate:
        said.append(f"{ours.rate / ceiling.rate:.0%} of bare Pillow")
    uploads = [name for name, (_, _, uploads) in THUMBORS.items() if uploads]
    best = max((found[name].rate for name in uploads if name in found), default=0)
    if ours.rate < LEAST_OF_THUMBOR * best:
        said.append(f"{ours.rate / best:.2f} times thumbor")
    for name in SERVERS:
        same = name.startswith("Starlette") and not name.endswith("offloop")
        if same and name in found and (found[name].p99 or 0) <= (ours.p99 or 0):
            said.append(f"/healthz answers later than with {name}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--clients", type=int, default=2 * CORES)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="NAME")
    parser.add_argument(
        "--setup", action="store_true", help="install thumbor and sharp"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve_small(args.serve)
    if args.bare:
        return work_alone(args.bare[0], float(args.bare[1]))
    if args.setup:
        return setup()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(take_turns(args))
    figures = {name: summary(turns) for name, turns in found.items()}
    show(figures)
    if said := missed(figures):
        sys.exit("missed: " + "; ".join(said))


if __name__ == "__main__":
    main()
