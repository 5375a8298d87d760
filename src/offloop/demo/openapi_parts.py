"""What the routes of the OpenAPI document have in common.

Parameters in the query, the form and headers, which are one table here as in the
server; the body of an upload; what each status means, and which headers come along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offloop.demo import pipeline
from offloop.demo.parameters import PARAMETERS, SHORT

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "PROBLEM",
    "SHORT",
    "TRACING",
    "answers",
    "body",
    "components",
    "header_name",
    "reference",
    "statuses",
]

#: media type of all that goes wrong
PROBLEM = "application/problem+json"

#: request headers that say whose request it is
TRACING = ("X-Request-Id", "traceparent")

# What each status means that a route may answer with.
_PROBLEMS = {
    "400": "a parameter or the body is wrong",
    "401": "the request is not signed",
    "403": "the signature is wrong, or this is not offered",
    "404": "there is no such thing",
    "405": "this path takes other methods, which Allow names",
    "406": "the client takes no format that could be made",
    "408": "the upload took too long",
    "410": "the signature has expired",
    "413": "the upload is too large",
    "415": "this is no image that is read here",
    "422": "the image cannot be processed: damaged, or too large",
    "429": "busy; Retry-After says when to come back",
    "500": "the server made a mistake",
    "502": "the worker died",
    "503": "shutting down, or no worker came to it in time",
    "504": "it took too long",
    "507": "it took too much memory",
}

_OF_SIGNATURES = ("401", "410")
_OF_UPLOADS = ("408", "413", "415")
_COME_BACK = ("429", "503")


def statuses(*, upload: bool, negotiates: bool, signed: bool) -> list[str]:
    """Return the statuses of what can go wrong on a route that makes something."""
    left_out = {"404"}
    left_out |= set() if signed else {*_OF_SIGNATURES}
    left_out |= set() if upload else {*_OF_UPLOADS}
    left_out |= set() if negotiates else {"406"}
    return [status for status in _PROBLEMS if status not in left_out]


def answers(
    types: Iterable[str],
    statuses: Iterable[str],
    name: str,
    *,
    cached: bool,
    negotiates: bool,
) -> dict[str, Any]:
    """Return the answers of a route.

    Args:
        types: media types of what it answers if all is well.
        statuses: of what may go wrong.
        name: of the route, for those whose content has a schema.
        cached: its answers have an ETag, and a client may have them already.
        negotiates: the Accept header counts.
    """
    common = ["X-Request-Id", "X-Content-Type-Options"] + ["Vary"] * negotiates
    good = {
        "description": "done",
        "headers": _headers([*common, *["ETag", "Server-Timing"] * cached]),
        "content": {kind: _SCHEMAS.get(name, {}) for kind in types},
    }
    found = {"200": good}
    if cached:
        same = {"description": "the client has it already"}
        found["304"] = {**same, "headers": _headers([*common, "ETag"])}
    for status in statuses:
        more = {"405": ["Allow"], "429": ["Retry-After"], "503": ["Retry-After"]}
        found[status] = {
            "description": _PROBLEMS[status],
            "headers": _headers([*common, *more.get(status, ())]),
            "content": {PROBLEM: {"schema": reference("schemas", "Problem")}},
        }
    return found


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: reference("headers", name) for name in names}


def reference(kind: str, name: str) -> dict[str, str]:
    """Return what stands for a part that is described in one place only."""
    return {"$ref": f"#/components/{kind}/{name}"}


def header_name(parameter: str) -> str:
    """Return the header that can carry a parameter."""
    return f"X-Offloop-{parameter.replace('_', '-').title()}"


def body(names: Iterable[str]) -> dict[str, Any]:
    """Return the body of an upload.

    Args:
        names: parameters that a form may have beside the file.
    """
    fields = {name: _TEXTS.get(name) or PARAMETERS[name].schema for name in names}
    form = {
        "type": "object",
        "properties": {"file": _BINARY, **fields},
        "required": ["file"],
        "additionalProperties": False,
    }
    return {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": _BINARY},
            "image/*": {"schema": _BINARY},
            "multipart/form-data": {"schema": form},
        },
    }


def components(samples: Iterable[str]) -> dict[str, Any]:
    """Return all that the document refers to.

    Args:
        samples: names of the sample pictures.
    """
    asked = {name: (one.schema, one.help) for name, one in PARAMETERS.items()}
    asked |= {short: asked[full] for short, full in SHORT.items()}
    asked |= {name: (schema, "see the description") for name, schema in _TEXTS.items()}
    queries = {
        name: _parameter(name, "query", schema, text)
        for name, (schema, text) in asked.items()
    }
    headers = {
        header_name(name): _parameter(header_name(name), "header", schema, text)
        for name, (schema, text) in asked.items()
        if name not in SHORT
    }
    picture = {"type": "string", "enum": [*samples]}
    queries["name"] = _parameter("name", "path", picture, "which picture")
    return {
        "parameters": queries | headers | _OTHERS,
        "headers": _HEADERS,
        "schemas": {"Problem": _PROBLEM_SCHEMA, "Operations": _operations()},
    }


def _parameter(
    name: str, place: str, schema: dict[str, Any], text: str
) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": text,
        "schema": schema if place == "path" else _or_empty(schema),
    }


def _or_empty(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a field that a form may leave empty, as if not given."""
    return {"anyOf": [schema, {"type": "string", "maxLength": 0}]}


def _operations() -> dict[str, Any]:
    """Return what a pipeline is made of."""
    kinds = []
    for op, names in pipeline.OPERATIONS.items():
        fields = {name: PARAMETERS[name].schema for name in names}
        kinds.append(
            {
                "type": "object",
                "properties": {"op": {"const": op}, **fields},
                "required": ["op"],
                "additionalProperties": False,
            }
        )
    most = pipeline.MAX_OPERATIONS
    return {
        "type": "array",
        "items": {"anyOf": kinds},
        "minItems": 1,
        "maxItems": most,
    }


_BINARY = {"type": "string", "format": "binary"}

# Lists that stand for several values, and are no parameters of their own.
_TEXTS: dict[str, dict[str, Any]] = {
    "ops": {
        "type": "string",
        "minLength": 2,
        "contentMediaType": "application/json",
        "contentSchema": reference("schemas", "Operations"),
    },
    "widths": {"type": "string", "pattern": r"^[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*$"},
    "formats": {"type": "string", "pattern": "^[a-z0-9]+(,[a-z0-9]+)*$"},
}

_OTHERS = {
    "If-None-Match": _parameter(
        "If-None-Match", "header", {"type": "string"}, "what the client has already"
    ),
    "X-Request-Id": _parameter(
        "X-Request-Id",
        "header",
        {"type": "string"},
        "what the client calls this request, in up to 128 letters, digits and ._:/+=-; "
        "the answer says it again, or another one if it is none",
    ),
    "traceparent": _parameter(
        "traceparent",
        "header",
        {"type": "string"},
        "the span that this request is a part of (W3C Trace Context)",
    ),
    "sig": _parameter(
        "sig", "query", {"type": "string"}, "signature of the method, path and query"
    ),
    "expires": _parameter(
        "expires",
        "query",
        {"type": "integer", "minimum": 0},
        "seconds since 1970 after which the signature is worth nothing",
    ),
    "digest": _parameter(
        "digest",
        "query",
        {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "BLAKE2b-256 of the only image that the signature is good for",
    ),
    "worker": _parameter(
        "worker",
        "query",
        {"type": "integer", "minimum": 0},
        "number of a worker; whoever gets the next job otherwise",
    ),
}


def _header(text: str, **schema: Any) -> dict[str, Any]:
    return {
        "description": text,
        "required": True,
        "schema": {"type": "string", **schema},
    }


_HEADERS = {
    "X-Request-Id": _header("name of this request, in the server's log as well"),
    "X-Content-Type-Options": _header("the type is meant", const="nosniff"),
    "Vary": _header("the Accept header counts", pattern="Accept"),
    "ETag": _header("name of this very image", pattern='^"[^"]+"$'),
    "Server-Timing": _header("where the time went", pattern="total;dur="),
    "Retry-After": _header("seconds to wait", pattern="^[1-9][0-9]*$"),
    "Allow": _header("methods that this path takes"),
}

_WHOLE = {"type": "integer", "minimum": 0}

_PROBLEM_SCHEMA = {
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

# Of what routes answer that is JSON.
_SCHEMAS: dict[str, dict[str, Any]] = {
    "info": {
        "schema": {
            "type": "object",
            "required": ["format", "width", "height", "frames", "pixels", "bytes"],
            "properties": {
                "format": {"type": "string"},
                "width": _WHOLE,
                "height": _WHOLE,
                "mode": {"type": "string"},
                "frames": _WHOLE,
                "pixels": _WHOLE,
                "alpha": {"type": "boolean"},
                "orientation": {"type": "integer", "minimum": 1, "maximum": 8},
                "icc": {"type": ["string", "null"]},
                "bytes": _WHOLE,
            },
        }
    },
    "kill": {
        "schema": {
            "type": "object",
            "required": ["killed"],
            "properties": {"killed": {"type": ["integer", "null"]}},
        }
    },
}
