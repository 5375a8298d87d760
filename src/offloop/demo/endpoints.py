"""The routes that take or make images."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from offloop.demo import jobs, parameters, pipeline, variants
from offloop.demo.making import make, unless_left
from offloop.demo.orders import (
    negotiated,
    order_of,
    query_of,
    service_of,
    upload_of,
)
from offloop.demo.problems import Problem
from offloop.demo.recipe import FORMATS
from offloop.demo.validators import etag, matches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from starlette.requests import Request

    from offloop.demo.making import Made
    from offloop.demo.parameters import Order
    from offloop.demo.service import Service
    from offloop.demo.upload import Pairs

__all__ = ["encode", "info", "make_pipeline", "make_variants", "sample", "thumbnail"]

# Should an image turn out to be something else, it must not run anything.
_SANDBOX = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob: 'self'; sandbox"
)

# A sample never changes but with the version, and its URL says all of what it is.
_FOR_EVER = "public, max-age=31536000, immutable"

# What was made of an upload may be kept by who sent it, and be asked for again.
_ONE_OWN = "private, no-cache"

# What a thumbnail is if nobody says how large it should be.
_THUMBNAIL = {"w": "320", "h": "320"}


async def encode(request: Request) -> Response:
    """Make an image of an uploaded one."""
    return await _uploaded(request, lambda pairs: order_of(request, pairs))


async def thumbnail(request: Request) -> Response:
    """Make a small image of an uploaded one: at most 320x320 unless it is told."""

    def read(pairs: Pairs) -> Order:
        if not {"w", "h"} & {name for name, value in pairs if value}:
            pairs = [*pairs, *_THUMBNAIL.items()]
        return order_of(request, pairs)

    return await _uploaded(request, read)


async def make_pipeline(request: Request) -> Response:
    """Do a list of operations with an uploaded image."""

    def read(pairs: Pairs) -> Order:
        given = [value for name, value in pairs if name == "ops" and value]
        if len(given) > 1:
            raise Problem(400, "The parameter 'ops' is given twice.", "ops")
        beside = [pair for pair in pairs if pair[0] != "ops"]
        names = (*pipeline.OUTPUT, "priority", "timeout")
        fields = parameters.parse(beside, names)
        about_job = {name: fields.pop(name) for name in names[-2:] if name in fields}
        order = parameters.order(about_job)
        if not given:  # of a form, it may still come with the body
            return order
        recipe = pipeline.with_steps(pipeline.read_operations(given[0]), fields)
        return replace(order, recipe=negotiated(request, recipe))

    def read_all(pairs: Pairs) -> Order:
        if not any(name == "ops" and value for name, value in pairs):
            raise Problem(400, "ops is missing: a JSON list of operations.", "ops")
        return read(pairs)

    return await _uploaded(request, read_all, early=read)


async def _uploaded(
    request: Request,
    read: Callable[[Pairs], Order],
    early: Callable[[Pairs], Order] | None = None,
) -> Response:
    """Make what a request asks for of what it brings.

    Args:
        request: with an image in its body.
        read: makes an order of the parameters.
        early: checks those of the query before the body is there; None: as `read`.
    """
    arrived = perf_counter()
    service = service_of(request)
    query = query_of(request)
    order = (early or read)(query)  # what is wrong is said before the body is taken
    with service.budget.hold() as hold:
        upload = await upload_of(request, hold)
        if early is not None or upload.pairs:
            order = read([*query, *upload.pairs])
        tag = etag(upload.digest, order.recipe, service.abilities.versions)
        if matches(request.headers.get("if-none-match"), tag):
            return _not_modified(tag, _ONE_OWN)
        label = f"{len(upload.data) // 1000} kB"
        made = await unless_left(
            make(service, order, service.encoder(), upload.data, label=label),
            request.receive,
        )
        received = len(upload.data)
    service.metrics.note_image(received, made.encoded, made.spans)
    response = _image(service, made, received, perf_counter() - arrived)
    _name(response, variants.file_name(_stem(upload.name), made))
    return _tagged(response, tag, _ONE_OWN)


async def sample(request: Request) -> Response:
    """Draw a sample picture to order."""
    arrived = perf_counter()
    service = service_of(request)
    name = request.path_params["name"]
    if name not in jobs.SAMPLES:
        known = ", ".join(jobs.SAMPLES)
        raise Problem(404, f"There is no sample {name[:40]!r}; there are: {known}.")
    order = order_of(request, query_of(request))
    tag = etag(name.encode(), order.recipe, service.abilities.versions)
    if matches(request.headers.get("if-none-match"), tag):
        return _not_modified(tag, _FOR_EVER)
    made = await unless_left(
        make(service, order, jobs.draw, name, label=name), request.receive
    )
    service.metrics.note_image(0, made.encoded, made.spans)
    response = _image(service, made, 0, perf_counter() - arrived)
    _name(response, variants.file_name(name, made))
    return _tagged(response, tag, _FOR_EVER)


async def info(request: Request) -> Response:
    """Tell what the headers of an uploaded image say."""
    service = service_of(request)
    parameters.parse(query_of(request), ())
    with service.budget.hold() as hold:
        upload = await upload_of(request, hold)
        parameters.parse(upload.pairs, ())

        async def describe() -> dict[str, Any]:
            most = service.settings.max_pixels
            job = service.pool.submit(jobs.describe, upload.data, most)
            with service.board.shows(job, "info"):
                return await job

        try:
            summary = await unless_left(describe(), request.receive)
        finally:
            service.note_end()
    return JSONResponse(summary, headers={"Cache-Control": "no-store"})


async def make_variants(request: Request) -> Response:
    """Make several sizes and formats of an uploaded image."""
    arrived = perf_counter()
    service = service_of(request)
    query = query_of(request)
    if any(name == "widths" for name, _ in query):
        variants.read_variants(query, service.abilities.writes)  # refused early
    with service.budget.hold() as hold:
        upload = await upload_of(request, hold)
        orders = variants.read_variants(
            [*query, *upload.pairs], service.abilities.writes
        )
        at_once = min(len(orders), service.settings.workers)
        hold.grow((at_once - 1) * len(upload.data))  # each job takes a copy along
        work = _make_all(service, orders, upload.data, at_once)
        all_made = await unless_left(work, request.receive)
    for made in all_made:
        service.metrics.note_image(len(upload.data), made.encoded, made.spans)
    stem = _stem(upload.name)
    headers = {
        "Cache-Control": _ONE_OWN,
        "Server-Timing": f"total;dur={1000 * (perf_counter() - arrived):.1f}",
    }
    if "application/zip" in request.headers.get("accept", ""):
        packed = await asyncio.to_thread(variants.archive, stem, all_made)
        response = Response(packed, media_type="application/zip", headers=headers)
        _name(response, f"{stem}.zip")
        return response
    media_type, body = variants.parts(stem, all_made)
    return StreamingResponse(_later(body), media_type=media_type, headers=headers)


async def _make_all(
    service: Service, orders: list[Order], data: bytearray, at_once: int
) -> list[Made]:
    """Make all variants, a few at once, so that others have a chance in between.

    The first one is refused if there is no room; the others wait for theirs.
    """
    first, *others = orders
    turns = asyncio.Semaphore(at_once)

    async def one(order: Order, wait: bool) -> Made:
        async with turns:
            recipe = order.recipe
            label = f"{recipe.width} px {recipe.format or ''}".strip()
            work = service.encoder()
            return await make(service, order, work, data, label=label, wait=wait)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(first, wait=False))]
            tasks += [group.create_task(one(order, wait=True)) for order in others]
    except* Exception as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _later(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _image(service: Service, made: Made, received: int, total: float) -> Response:
    encoded = made.encoded
    headers = {
        "Server-Timing": made.server_timing(total),
        "Content-Security-Policy": _SANDBOX,
    }
    if encoded.quality is not None:
        headers["X-Result-Quality"] = str(encoded.quality)
    if encoded.likeness is not None:
        psnr, ssim = encoded.likeness
        headers |= {"X-Result-PSNR": f"{psnr:.2f}", "X-Result-SSIM": f"{ssim:.4f}"}
    if service.settings.debug_headers:
        headers |= {
            "X-Origin-Width": str(encoded.source[0]),
            "X-Origin-Height": str(encoded.source[1]),
            "X-Origin-Content-Length": str(received),
            "X-Result-Width": str(encoded.width),
            "X-Result-Height": str(encoded.height),
            "X-Worker": "-" if made.worker is None else str(made.worker),
            "X-Worker-Pid": str(encoded.pid),
        }
    return Response(encoded.data, media_type=FORMATS[encoded.format], headers=headers)


def _not_modified(tag: str, cache: str) -> Response:
    # RFC 9110 has 412 for other methods than GET. But this POST changes nothing: it is
    # a GET with a body, and 304 is what its clients understand.
    return _tagged(Response(status_code=304), tag, cache)


def _tagged(response: Response, tag: str, cache: str) -> Response:
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = cache
    return response


def _name(response: Response, name: str) -> None:
    response.headers["Content-Disposition"] = f'inline; filename="{name}"'


def _stem(name: str) -> str:
    """Return a client's file name without its suffix and all that could mean harm."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name.rpartition("/")[2].partition(".")[0])
    return stem.strip("-")[:60] or "image"
