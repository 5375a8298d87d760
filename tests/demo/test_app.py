"""The server over real HTTP: every route, every status, and clients that leave."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import offloop
from offloop.demo import app, jobs
from offloop.demo.recipe import FORMATS
from offloop.demo.settings import Settings

MEGABYTE = b"\xff\xd8\xff" + bytes(1_000_000)


def problem_of(response, status):
    """Check that an answer is a problem document, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"].endswith(".")
    return problem


# --- images ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_raw_body_is_encoded(client, picture, method, format):
    response = client.request(
        method,
        f"/encode?f={format}&w=32",
        content=picture(),
        headers={"Content-Type": "image/jpeg", "X-Request-Id": "r-1"},
    )
    assert response.status_code == 200
    headers = response.headers
    assert headers["content-type"] == FORMATS[format]
    assert int(headers["content-length"]) == len(response.content) > 100
    assert headers["x-request-id"] == "r-1"
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]


def test_an_answer_tells_where_its_time_went(client, picture):
    timing = client.post("/encode", content=picture()).headers["server-timing"]
    spans = dict(re.findall(r"(\w+);dur=([\d.]+)", timing))
    assert list(spans) == ["queue", "run", "decode", "resize", "encode", "total"]
    steps = sum(float(spans[name]) for name in ("decode", "resize", "encode"))
    assert 0 < steps <= float(spans["run"]) + 0.2 <= float(spans["total"]) + 0.4


def test_a_form_without_scripts_is_encoded(client, picture):
    response = client.post(
        "/encode",
        files={"file": ("x.png", picture("PNG"))},
        data={"format": "webp", "quality": "70", "w": "32", "h": "", "fit": "inside"},
    )
    assert response.headers["content-type"] == "image/webp"


@pytest.mark.parametrize("name", jobs.SAMPLES)
def test_samples_are_drawn_to_order(client, name):
    response = client.get(f"/sample/{name}?f=webp&w=80")
    assert response.headers["content-type"] == "image/webp"
    assert "max-age" in response.headers["cache-control"]


def test_an_unknown_sample_is_not_found(client):
    assert "photo, graphic" in problem_of(client.get("/sample/x"), 404)["detail"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_never_loads_the_image_library(client, shared_server, picture):
    assert client.post("/encode", content=picture()).status_code == 200
    server = psutil.Process(shared_server[0])

    def has_pillow(process):
        return "_imaging" in Path(f"/proc/{process.pid}/maps").read_text()

    assert not has_pillow(server)
    assert any(has_pillow(child) for child in server.children(recursive=True))


# --- what is wrong with a request -----------------------------------------------------


@pytest.mark.parametrize(
    ("query", "param"), [("f=bmp", "f"), ("q=0", "q"), ("w=a", "w"), ("size=3", "size")]
)
def test_a_bad_parameter_is_named(client, picture, query, param):
    response = client.post(f"/encode?{query}", content=picture())
    assert problem_of(response, 400)["param"] == param


def test_an_empty_body_is_refused(client):
    problem_of(client.post("/encode"), 400)


def test_a_broken_form_is_refused(client):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = client.post("/encode", content=b"no form", headers=headers)
    problem_of(response, 400)


def test_what_does_not_exist_is_not_found(client):
    assert "/nothing" in problem_of(client.get("/nothing"), 404)["detail"]


def test_a_wrong_method_is_told_the_right_ones(client):
    response = client.get("/encode")
    assert set(response.headers["allow"].split(", ")) == {"POST", "PUT"}
    problem_of(response, 405)


@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
@pytest.mark.parametrize("declared", [False, True], ids=["chunked", "declared"])
async def test_a_body_over_the_limit_is_refused(serving, form, declared):
    async with serving(max_body=500_000) as client:
        content = {"content": MEGABYTE} if not form else {"files": {"file": MEGABYTE}}
        asked = client.build_request("POST", "/encode", **content)
        if not declared:
            del asked.headers["content-length"]
            asked.headers["transfer-encoding"] = "chunked"
        response = await client.send(asked)
    assert "500,000" in problem_of(response, 413)["detail"] or form
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("data", [b"just text", b"%PDF-1.7", b"\0" * 99])
def test_what_is_not_an_image_is_refused(client, data):
    problem_of(client.post("/encode", content=data), 415)


def test_another_type_of_body_is_refused(client):
    problem_of(client.post("/encode", json={"image": "x"}), 415)


def test_a_damaged_image_is_refused(client, picture):
    response = client.post("/encode", content=picture("PNG")[:-200])
    assert "PNG" in problem_of(response, 422)["detail"]


async def test_too_many_pixels_are_refused(serving, picture):
    async with serving(max_pixels=3000) as client:
        response = await client.post("/encode", content=picture())  # 64 x 48
    problem_of(response, 422)


def test_no_damage_to_an_image_is_an_error_of_the_server(client, picture):
    chance = random.Random(20)
    statuses = set()
    for number in range(150):
        format = chance.choice(["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"])
        mode = chance.choice(["L", "RGB"])
        data = bytearray(picture(format, mode=mode))
        for _ in range(chance.choice([1, 3, 30])):
            # The header is where the decisions are.
            place = min(int(chance.paretovariate(0.4)) + 3, len(data) - 1)
            data[place] ^= 1 << chance.randrange(8)
        if number % 3 == 0:
            del data[chance.randrange(4, len(data)) :]
        response = client.post("/encode?f=jpeg&strip=0", content=bytes(data))
        statuses.add(response.status_code)
        assert response.status_code in (200, 415, 422), bytes(data)
    assert {200, 422} <= statuses


# --- busy, lost, late, closing --------------------------------------------------------


def stall(data, recipe, max_pixels):
    threading.Event().wait()


def die(data, recipe, max_pixels):
    os._exit(7)


def err(data, recipe, max_pixels):
    return 1 // 0


async def until(client, **wanted):
    """Ask for the figures until they are as wanted."""
    async with asyncio.timeout(10):
        while True:
            figures = (await client.get("/stats")).json()
            if wanted.items() <= figures.items():
                return


async def test_a_client_that_leaves_cancels_its_image(serving, monkeypatch):
    monkeypatch.setattr(jobs, "encode", stall)
    async with serving(workers=1, queue=1) as client:
        waiting = [asyncio.ensure_future(client.post("/encode", content=b"x"))]
        await until(client, busy=1)
        waiting.append(asyncio.ensure_future(client.post("/encode", content=b"x")))
        await until(client, busy=1, queued=1)
        for request in waiting:
            request.cancel()
        await until(client, busy=0, queued=0, cancelled=2)


async def test_a_full_server_refuses_at_once_and_stays_healthy(serving, monkeypatch):
    monkeypatch.setattr(jobs, "encode", stall)
    async with serving(workers=1, queue=0) as client:
        first = asyncio.ensure_future(client.post("/encode", content=b"x"))
        await until(client, busy=1)
        refused = await client.post("/encode", content=b"x")
        assert int(refused.headers["retry-after"]) >= 1
        problem_of(refused, 429)
        assert (await client.get("/healthz")).text == "ok\n"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "the queue is full")
        first.cancel()
        await until(client, busy=0)


async def test_an_image_that_kills_its_worker_is_a_bad_gateway(
    serving, picture, monkeypatch
):
    async with serving(workers=1) as client:
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "encode", die)
            problem_of(await client.post("/encode", content=b"x"), 502)
        assert (await client.post("/encode", content=picture())).status_code == 200


async def test_an_image_that_takes_too_long_is_given_up(serving, monkeypatch):
    monkeypatch.setattr(jobs, "encode", stall)
    async with serving(timeout=0.05) as client:
        problem_of(await client.post("/encode", content=b"x"), 504)


async def test_a_bug_is_a_problem_that_tells_nothing(serving, monkeypatch):
    monkeypatch.setattr(jobs, "encode", err)
    async with serving() as client:
        response = await client.post("/encode", content=b"x")
    assert "Zero" not in problem_of(response, 500)["detail"]
    assert response.headers["x-request-id"]


async def test_a_server_whose_pool_is_closed_says_so(serving, picture, monkeypatch):
    pools = []

    class Seen(offloop.Pool):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            pools.append(self)

    monkeypatch.setattr(offloop, "Pool", Seen)
    async with serving() as client:
        await pools[0].close()
        response = await client.post("/encode", content=picture())
        ready = await client.get("/readyz")
    assert "retry-after" in response.headers
    problem_of(response, 503)
    assert ready.json()["reason"] == "the server is shutting down"


def test_a_pool_without_workers_is_not_ready():
    pool = SimpleNamespace(is_open=True, stats=offloop.PoolStats)
    assert app._why_not_ready(pool, Settings()) == "no worker is ready"


# --- the rest -------------------------------------------------------------------------


def test_the_server_is_ready(client):
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").json() == {"ready": True}


def test_figures_are_those_of_the_pool_and_the_limits(client):
    figures = client.get("/stats").json()
    assert offloop.PoolStats().as_dict().keys() <= figures.keys()
    assert figures["workers"] == 1
    assert figures["limits"]["max_pending"] == 9
    assert figures["uptime"] >= 0


def test_the_page_is_one_file_that_also_works_without_scripts(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page.text)
    form = re.search(r"<form.*?</form>", page.text, re.DOTALL)[0]
    assert 'action="/encode" method="post" enctype="multipart/form-data"' in form
    names = set(re.findall(r'name="(\w+)"', form))
    assert names == {"file", "format", "quality", "w", "h", "fit"}
