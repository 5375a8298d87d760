"""Take the image and the parameters out of a request, within limits.

Nothing is kept beyond the limits, whatever Content-Length says and however slowly it
comes, and nothing is looked at: the bytes go to a worker as they came. They are
digested on the way, so that the answer can have a name before any work is done.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request

from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Message, Receive

    from offloop.demo.budget import Hold

__all__ = ["Pairs", "Upload", "read_upload"]

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

# What a form's file is taken over in, so that digesting it never holds up the loop.
_CHUNK = 256 * 1024

Pairs = list[tuple[str, str]]


@dataclass(slots=True)
class Upload:
    """What a client has sent.

    Attributes:
        data: the image file, as it came.
        pairs: parameters in the form, if it is one.
        name: file name that a form gave, or "".
    """

    data: bytearray = field(default_factory=bytearray)
    pairs: Pairs = field(default_factory=list)
    name: str = ""
    _hash: blake2b = field(default_factory=lambda: blake2b(digest_size=32))

    @property
    def digest(self) -> bytes:
        """BLAKE2b of the data, 32 bytes."""
        return self._hash.digest()

    def add(self, chunk: bytes) -> None:
        """Append to the data."""
        # Grown in place: joining twenty megabytes at the end would hold up the loop.
        self.data += chunk
        self._hash.update(chunk)


async def read_upload(
    request: Request, limit: int, hold: Hold, timeout: float
) -> Upload:
    """Return the image file of a request, and what its form says beside it.

    Args:
        request: a raw body, or a form whose field `file` is the image.
        limit: bytes that the image may have.
        hold: grows with what arrives.
        timeout: seconds until all of it must have come.

    Raises:
        Problem: 400 for an empty body or a bad form, 408 when it takes too long, 413
            for too large a body, 415 for a declared type that is no image, 429 when
            others fill the memory.
        ClientDisconnect: when the client left before it had sent everything.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data"
    if not (is_form or kind in _RAW_TYPES or kind.startswith("image/")):
        raise Problem(
            415,
            f"A body of type {kind[:80]} is no image; send image/* or "
            "multipart/form-data.",
        )
    upload = Upload()
    try:
        async with asyncio.timeout(timeout):
            if is_form:
                request = await _limited(request, limit + _FORM_OVERHEAD, hold)
                await _read_form(request, limit, upload)
            else:
                request = await _limited(request, limit, hold)
                async for chunk in request.stream():
                    upload.add(chunk)
    except TimeoutError:
        raise Problem(
            408,
            f"The upload took longer than {timeout:g} s.",
            headers={"Connection": "close"},
        ) from None
    if not upload.data:
        raise Problem(400, "There is no image: the body is empty.")
    return upload


async def _limited(request: Request, limit: int, hold: Hold) -> Request:
    """Return the request with a body that is refused as soon as it goes too far."""
    if int(request.headers.get("content-length", 0)) > limit:
        if request.headers.get("expect", "").lower() != "100-continue":
            await _drop_rest(request.receive)
        raise _too_large(limit)
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await request.receive()
        arrived = len(message.get("body", b""))
        size += arrived
        if size > limit:
            if message.get("more_body"):
                await _drop_rest(request.receive)
            raise _too_large(limit)
        hold.grow(arrived)
        return message

    return Request(request.scope, counted)


async def _read_form(request: Request, limit: int, upload: Upload) -> None:
    async with request.form(
        max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_SIZE
    ) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(400, "The form has no file in its field 'file'.", "file")
        if (file.size or 0) > limit:
            raise _too_large(limit)
        items = form.multi_items()
        upload.pairs = [
            (name, value) for name, value in items if isinstance(value, str)
        ]
        upload.name = file.filename or ""
        while chunk := await file.read(_CHUNK):
            upload.add(chunk)


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
