"""Several sizes and formats of one upload: each is a job of its own, on its own core.

What is asked for comes as two lists; what comes back is one body with all files in it,
as MIME parts or as a ZIP archive.
"""

from __future__ import annotations

import io
import uuid
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

from offloop.demo import parameters
from offloop.demo.accept import negotiate
from offloop.demo.parameters import PARAMETERS
from offloop.demo.problems import Problem
from offloop.demo.recipe import FORMATS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from offloop.demo.making import Made
    from offloop.demo.parameters import Order
    from offloop.demo.upload import Pairs

__all__ = ["MAX_VARIANTS", "NAMES", "archive", "file_name", "read_variants", "parts"]

MAX_VARIANTS = 24

#: parameters that count for all variants alike
NAMES = tuple(name for name in PARAMETERS if name not in ("w", "h", "format", "engine"))


def read_variants(pairs: Pairs, writes: Collection[str]) -> list[Order]:
    """Return an order for each width and format.

    Args:
        pairs: `widths` and `formats`, each a list such as "320,640", and what counts
            for all of them. The format "auto" is that of the source.
        writes: formats that can be written.

    Raises:
        Problem: 400 when there are no widths, too many variants, or bad values.
    """
    ours = [pair for pair in pairs if pair[0] in ("widths", "formats")]
    lists = dict(ours)
    if len(lists) < len(ours):
        raise Problem(400, "widths and formats are each given once.", "widths")
    rest = [pair for pair in pairs if pair[0] not in lists]
    if not lists.get("widths"):
        raise Problem(400, "widths is missing: widths=320,640,1280.", "widths")
    widths = lists["widths"].split(",")
    formats = (lists.get("formats") or "auto").split(",")
    if len(widths) * len(formats) > MAX_VARIANTS:
        raise Problem(400, f"More than {MAX_VARIANTS} variants.", "widths")
    common = parameters.parse(rest, NAMES)
    orders = []
    for format in formats:
        for width in widths:
            fields = {
                **common,
                "width": parameters.read("w", width.strip(), "widths"),
                "format": parameters.read("format", format.strip(), "formats"),
            }
            order = parameters.order(fields)
            if order.recipe.format not in (None, *writes):
                there = ", ".join(writes)
                raise Problem(
                    400, f"{format} cannot be written; there are: {there}.", "formats"
                )
            # The Accept header is about the body, which holds all of the files.
            accepted = negotiate(None, writes)
            recipe = replace(order.recipe, accepted=accepted)
            orders.append(replace(order, recipe=recipe))
    return orders


def file_name(stem: str, made: Made) -> str:
    """Return a name for a file, such as "photo-640x480.webp"."""
    encoded = made.encoded
    suffix = {"jpeg": "jpg", "tiff": "tif"}.get(encoded.format, encoded.format)
    return f"{stem}-{encoded.width}x{encoded.height}.{suffix}"


def parts(stem: str, all_made: list[Made]) -> tuple[str, Iterator[bytes]]:
    """Return a media type and a body of MIME parts (RFC 2046), one for each variant."""
    boundary = uuid.uuid4().hex

    def body() -> Iterator[bytes]:
        for made in all_made:
            encoded = made.encoded
            yield (
                f"--{boundary}\r\n"
                f"Content-Type: {FORMATS[encoded.format]}\r\n"
                f"Content-Length: {len(encoded.data)}\r\n"
                f'Content-Disposition: attachment; filename="{file_name(stem, made)}"'
                "\r\n\r\n"
            ).encode()
            yield encoded.data
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    return f"multipart/mixed; boundary={boundary}", body()


def archive(stem: str, all_made: list[Made]) -> bytes:
    """Return a ZIP archive of all variants; takes a moment for each megabyte."""
    out = io.BytesIO()
    names: set[str] = set()
    with zipfile.ZipFile(out, "w") as file:  # stored: images do not get any smaller
        for made in all_made:
            name = file_name(stem, made)
            if name not in names:  # two widths above the source's give one file
                names.add(name)
                file.writestr(name, made.encoded.data)
    return out.getvalue()
