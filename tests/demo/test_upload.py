"""Uploads: raw and as a form, and never more than allowed."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from offloop.demo import upload
from offloop.demo.budget import Budget
from offloop.demo.problems import Problem

BOUNDARY = "frontier"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


class Sender:
    """A client, as the server sees it: parts of a body, then silence or its leaving."""

    def __init__(self, *parts, leaves=False):
        self.left = [
            {
                "type": "http.request",
                "body": part,
                "more_body": n < len(parts) or leaves,
            }
            for n, part in enumerate(parts, start=1)
        ]
        if leaves:
            self.left.append({"type": "http.disconnect"})

    async def __call__(self):
        if not self.left:
            await asyncio.Event().wait()  # nothing more ever comes
        return self.left.pop(0)


def request(*parts, type="image/jpeg", query="", leaves=False, **headers):
    raw = {"content-type": type, **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "method": "POST",
        "headers": Headers(raw).raw,
        "query_string": query.encode(),
        "app": None,
    }
    sender = Sender(*parts, leaves=leaves)
    return Request(scope, sender), sender


def form(*fields, file=b"abc", name="file"):
    lines = []
    for field, value in fields:
        lines += [f"--{BOUNDARY}", f'Content-Disposition: form-data; name="{field}"']
        lines += ["", value]
    lines += [f"--{BOUNDARY}"]
    lines += [f'Content-Disposition: form-data; name="{name}"; filename="x.jpg"']
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + file + f"\r\n--{BOUNDARY}--\r\n".encode()


async def take(asked, limit, hold=None, timeout=60.0):
    with Budget(10_000, lambda: 1).hold() as plenty:
        return await upload.read_upload(asked, limit, hold or plenty, timeout)


@pytest.mark.parametrize(
    "type",
    [
        "image/jpeg",
        "image/anything; x=y",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "",
    ],
)
async def test_a_raw_body_is_the_image(type):
    asked, _ = request(b"ab", b"c", type=type, query="w=3&w=4")
    taken = await take(asked, 3)
    assert (bytes(taken.data), taken.pairs) == (b"abc", [])


async def test_a_form_is_a_file_and_parameters():
    asked, _ = request(form(("w", "3"), ("q", "5")), type=FORM, query="f=png")
    taken = await take(asked, 3)
    assert (bytes(taken.data), taken.name) == (b"abc", "x.jpg")
    assert taken.pairs == [("w", "3"), ("q", "5")]


@pytest.mark.parametrize("type", ["text/plain", "application/json"])
async def test_a_body_that_says_it_is_no_image_is_refused(type):
    asked, _ = request(b"{}", type=type)
    with pytest.raises(Problem, match=type) as refused:
        await take(asked, 10)
    assert refused.value.status == 415


@pytest.mark.parametrize(
    ("parts", "type"), [((b"",), "image/png"), ((form(file=b""),), FORM)]
)
async def test_an_empty_image_is_refused(parts, type):
    asked, _ = request(*parts, type=type)
    with pytest.raises(Problem, match="empty") as refused:
        await take(asked, 10)
    assert refused.value.status == 400


async def test_a_form_without_the_file_is_refused():
    asked, _ = request(form(name="image"), type=FORM)
    with pytest.raises(Problem, match="field 'file'") as refused:
        await take(asked, 10)
    assert (refused.value.status, refused.value.param) == (400, "file")


async def test_a_form_that_is_none_is_refused():
    asked, _ = request(b"what is this", type=FORM)
    with pytest.raises(HTTPException) as refused:
        await take(asked, 100)
    assert refused.value.status_code == 400


async def refused_as_too_large(asked, limit):
    with pytest.raises(Problem, match="larger than") as refused:
        await take(asked, limit)
    assert refused.value.status == 413
    assert refused.value.headers == {"Connection": "close"}


async def test_a_body_that_declares_too_much_is_taken_in_but_not_kept():
    asked, sender = request(b"abcd", b"efgh", content_length="8")
    await refused_as_too_large(asked, 3)
    assert sender.left == []


async def test_a_client_that_asks_first_is_told_at_once():
    asked, sender = request(b"abcd", content_length="4", expect="100-continue")
    await refused_as_too_large(asked, 3)
    assert len(sender.left) == 1


async def test_a_body_that_lies_about_its_length_is_refused_at_the_limit():
    asked, sender = request(b"ab", b"cd", b"ef", content_length="2")
    await refused_as_too_large(asked, 3)
    assert sender.left == []


async def test_a_body_that_ends_just_beyond_the_limit_is_refused_without_waiting():
    asked, _ = request(b"ab", b"cd")
    await refused_as_too_large(asked, 3)


async def test_a_client_that_never_stops_sending_is_refused_after_a_while(monkeypatch):
    monkeypatch.setattr(upload, "_LINGER", 0.01)
    asked, sender = request(b"abcd")
    sender.left[0]["more_body"] = True
    await refused_as_too_large(asked, 3)


async def test_the_file_of_a_form_has_the_same_limit():
    asked, _ = request(form(file=b"abcd"), type=FORM)
    await refused_as_too_large(asked, 3)


async def test_a_form_is_not_read_to_the_end_when_it_goes_too_far():
    parts = [form(file=bytes(100)), bytes(upload._FORM_OVERHEAD), b"more"]
    asked, sender = request(*parts, type=FORM)
    await refused_as_too_large(asked, 3)
    assert sender.left == []


@pytest.mark.parametrize("limit", [100, 3], ids=["reading", "refusing"])
async def test_a_client_that_leaves_is_noticed(limit):
    asked, _ = request(b"abcd", leaves=True)
    with pytest.raises(ClientDisconnect):
        await take(asked, limit)


@pytest.mark.parametrize("type", ["image/png", FORM])
async def test_equal_images_have_equal_digests_however_they_come(type):
    body = form(file=b"abcdef") if type == FORM else b"abcdef"
    asked, _ = request(body[:3], body[3:], type=type)
    taken = await take(asked, 1000)
    assert taken.digest == hashlib.blake2b(b"abcdef", digest_size=32).digest()


async def test_what_has_arrived_is_counted_as_held():
    budget = Budget(5, lambda: 7)
    with budget.hold() as hold:
        asked, _ = request(b"ab", b"cd")
        await take(asked, 10, hold)
        assert budget.used == 4
        asked, _ = request(b"ab", b"cd")
        with pytest.raises(Problem) as refused:
            await take(asked, 10, hold)
        assert (refused.value.status, budget.used) == (429, 4)


@pytest.mark.parametrize("type", ["image/png", FORM])
async def test_a_body_that_does_not_end_is_given_up(type):
    asked, sender = request(b"", type=type)
    sender.left[0]["more_body"] = True
    with pytest.raises(Problem, match=r"longer than 0\.01 s") as refused:
        await take(asked, 10, timeout=0.01)
    assert refused.value.status == 408
    assert refused.value.headers == {"Connection": "close"}
