"""Take the image and the parameters out of a request, within limits.

Nothing is kept beyond the limit, whatever Content-Length says, and nothing is looked
at: the bytes go to a worker as they came.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request

from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Message, Receive

__all__ = ["read_upload"]

# The last is what curl says of --data-binary unless it is told otherwise.
_RAW_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")

# Form fields are a few short words; boundaries and headers of parts come on top of the
# file itself.
_MAX_FIELDS = 20
_MAX_FIELD_SIZE = 1024
_FORM_OVERHEAD = 64 * 1024

# A client that is still sending would lose the refusal to a reset of the connection, so
# for this long the rest is taken and dropped.
_LINGER = 2.0

Pairs = list[tuple[str, str]]


async def read_upload(request: Request, limit: int) -> tuple[bytes | bytearray, Pairs]:
    """Return the image file of a request, and its parameters in query and form.

    Args:
        request: a raw body, or a form whose field `file` is the image.
        limit: bytes that the image may have.

    Raises:
        Problem: 400 for an empty body or a bad form, 413 for too large a body, 415 for
            a declared type that is no image.
        ClientDisconnect: when the client left before it had sent everything.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    pairs = request.query_params.multi_items()
    data: bytes | bytearray
    if kind == "multipart/form-data":
        request = await _limited(request, limit + _FORM_OVERHEAD)
        data, fields = await _read_form(request, limit)
        pairs += fields
    elif kind in _RAW_TYPES or kind.startswith("image/"):
        data = await _read_body(await _limited(request, limit))
    else:
        raise Problem(
            415,
            f"A body of type {kind} is no image; send image/* or multipart/form-data.",
        )
    if not data:
        raise Problem(400, "There is no image: the body is empty.")
    return data, pairs


async def _limited(request: Request, limit: int) -> Request:
    """Return the request with a body that is refused as soon as it goes too far."""
    if int(request.headers.get("content-length", 0)) > limit:
        if request.headers.get("expect", "").lower() != "100-continue":
            await _drop_rest(request.receive)
        raise _too_large(limit)
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > limit:
            if message.get("more_body"):
                await _drop_rest(request.receive)
            raise _too_large(limit)
        return message

    return Request(request.scope, counted)


async def _read_body(request: Request) -> bytearray:
    # Grown in place: joining twenty megabytes at the end would hold up the loop.
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
    return data


async def _read_form(request: Request, limit: int) -> tuple[bytes, Pairs]:
    async with request.form(
        max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_SIZE
    ) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(400, "The form has no file in its field 'file'.", "file")
        if (file.size or 0) > limit:
            raise _too_large(limit)
        items = form.multi_items()
        fields = [(name, value) for name, value in items if isinstance(value, str)]
        return await file.read(), fields


async def _drop_rest(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER):
            while (message := await receive()).get("more_body"):
                pass
    except TimeoutError:
        return
    if message["type"] == "http.disconnect":
        raise ClientDisconnect


def _too_large(limit: int) -> Problem:
    # The rest of the body may still be on its way: this connection is of no more use.
    return Problem(
        413,
        f"The upload is larger than the {limit:,} bytes that are allowed.",
        headers={"Connection": "close"},
    )
