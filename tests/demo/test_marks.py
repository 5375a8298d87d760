"""Request ids and `nosniff`, on every answer."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from offloop.demo.marks import Marks
from offloop.demo.metrics import Metrics


async def headers_of_answer(*given, path="/encode", app=None):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        raise AssertionError("nobody asked for the body")

    scope = {"type": "http", "headers": list(given), "path": path}
    marks = Marks(app or PlainTextResponse("hello"), {"encode", "stats"})
    await marks(scope, receive, send)
    return dict(sent[0]["headers"])


@pytest.mark.parametrize(
    ("path", "vary"), [("/encode", b"Accept"), ("/stats", None), ("/x", None)]
)
async def test_what_is_negotiated_says_so(path, vary):
    assert (await headers_of_answer(path=path)).get(b"vary") == vary


async def test_answers_are_counted_by_routes_that_exist():
    metrics = Metrics()

    async def app(scope, receive, send):
        scope["state"] = {"service": SimpleNamespace(metrics=metrics)}
        await PlainTextResponse("hello", 201)(scope, receive, send)

    for path in ("/encode", "/stats", "/stats/x", "/", "/nothing", ""):
        await headers_of_answer(path=path, app=app)

    def count(route):
        labels = {"route": route, "code": "201"}
        return metrics.registry.get_sample_value("offloop_demo_requests_total", labels)

    assert [count(route) for route in ("/encode", "/stats", "/other")] == [1, 2, 3]


async def test_a_request_that_is_not_answered_counts_as_one_whose_client_left():
    metrics = Metrics()

    async def app(scope, receive, send):
        scope["state"] = {"service": SimpleNamespace(metrics=metrics)}
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        await headers_of_answer(app=app)
    assert b'offloop_demo_errors_total{type="client-left"} 1.0' in metrics.text()


async def test_every_answer_forbids_guessing_its_type():
    assert (await headers_of_answer())[b"x-content-type-options"] == b"nosniff"


async def test_a_request_id_comes_back():
    given = await headers_of_answer((b"x-request-id", b"a-b.C:1"))
    assert given[b"x-request-id"] == b"a-b.C:1"


@pytest.mark.parametrize("bad", [b"", b"a b", b"x" * 129, b"<script>", b"a\nb"])
async def test_an_id_that_is_none_is_replaced(bad):
    given = await headers_of_answer((b"x-request-id", bad))
    assert re.fullmatch(rb"[0-9a-f]{32}", given[b"x-request-id"])


async def test_what_is_not_http_passes_through():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["type"], receive, send))

    await Marks(app, ())({"type": "lifespan"}, 1, 2)
    assert seen == [("lifespan", 1, 2)]
