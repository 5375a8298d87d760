"""The server's own description, made from the same table that it obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import offloop
from offloop.demo import pipeline, variants
from offloop.demo.parameters import PARAMETERS
from offloop.demo.recipe import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["document"]

_PROBLEM = {
    "content": {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
}

# What each status means that a route may answer with.
_PROBLEMS = {
    "400": "a parameter or the body is wrong",
    "401": "the request is not signed",
    "403": "the signature is wrong, or this is not offered",
    "404": "there is no such thing",
    "406": "the client takes no format that could be made",
    "408": "the upload took too long",
    "410": "the signature has expired",
    "413": "the upload is too large",
    "415": "this is no image that is read here",
    "422": "the image cannot be processed: damaged, or too large",
    "429": "busy; Retry-After says when to come back",
    "502": "the worker died",
    "503": "shutting down, or no worker came to it in time",
    "504": "it took too long",
    "507": "it took too much memory",
}

_LOCAL = ("engine",)


def document(writes: Iterable[str], samples: Iterable[str]) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        writes: formats that the server can write.
        samples: names of its sample pictures.
    """
    images = [FORMATS[name] for name in writes]
    usual = [name for name in PARAMETERS if name not in _LOCAL]
    output = [*pipeline.OUTPUT, "priority", "timeout"]
    ops = _parameter(
        "ops", {"type": "string", "minLength": 2}, "JSON list of operations", True
    )
    widths = _parameter(
        "widths", {"type": "string", "pattern": r"^\d+(,\d+)*$"}, "as 320,640", True
    )
    formats = _parameter("formats", {"type": "string"}, "as webp,jpeg", False)
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": list(samples)},
    }
    upload = {"requestBody": _body()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "offloop demo", "version": offloop.__version__},
        "paths": {
            "/encode": {
                method: {
                    **_operation("make an image of an uploaded one", images, usual),
                    **upload,
                }
                for method in ("post", "put")
            },
            "/thumbnail": {
                "post": {**_operation("make a small image", images, usual), **upload}
            },
            "/pipeline": {
                "post": {
                    **_operation("do a list of operations", images, output, ops),
                    **upload,
                }
            },
            "/variants": {
                "post": {
                    **_operation(
                        "make several sizes and formats",
                        ["multipart/mixed", "application/zip"],
                        variants.NAMES,
                        widths,
                        formats,
                    ),
                    **upload,
                }
            },
            "/info": {
                "post": {
                    **_operation("tell what an image is", ["application/json"], ()),
                    **upload,
                }
            },
            "/sample/{name}": {"get": _operation("draw a sample", images, usual, name)},
            **{path: {"get": _plain(text, kind)} for path, text, kind in _WATCHING},
        },
        "components": {"schemas": {"Problem": _problem()}},
    }


_WATCHING = (
    ("/healthz", "is the loop alive", "text/plain"),
    ("/readyz", "would an image be taken", "application/json"),
    ("/stats", "figures of the pool", "application/json"),
    ("/metrics", "figures for Prometheus", "text/plain"),
)


def _operation(
    summary: str,
    types: Iterable[str],
    names: Iterable[str],
    *others: dict[str, Any],
) -> dict[str, Any]:
    parameters = [*others]
    for name in names:
        parameter = PARAMETERS[name]
        parameters.append(_parameter(name, parameter.schema, parameter.help, False))
    good = {"description": "done", "content": {kind: {} for kind in types}}
    problems = {
        code: {"description": text, **_PROBLEM} for code, text in _PROBLEMS.items()
    }
    same = {"description": "the client has it already"}
    return {
        "summary": summary,
        "parameters": parameters,
        "responses": {"200": good, "304": same, **problems},
    }


def _plain(summary: str, kind: str) -> dict[str, Any]:
    answers = {
        "200": {"description": "yes, or the figures", "content": {kind: {}}},
        "503": {"description": "no", "content": {kind: {}}},
    }
    return {"summary": summary, "responses": answers}


def _parameter(
    name: str, schema: dict[str, Any], help: str, required: bool
) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": help,
        "schema": schema,
    }


def _body() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"file": binary}, "required": ["file"]}
    return {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": binary},
            "image/*": {"schema": binary},
            "multipart/form-data": {"schema": form},
        },
    }


def _problem() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "param": {"type": "string"},
        },
    }
