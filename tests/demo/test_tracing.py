"""Whose request it is: in this process, and in the worker that has its job."""

from __future__ import annotations

import contextvars
import sys

import pytest

from offloop.demo import jobs, tracing
from offloop.demo.problems import Problem

SPAN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def begun(**headers):
    """Begin a request; returns its id and the span, as its context has them."""

    def begin():
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        assert tracing.begin(given) == tracing.request_id.get()
        return tracing.request_id.get(), tracing.traceparent.get()

    return contextvars.Context().run(begin)


def test_what_a_client_says_is_noted():
    assert begun(x_request_id="r-1", traceparent=SPAN) == ("r-1", SPAN)


@pytest.mark.parametrize(
    "span",
    [
        "",
        "x",
        SPAN.upper(),
        SPAN + "-x",
        "ff" + SPAN[2:],
        SPAN.replace("b7ad6b7169203331", "0" * 16),
        SPAN.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
    ],
)
def test_what_is_no_span_counts_as_none(span):
    name, noted = begun(traceparent=span)
    assert (len(name), noted) == (32, "")


def tell(data, recipe, max_pixels):
    """Tell whose request this worker works on."""
    from offloop.demo import tracing

    raise Problem(422, f"{tracing.request_id.get()} {tracing.traceparent.get()}.")


async def test_a_worker_knows_whose_request_its_job_is(serving, monkeypatch):
    monkeypatch.setattr(jobs, "encode", tell)
    headers = {"X-Request-Id": "r-7", "traceparent": SPAN}
    async with serving() as client:
        told = await client.post("/encode", content=b"x", headers=headers)
        assert told.json()["detail"] == f"r-7 {SPAN}."
        other = await client.post("/encode", content=b"x")
        assert other.json()["detail"] == f"{other.headers['x-request-id']} ."


def current_span(data, recipe, max_pixels):
    """Tell of which span this worker's work is a part."""
    from opentelemetry import trace

    span = trace.get_current_span().get_span_context()
    raise Problem(422, f"{span.trace_id:032x} {span.span_id:016x}.")


async def test_the_span_of_the_caller_is_current_in_the_worker(serving, monkeypatch):
    pytest.importorskip("opentelemetry.trace")  # whoever uses it has imported it
    assert "opentelemetry.trace" in sys.modules
    monkeypatch.setattr(jobs, "encode", current_span)
    async with serving() as client:
        headers = {"traceparent": SPAN}
        told = await client.post("/encode", content=b"x", headers=headers)
    assert told.json()["detail"] == f"{SPAN[3:35]} {SPAN[36:52]}."


def die(data, recipe, max_pixels):
    jobs.die()


async def test_the_log_says_whose_image_failed(serving, monkeypatch, caplog):
    monkeypatch.setattr(jobs, "encode", die)
    headers = {"X-Request-Id": "r-9", "traceparent": SPAN}
    async with serving() as client:
        lost = await client.post("/encode", content=b"x", headers=headers)
    assert lost.status_code == 502
    assert f"/encode, request r-9, trace {SPAN}: " in caplog.text
