"""The server's own description: which routes there are, and what each is about.

It is made from the same tables that the server obeys. What the routes have in common,
parameters, bodies and answers, is in `openapi_parts`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import offloop
from offloop.demo import openapi_parts as parts
from offloop.demo import pipeline, variants
from offloop.demo.jobs import SAMPLES
from offloop.demo.parameters import PARAMETERS
from offloop.demo.recipe import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["document", "text"]

# What a route says that only shows something.
_WATCHING = (
    ("/", "a page for people", "text/html"),
    ("/healthz", "is the loop alive", "text/plain"),
    ("/readyz", "would an image be taken", "application/json"),
    ("/stats", "figures of the pool and the server", "application/json"),
    ("/events", "those figures, again and again", "text/event-stream"),
    ("/metrics", "figures for Prometheus", "text/plain"),
    ("/openapi.json", "this document", "application/json"),
)

# Those that may say no: not ready, or too many who listen.
_MAY_REFUSE = ("/readyz", "/events")


@lru_cache(maxsize=4)
def text(writes: tuple[str, ...], controls: bool, signed: bool) -> bytes:
    """Return the document as JSON; it is made once, and then remembered."""
    return json.dumps(document(writes, controls=controls, signed=signed)).encode()


def document(
    writes: Iterable[str], *, controls: bool = False, signed: bool = False
) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        writes: formats that the server can write.
        controls: it has what belongs on one's own machine only.
        signed: it takes signed requests only.
    """
    images = [FORMATS[name] for name in writes]
    usual = [name for name in PARAMETERS if controls or name != "engine"]
    output = [*pipeline.OUTPUT, "priority", "timeout"]
    several = ["widths", "formats", *variants.NAMES]
    packed = ["multipart/mixed", "application/zip"]
    taking = {
        "/encode": ("make an image of an uploaded one", images, usual),
        "/thumbnail": ("make a small image of an uploaded one", images, usual),
        "/pipeline": ("do a list of operations", images, ["ops", *output]),
        "/variants": ("make several sizes and formats", packed, several),
        "/info": ("tell what an image is", ["application/json"], []),
    }
    paths: dict[str, Any] = {
        path: {
            method: _upload(path, method, *what, signed=signed)
            for method in ("post", "put")
        }
        for path, what in taking.items()
    }
    paths["/sample/{name}"] = {"get": _sample(images, usual, signed=signed)}
    paths |= {
        path: {"get": _plain(path, summary, kind)} for path, summary, kind in _WATCHING
    }
    if controls:
        paths["/controls/kill"] = {"post": _kill()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "offloop demo", "version": offloop.__version__},
        "paths": paths,
        "components": parts.components(SAMPLES),
    }


def _upload(
    path: str,
    method: str,
    summary: str,
    types: Iterable[str],
    names: list[str],
    *,
    signed: bool,
) -> dict[str, Any]:
    cached = path not in ("/variants", "/info")
    known = ["If-None-Match"] if cached else []
    negotiates = path != "/info"
    statuses = parts.statuses(upload=True, negotiates=cached, signed=signed)
    # A signature covers the query alone.
    in_headers = [] if signed else [parts.header_name(name) for name in names]
    given = [*_queries(names), *_signature(signed), *in_headers, *known, *parts.TRACING]
    answers = parts.answers(
        types, statuses, path.removeprefix("/"), cached=cached, negotiates=negotiates
    )
    return {
        "operationId": f"{method}-{path.removeprefix('/')}",
        "summary": summary,
        "parameters": [parts.reference("parameters", name) for name in given],
        "requestBody": parts.body([] if signed else names),
        "responses": answers,
    }


def _sample(images: list[str], names: list[str], *, signed: bool) -> dict[str, Any]:
    statuses = ["404", *parts.statuses(upload=False, negotiates=True, signed=signed)]
    given = [*_queries(names), *_signature(signed), "If-None-Match", *parts.TRACING]
    return {
        "operationId": "sample",
        "summary": "draw a sample picture",
        "parameters": [
            parts.reference("parameters", name) for name in ("name", *given)
        ],
        "responses": parts.answers(
            images, sorted(statuses), "sample", cached=True, negotiates=True
        ),
    }


def _queries(names: list[str]) -> list[str]:
    return [*names, *(short for short, full in parts.SHORT.items() if full in names)]


def _signature(signed: bool) -> tuple[str, ...]:
    return ("sig", "expires", "digest") if signed else ()


def _plain(path: str, summary: str, kind: str) -> dict[str, Any]:
    statuses = ["405", "500"]
    answers = parts.answers([kind], statuses, path, cached=False, negotiates=False)
    if path in _MAY_REFUSE:
        reason = "application/json" if path == "/readyz" else parts.PROBLEM
        answers["503"] = {"description": "no", "content": {reason: {}}}
    return {
        "operationId": path.strip("/").removesuffix(".json") or "page",
        "summary": summary,
        "responses": answers,
    }


def _kill() -> dict[str, Any]:
    statuses = ["400", "403", "404", "405", "500", "503", "504"]
    return {
        "operationId": "kill",
        "summary": "kill a worker; only for those on this machine",
        "parameters": [parts.reference("parameters", "worker")],
        "responses": parts.answers(
            ["application/json"], statuses, "kill", cached=False, negotiates=False
        ),
    }
