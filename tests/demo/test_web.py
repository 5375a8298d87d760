"""The server over real HTTP: every route, every status, and clients that leave."""

from __future__ import annotations

import asyncio
import email.policy
import hashlib
import io
import json
import os
import random
import re
import socket
import sys
import threading
import zipfile
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from urllib.parse import urlencode

import psutil
import pytest
from PIL import Image
from prometheus_client import parser

import offloop
from jobs import reach, wait_for
from offloop.demo import endpoints, jobs, openapi, variants, watching, writers
from offloop.demo.parameters import PARAMETERS
from offloop.demo.problems import Problem
from offloop.demo.recipe import FORMATS
from offloop.demo.signing import sign

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
@pytest.mark.parametrize("format", writers.writable())
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
    *steps, total = map(float, spans.values())
    assert list(spans) == ["queue", "decode", "resize", "encode", "ipc", "total"]
    assert 0 < sum(steps) <= total + 0.5  # each is rounded to a tenth


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
    assert (
        "photo, graphic, animation"
        in problem_of(client.get("/sample/x"), 404)["detail"]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_never_loads_the_image_library(client, shared_server, picture):
    assert client.post("/encode", content=picture()).status_code == 200
    server = psutil.Process(shared_server[0])

    def has_pillow(process):
        return "_imaging" in Path(f"/proc/{process.pid}/maps").read_text()

    assert not has_pillow(server)
    assert any(has_pillow(child) for child in server.children(recursive=True))


# --- other ways to ask ----------------------------------------------------------------


def opened(response, status=200):
    assert response.status_code == status, response.text
    return Image.open(io.BytesIO(response.content))


def test_a_thumbnail_is_small_unless_it_is_told_how_large(client, picture):
    large = picture(size=(800, 600))
    assert opened(client.post("/thumbnail", content=large)).size == (320, 240)
    assert opened(client.post("/thumbnail?w=50", content=large)).size == (50, 38)


def test_a_pipeline_does_one_thing_after_the_other(client, picture):
    ops = [
        {"op": "crop", "crop": "0,0,40,40"},
        {"op": "resize", "w": 20},
        {"op": "encode", "format": "png"},
    ]
    response = client.post(
        "/pipeline", params={"ops": json.dumps(ops)}, content=picture()
    )
    assert (opened(response).size, opened(response).format) == ((20, 20), "PNG")
    form = client.post(
        "/pipeline?format=webp",
        data={"ops": '[{"op": "rotate", "rotate": 90}]'},
        files={"file": picture()},
    )
    assert (opened(form).size, opened(form).format) == ((48, 64), "WEBP")


@pytest.mark.parametrize(
    "query", ["", "ops=", "ops=[]", "w=3", 'ops=[{"op":"flip"}]&ops=[{"op":"flip"}]']
)
def test_a_pipeline_needs_operations(client, picture, query):
    problem_of(client.post(f"/pipeline?{query}", content=picture()), 400)


def test_an_image_is_described(client, picture):
    summary = client.post("/info", content=picture("PNG")).json()
    assert (summary["format"], summary["width"], summary["frames"]) == ("PNG", 64, 1)
    problem_of(client.post("/info?w=3", content=picture()), 400)
    problem_of(client.post("/info", content=b"text"), 415)


QUERY = "/variants?widths=10,20&formats=webp,jpeg&q=50"


def test_variants_come_as_parts(client, picture):
    response = client.post(QUERY, content=picture())
    kind = response.headers["content-type"]
    assert kind.startswith("multipart/mixed")
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    parts = email.message_from_bytes(
        head + response.content, policy=email.policy.HTTP
    ).get_payload()
    names = [part.get_filename() for part in parts]
    assert names == [
        *("image-10x8.webp", "image-20x15.webp"),
        *("image-10x8.jpg", "image-20x15.jpg"),
    ]
    for part in parts:
        data = part.get_payload(decode=True)
        assert len(data) == int(part["Content-Length"])
        assert Image.open(io.BytesIO(data)).width in (10, 20)


def test_variants_come_as_an_archive(client, picture):
    files = {"file": ("my photo.png", picture("PNG"))}
    response = client.post(
        "/variants?formats=auto",
        data={"widths": "10,500,600"},
        files=files,
        headers={"Accept": "application/zip"},
    )
    assert response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        # Neither 500 nor 600 enlarges: they are the same file.
        assert archive.namelist() == ["my-photo-10x8.png", "my-photo-64x48.png"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *[("", 400), ("widths=", 400), ("widths=10,x", 400), ("widths=0", 400)],
        *[("widths=10&formats=bmp", 400), ("widths=10&formats=,", 400)],
        *[("widths=10&w=3", 400), (f"widths={'9,' * 24}9", 400)],
        *[("widths=10&widths=11", 400), ("widths=10&engine=inline", 400)],
    ],
)
def test_bad_variants_are_refused(client, picture, query, status):
    problem_of(client.post(f"/variants?{query}", content=picture()), status)


def test_a_variant_that_cannot_be_written_here_is_refused():
    with pytest.raises(Problem, match="there are: jpeg"):
        variants.read_variants([("widths", "9"), ("formats", "heic")], ["jpeg"])


async def test_one_bad_variant_spoils_them_all(serving, picture):
    url = "/variants?widths=10,20&crop=0,0,99,99"
    async with serving() as client:
        response = await client.post(url, content=picture())
    assert problem_of(response, 422)["param"] == "crop"


async def test_variants_wait_for_room_but_the_first_does_not(
    serving, picture, monkeypatch, gate
):
    here, there = gate(), gate()
    async with serving(workers=2, queue=0) as client:
        response = await client.post(
            "/variants?widths=10,20,30,40,50&formats=jpeg,png,webp", content=picture()
        )
        assert response.status_code == 200
        monkeypatch.setattr(jobs, "encode", pass_gate)
        names = f"{here} {there}".encode()
        asked = asyncio.ensure_future(client.post(QUERY, content=names))
        await here.reached()
        await until(client, pending=2)  # one runs; the other is sent, at least
        problem_of(await client.post(QUERY, content=b"x"), 429)
        asked.cancel()
        await until(client, busy=0, queued=0, cancelled=2)


# --- formats, caches and names --------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/avif,image/webp,*/*", "image/avif"),
        ("image/webp,*/*", "image/webp"),
        ("*/*", "image/jpeg"),
        ("image/webp;q=0, */*", "image/jpeg"),
    ],
)
def test_the_client_s_best_format_is_chosen(client, picture, accept, kind):
    response = client.post("/encode", content=picture(), headers={"Accept": accept})
    assert response.headers["content-type"] == kind
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("query", "accept"), [("f=webp", "image/png"), ("", "text/html")]
)
def test_what_the_client_does_not_take_is_not_made(client, picture, query, accept):
    headers = {"Accept": accept}
    response = client.post(f"/encode?{query}", content=picture(), headers=headers)
    problem_of(response, 406)
    assert response.headers["vary"] == "Accept"


def submitted(client):
    return client.get("/stats").json()["submitted"]


@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
def test_an_image_that_the_client_has_is_not_made_again(client, picture, form):
    body = {"files": {"file": picture()}} if form else {"content": picture()}
    first = client.post("/encode?w=32", **body)
    before = submitted(client)
    again = client.post(
        "/encode?w=32", headers={"If-None-Match": first.headers["etag"]}, **body
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == "private, no-cache"
    assert again.headers["vary"] == "Accept"
    assert submitted(client) == before
    other = client.post(
        "/encode?w=33", headers={"If-None-Match": first.headers["etag"]}, **body
    )
    assert other.status_code == 200


def test_a_sample_may_be_kept_for_ever(client):
    first = client.get("/sample/graphic?w=40")
    assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
    before = submitted(client)
    headers = {"If-None-Match": first.headers["etag"]}
    again = client.get("/sample/graphic?w=40", headers=headers)
    assert (again.status_code, submitted(client)) == (304, before)


@pytest.mark.parametrize(
    ("given", "stem"),
    [
        ("photo.png", "photo"),
        ("../../etc/passwd", "passwd"),
        ('a"b\r\nX: y.png', "a-b-X-y"),
        ("ä.png", "image"),
        ("x" * 99, "x" * 60),
    ],
)
def test_the_answer_has_a_harmless_name(given, stem):
    assert endpoints._stem(given) == stem


def test_the_quality_and_the_likeness_are_told(client, picture):
    response = client.post("/encode?q=60&measure=1", content=picture())
    headers = response.headers
    assert headers["x-result-quality"] == "60"
    assert float(headers["x-result-psnr"]) > 20
    assert 0.5 < float(headers["x-result-ssim"]) <= 1
    assert (
        "x-result-quality"
        not in client.post("/encode?f=png", content=picture()).headers
    )


async def test_sizes_and_worker_are_told_on_demand(serving, picture):
    async with serving(debug_headers=True) as client:
        headers = (await client.post("/encode?w=32", content=picture())).headers
        process = (await client.get("/stats")).json()["processes"][0]
    names = ("origin-width", "origin-height", "result-width", "result-height")
    assert [headers[f"x-{name}"] for name in names] == ["64", "48", "32", "24"]
    assert int(headers["x-origin-content-length"]) == len(picture())
    assert headers["x-worker"] == str(process["worker"])
    assert headers["x-worker-pid"] == str(process["pid"])


async def test_only_signed_requests_are_taken_where_there_is_a_key(serving, picture):
    data = picture()
    digest = hashlib.blake2b(data, digest_size=32).hexdigest()

    def url(**query):
        mark = sign("secret", "POST", "/encode", query.items())
        return "/encode?" + urlencode({**query, "sig": mark})

    async with serving(keys=("old", "secret")) as client:
        assert (await client.post(url(w="32"), content=data)).status_code == 200
        bound = await client.post(url(w="32", digest=digest), content=data)
        assert bound.status_code == 200
        stolen = await client.post(url(w="32", digest=digest), content=picture("PNG"))
        assert problem_of(stolen, 403)["param"] == "digest"
        problem_of(await client.post("/encode?w=32", content=data), 401)
        problem_of(await client.post(url(w="32") + "&q=1", content=data), 403)
        problem_of(await client.post(url(w="3", expires="9"), content=data), 410)
        problem_of(await client.get("/sample/photo"), 401)
        assert (await client.get("/healthz")).status_code == 200


async def test_what_a_signature_does_not_cover_is_refused(serving, picture):
    query = {"w": "32"}
    query["sig"] = sign("secret", "POST", "/encode", query.items())
    url = "/encode?" + urlencode(query)
    async with serving(keys=("secret",)) as client:
        unsigned = {"X-Offloop-Max-Bytes": "900"}
        asked = await client.post(url, content=picture(), headers=unsigned)
        assert problem_of(asked, 403)["param"] == "max_bytes"
        form = {"files": {"file": picture()}, "data": {"q": "1"}}
        assert problem_of(await client.post(url, **form), 403)["param"] == "q"


def test_parameters_may_also_stand_in_headers(client, picture):
    small = {"X-Offloop-W": "20", "X-Offloop-Format": "png"}
    answer = opened(client.post("/encode", content=picture(), headers=small))
    assert (answer.size, answer.format) == ((20, 15), "PNG")
    twice = client.post("/encode?w=3", content=picture(), headers=small)
    assert problem_of(twice, 400)["param"] == "w"
    wrong = client.post("/encode", content=picture(), headers={"X-Offloop-Size": "3"})
    assert problem_of(wrong, 400)["param"] == "size"
    # A cache between keeps a sample for what its URL says.
    assert opened(client.get("/sample/graphic?w=30", headers=small)).width == 30


async def test_pages_of_another_origin_are_let_in_where_it_is_allowed(serving, picture):
    origin = {"Origin": "https://example.org"}
    async with serving(allow_origin="https://example.org") as client:
        response = await client.post("/encode", content=picture(), headers=origin)
        assert response.headers["access-control-allow-origin"] == origin["Origin"]
        assert "Server-Timing" in response.headers["access-control-expose-headers"]
        assert "Accept" in response.headers["vary"]


def test_pages_of_another_origin_are_not_let_in_else(client, picture):
    origin = {"Origin": "https://example.org"}
    response = client.post("/encode", content=picture(), headers=origin)
    assert "access-control-allow-origin" not in response.headers


# --- where it runs, and who is killed -------------------------------------------------


@pytest.mark.parametrize("engine", ["pool", "thread", "inline"])
async def test_the_difference_can_be_shown(serving, picture, engine):
    async with serving(controls=True) as client:
        response = await client.post(f"/encode?engine={engine}", content=picture())
        assert response.status_code == 200
        completed = (await client.get("/stats")).json()["completed"]
        assert completed == (2 if engine == "pool" else 1)
        broken = await client.post(f"/encode?engine={engine}", content=b"text")
        problem_of(broken, 415)


def test_the_difference_is_not_shown_everywhere(client, picture):
    response = client.post("/encode?engine=inline", content=picture())
    assert problem_of(response, 403)["param"] == "engine"


async def test_what_is_made_aside_is_pending(serving, picture, monkeypatch, gate):
    monkeypatch.setattr(jobs, "encode", pass_gate)
    here, there = gate(), gate()
    async with serving(workers=1, queue=0, controls=True) as client:
        names = f"{here} {there}".encode()
        asked = asyncio.ensure_future(
            client.post("/encode?engine=thread", content=names)
        )
        await here.reached()
        problem_of(await client.post("/encode", content=b"x"), 429)
        assert (await client.get("/stats")).json()["aside"] == 1
        there.open()
        await asked
        assert (await client.get("/stats")).json()["aside"] == 0


def send_to(client, here, there):
    """Send an image that says at one gate that it is made, and waits at another."""
    names = f"{here} {there}".encode()
    return asyncio.ensure_future(client.post("/encode", content=names))


def pass_gate(data, recipe, max_pixels):
    here, there = data.decode().split()
    reach(here)
    wait_for(there)
    raise Problem(422, "That was it.")


async def test_a_worker_can_be_killed_and_is_replaced(
    serving, picture, monkeypatch, gate
):
    here, there = gate(), gate()
    async with serving(controls=True) as client:
        first = (await client.get("/stats")).json()["processes"][0]
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "encode", pass_gate)
            asked = send_to(client, here, there)
            await here.reached()  # a job that has not begun would go to another worker
            shown = (await client.get("/stats")).json()["processes"][0]
            assert shown["job"] == "0 kB"
            assert shown["seconds"] >= 0
            killed = await client.post(f"/controls/kill?worker={first['worker']}")
            assert killed.json() == {"killed": first["pid"]}
            problem_of(await asked, 502)
        assert (await client.post("/encode", content=picture())).status_code == 200
        after = (await client.get("/stats")).json()["processes"]
        assert [row["worker"] for row in after] != [first["worker"]]
        assert after
        gone = await client.post(f"/controls/kill?worker={first['worker']}")
        problem_of(gone, 404)
        problem_of(await client.post("/controls/kill?worker=x"), 400)


async def test_any_worker_can_be_killed(serving, picture):
    async with serving(controls=True) as client:
        first = (await client.get("/stats")).json()["processes"][0]
        killed = await client.post("/controls/kill")
        assert killed.json() == {"killed": first["pid"]}
        await until(client, workers_lost=1)
        async with asyncio.timeout(10):  # the new one makes itself known
            while True:
                known = (await client.get("/stats")).json()["processes"]
                if known and known[0]["worker"] != first["worker"]:
                    break
        assert (await client.post("/encode", content=picture())).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Host": "example.org"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_the_controls_are_for_this_machine(serving, headers):
    async with serving(controls=True) as client:
        problem_of(await client.post("/controls/kill", headers=headers), 403)


def test_there_are_no_controls_unless_it_is_told(client):
    problem_of(client.post("/controls/kill"), 403)


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


async def test_a_client_that_leaves_cancels_its_image(serving, monkeypatch, gate):
    here, never, unseen = gate(), gate(), gate()
    monkeypatch.setattr(jobs, "encode", pass_gate)
    async with serving(workers=1, queue=1) as client:
        running = send_to(client, here, never)
        await here.reached()
        waits = send_to(client, unseen, never)
        await until(client, pending=2)
        waits.cancel()  # its job never runs, and the one before it is not disturbed
        await until(client, pending=1, cancelled=1)
        running.cancel()
        await until(client, pending=0, cancelled=2)
    assert not unseen.was_reached()


async def test_a_full_server_refuses_at_once_and_stays_healthy(
    serving, monkeypatch, gate
):
    here, never = gate(), gate()
    monkeypatch.setattr(jobs, "encode", pass_gate)
    async with serving(workers=1, queue=0) as client:
        first = send_to(client, here, never)
        await here.reached()
        refused = await client.post("/encode", content=b"x")
        assert int(refused.headers["retry-after"]) >= 1
        problem_of(refused, 429)
        assert (await client.get("/stats")).json()["refused"] == 1
        assert (await client.get("/healthz")).text == "ok\n"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "the queue is full")
        first.cancel()
        await until(client, pending=0)


async def test_an_image_that_kills_its_worker_is_a_bad_gateway(
    serving, picture, monkeypatch
):
    async with serving(workers=1) as client:
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "encode", die)
            lost = await client.post("/encode", content=b"x")
            told = problem_of(lost, 502)
            assert told["reason"] == "crashed"
            assert told["job"] > 1
        assert (await client.post("/encode", content=picture())).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["process", "sandbox"])
async def test_images_of_strangers_get_processes_of_their_own(
    serving, picture, monkeypatch, isolation
):
    async with serving(isolation=isolation, debug_headers=True) as client:
        pids = set()
        for _ in range(3):
            response = await client.post("/encode?f=webp", content=picture())
            assert response.status_code == 200
            pids.add(response.headers["x-worker-pid"])
        assert len(pids) == 3
        problem_of(await client.post("/encode", content=b"text"), 415)
        assert (await client.get("/stats")).json()["workers_lost"] == 0
        monkeypatch.setattr(jobs, "encode", call_home)
        home = f"{client.base_url.port}".encode()
        status = {"process": 200, "sandbox": 422}[isolation]
        assert (await client.post("/encode", content=home)).status_code == status


def call_home(data, recipe, max_pixels):
    try:
        socket.create_connection(("127.0.0.1", int(data))).close()
    except OSError:
        raise Problem(422, "There is no way out.") from None
    return jobs.draw("graphic", recipe, max_pixels)


async def test_libvips_can_do_the_work(serving, picture):
    pytest.importorskip("pyvips")
    async with serving(codec="vips") as client:
        response = await client.post("/encode?f=webp&w=20", content=picture())
        assert opened(response).size == (20, 15)
        assert "libvips" in (await client.get("/stats")).json()["encoders"]


async def test_an_image_that_takes_too_long_is_given_up(serving, monkeypatch):
    monkeypatch.setattr(jobs, "encode", stall)
    async with serving(timeout=0.3) as client:
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
    service = SimpleNamespace(pool=pool, closing=asyncio.Event())
    assert watching._why_not_ready(service) == "no worker is ready"


async def test_an_image_that_takes_too_much_memory_is_given_up(
    serving, picture, monkeypatch
):
    async with serving(memory_limit=300_000_000) as client:
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "encode", eat)
            problem_of(await client.post("/encode", content=b"x"), 507)
        assert (await client.post("/encode", content=picture())).status_code == 200


def eat(data, recipe, max_pixels):
    return len([bytes(10_000_000).replace(b"\0", b"1") for _ in range(100)])


async def test_uploads_together_have_a_limit(serving):
    async with serving(max_upload_bytes=1_500_000, max_body=2_000_000) as client:

        async def never_ending():
            yield MEGABYTE
            await asyncio.Event().wait()

        first = asyncio.ensure_future(client.post("/encode", content=never_ending()))
        await until(client, upload_bytes=len(MEGABYTE))
        refused = await client.post("/encode", content=MEGABYTE)
        assert int(refused.headers["retry-after"]) >= 1
        problem_of(refused, 429)
        first.cancel()
        await until(client, upload_bytes=0)


async def test_an_upload_that_takes_too_long_is_given_up(serving):
    async with serving(upload_timeout=0.1) as client:
        url = client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        async with asyncio.timeout(30):
            answer = await reader.read()  # to the end: the connection is closed
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"longer than 0.1 s" in answer


async def test_what_no_worker_came_to_in_time_may_be_tried_again(
    serving, monkeypatch, gate
):
    here, never = gate(), gate()
    monkeypatch.setattr(jobs, "encode", pass_gate)
    async with serving(workers=1, queue=1) as client:
        first = send_to(client, here, never)
        await here.reached()
        late = await client.post("/encode?timeout=0.1", content=b"x")
        assert int(late.headers["retry-after"]) >= 1
        problem_of(late, 503)
        first.cancel()
        await until(client, pending=0)


async def test_high_priority_goes_first(serving, monkeypatch, gate, tmp_path):
    monkeypatch.setattr(jobs, "encode", note_turn)
    started, go, turns = gate(), gate(), tmp_path / "turns"
    async with serving(workers=1, queue=9) as client:

        def send(name, query=""):
            words = f"{started} {go} {turns} {name}".encode()
            return asyncio.ensure_future(client.post(f"/encode{query}", content=words))

        asked = [send("first")]
        await started.reached()
        for name in ("low", "normal", "high"):
            asked.append(send(name, f"?priority={name}"))
            await until(client, queued=len(asked) - 1)
        go.open()
        for one in asked:
            problem_of(await one, 422)
    assert turns.read_text().split() == ["first", "high", "normal", "low"]


def note_turn(data, recipe, max_pixels):
    started, go, turns, name = data.decode().split()
    reach(started)
    wait_for(go)
    with open(turns, "a") as file:
        file.write(f"{name}\n")
    raise Problem(422, "That was it.")


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


def test_the_figures_for_prometheus_count_what_happens(client, picture):
    def value(text, name):
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(name)
        )

    before = client.get("/metrics").text
    client.post("/encode?f=webp", content=picture())
    client.post("/encode", content=b"text")
    after = client.get("/metrics")
    assert after.headers["content-type"].startswith("text/plain; version=0.0.4")
    grown = {
        name: value(after.text, name) - value(before, name)
        for name in (
            'offloop_demo_requests_total{code="200",route="/encode"}',
            'offloop_demo_errors_total{type="not-an-image-that-is-accepted-here"}',
            'offloop_demo_images_total{format_in="jpeg",format_out="webp"}',
            'offloop_demo_span_duration_seconds_count{span="encode"}',
            'offloop_jobs_total{ending="completed"',
            'offloop_jobs_total{ending="failed"',
        )
    }
    assert set(grown.values()) == {1}
    assert value(after.text, "offloop_demo_bytes_in_total") > len(picture()) - 1
    place = 'offloop_worker_rss_bytes{pool="demo",worker="0"}'
    assert value(after.text, place) > 10_000_000
    assert 'offloop_worker_restarts_total{pool="demo",reason="crashed"}' in after.text
    assert 'offloop_demo_rejected_total{reason="busy"}' in after.text
    assert value(after.text, 'offloop_workers{pool="demo",state="idle"}') == 1
    for family in parser.text_string_to_metric_families(after.text):
        assert family.documentation, family.name


def test_figures_are_sent_again_and_again(client):
    with client.stream("GET", "/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in response.iter_lines() if line)
        first, second = (json.loads(next(lines)[6:]) for _ in range(2))
    assert second["uptime"] >= first["uptime"]
    assert first["processes"][0]["pid"] > 1
    assert all(at <= 0 <= lag for at, lag in second["lag_ms"])


async def test_only_so_many_may_listen(serving, monkeypatch):
    monkeypatch.setattr(watching, "_MAX_LISTENERS", 1)
    async with serving() as client:
        async with client.stream("GET", "/events") as first:
            await anext(first.aiter_lines())
            problem_of(await client.get("/events"), 503)
        async with asyncio.timeout(10):
            while True:
                async with client.stream("GET", "/events") as again:
                    if again.status_code == 200:
                        break


async def test_a_loop_that_was_held_up_is_seen(serving):
    async with serving() as client:
        await client.get("/healthz")
        Event().wait(0.2)  # the loop of this test is the server's
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while True:
                figures = (await client.get("/stats")).json()
                if max((lag for _, lag in figures["lag_ms"]), default=0) > 100:
                    break


def test_the_server_describes_itself(client):
    document = client.get("/openapi.json").json()
    assert document == json.loads(
        json.dumps(openapi.document(writers.writable(), controls=False, signed=False))
    )
    for path in {*document["paths"]} - {"/events"}:  # which has no end
        assert client.get(path.replace("{name}", "graphic")).status_code != 404


def test_the_page_is_one_file_that_also_works_without_scripts(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page.text)
    form = re.search(r"<form.*?</form>", page.text, re.DOTALL)[0]
    assert 'action="/encode" method="post" enctype="multipart/form-data"' in form
    names = set(re.findall(r'name="(\w+)"', form))
    assert names <= {"file", *PARAMETERS}
