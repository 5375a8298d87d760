"""Request ids and `nosniff`, on every answer."""

from __future__ import annotations

import re

import pytest
from starlette.responses import PlainTextResponse

from offloop.demo.marks import Marks


async def headers_of_answer(*given):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        raise AssertionError("nobody asked for the body")

    scope = {"type": "http", "headers": list(given)}
    await Marks(PlainTextResponse("hello"))(scope, receive, send)
    return dict(sent[0]["headers"])


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

    await Marks(app)({"type": "lifespan"}, 1, 2)
    assert seen == [("lifespan", 1, 2)]
