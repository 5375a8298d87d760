"""From a request to an order: signature, parameters, the upload, negotiation.

Cheap things first, so that what is wrong with a request is known before its body is
read, and what the answer would be is known before a job is submitted.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from offloop.demo import accept, parameters, signing
from offloop.demo.parameters import PARAMETERS
from offloop.demo.problems import Problem
from offloop.demo.upload import read_upload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

    from offloop.demo.budget import Hold
    from offloop.demo.parameters import Order
    from offloop.demo.recipe import Recipe
    from offloop.demo.service import Service
    from offloop.demo.upload import Pairs, Upload

__all__ = ["negotiated", "order_of", "query_of", "service_of", "upload_of"]


# Of headers that are parameters.
_PREFIX = "x-offloop-"


def service_of(request: Request) -> Service:
    """Return the service that the request came to."""
    service: Service = request.state.service
    return service


def query_of(request: Request) -> Pairs:
    """Return the parameters of the query, once its signature is checked.

    Raises:
        Problem: 401, 403 or 410 when signatures are wanted and this one is none; 403
            when something is asked for that it does not cover.
    """
    pairs = request.query_params.multi_items()
    keys = service_of(request).settings.keys
    if keys:
        now = time.time()
        signing.check(keys, request.method, request.url.path, pairs, now)
        pairs = [pair for pair in pairs if pair[0] not in signing.NAMES]
    return pairs + _headers_of(request)


def _headers_of(request: Request) -> Pairs:
    """Return the parameters that an upload's headers give: X-Offloop-Max-Bytes: 900.

    Not those of samples: a cache between keeps what their URLs say.

    Raises:
        Problem: 403 where requests are signed, for a signature covers no headers.
    """
    if request.method not in ("POST", "PUT"):
        return []
    pairs = [
        (name.removeprefix(_PREFIX).replace("-", "_"), value)
        for name, value in request.headers.items()
        if name.startswith(_PREFIX)
    ]
    if pairs and service_of(request).settings.keys:
        raise _unsigned(pairs)
    return pairs


def _unsigned(pairs: Pairs) -> Problem:
    name = pairs[0][0][:40]
    return Problem(403, "Parameters are signed in the query, and only there.", name)


async def upload_of(request: Request, hold: Hold) -> Upload:
    """Return what the client sends.

    Raises:
        Problem: 429 when there is no room anyway, 403 when it is not the image that the
            signature is for, and what `read_upload` raises.
        ClientDisconnect: when the client left.
    """
    service = service_of(request)
    service.check_room()
    settings = service.settings
    upload = await read_upload(
        request, settings.max_body, hold, settings.upload_timeout
    )
    signed_for = request.query_params.get("digest")
    if settings.keys and signed_for not in (None, upload.digest.hex()):
        raise Problem(403, "The signature is for another image.", "digest")
    if settings.keys and upload.pairs:
        raise _unsigned(upload.pairs)
    return upload


def order_of(
    request: Request, pairs: Pairs, names: Iterable[str] = PARAMETERS
) -> Order:
    """Return what a request asks for.

    Args:
        request: its Accept header counts when no format is asked for.
        pairs: its parameters.
        names: those that are known here.

    Raises:
        Problem: 400 for a bad parameter, 403 for an engine that is not offered, 406
            when the client takes nothing that could be made.
    """
    order = parameters.order(parameters.parse(pairs, names))
    if order.engine != "pool" and not service_of(request).settings.controls:
        raise Problem(403, "This server runs everything in its pool.", "engine")
    return replace(order, recipe=negotiated(request, order.recipe))


def negotiated(request: Request, recipe: Recipe) -> Recipe:
    """Return the recipe with the formats that the client takes.

    Raises:
        Problem: 400 for a format that cannot be written here, 406 for one that the
            client does not take.
    """
    writes = service_of(request).abilities.writes
    header = request.headers.get("accept")
    if recipe.format is None:
        accepted = accept.negotiate(header, writes)
        if not (accepted.named or accepted.others):
            there = ", ".join(writes)
            raise Problem(406, f"The Accept header covers none of {there}.")
        return replace(recipe, accepted=accepted)
    if recipe.format not in writes:
        there = ", ".join(writes)
        detail = f"This server cannot write {recipe.format}; it writes {there}."
        raise Problem(400, detail, "format")
    if not accept.is_acceptable(header, recipe.format):
        detail = f"The format is {recipe.format}, which the Accept header excludes."
        raise Problem(406, detail, "format")
    return recipe
