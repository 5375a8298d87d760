"""No image is an error of the server, and none costs more than its own job.

Thousands of damaged files go through the worker's own functions, which is fast, and
hundreds over HTTP, where it is also seen that the worker survives them.
"""

from __future__ import annotations

import io
import os
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from offloop.demo import images, source
from offloop.demo.plugins import READERS
from offloop.demo.problems import Problem
from offloop.demo.recipe import Recipe

FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "GIF"),
    *("TIFF", "BMP", "ICO", "JPEG2000", "QOI"),
    *(name for name in ("HEIF", "JXL") if name in READERS),
)
PATHS = ("/encode?f=webp", "/encode?f=png&frames=9", "/thumbnail", "/info")

#: how many damaged files each format gets; more for a long night
MANY = int(os.environ.get("OFFLOOP_FUZZ", "120"))

LIMIT = 1_000_000


def good(format, *, frames=1, mode="RGB"):
    """Return a good file with all kinds of things in it."""
    rng = np.random.default_rng(5)
    pixels = [rng.integers(0, 256, (24, 32, 3), np.uint8) for _ in range(frames)]
    first, *others = [Image.fromarray(one).convert(mode) for one in pixels]
    exif = Image.Exif()
    if not (format == "AVIF" and frames > 1):  # which crashes Pillow's encoder
        exif[0x0112] = 6
    exif[0x013B] = "A. Painter"
    how = {}
    if format in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JXL"):
        how["exif"] = exif.tobytes()
    if others:
        how |= {"save_all": True, "append_images": others, "duration": 50}
    out = io.BytesIO()
    first.save(out, format, **how)
    return out.getvalue()


SEEDS = [good(format) for format in FORMATS]
SEEDS += [good(format, frames=3) for format in ("GIF", "WEBP", "PNG", "AVIF", "TIFF")]
SEEDS += [good("PNG", mode="P"), good("TIFF", mode="CMYK"), good("JPEG", mode="L")]
SEEDS += [good("BMP", mode="1"), good("PNG", mode="LA"), good("TIFF", mode="F")]

RECIPES = [
    Recipe("jpeg", width=9),
    Recipe("webp", frames=9, strip=False, icc="keep"),
    Recipe("png", width=40, height=40, fit="contain", enlarge=True, rotate=90),
    Recipe("gif", frames=9, width=5, height=9, fit="cover", gravity="attention"),
]


def damaged(seed, chance):
    """Return a good file with something wrong: most of it where decisions are made."""
    data = bytearray(seed)
    for _ in range(chance.choice([1, 1, 2, 5, 30])):
        place = int(min(chance.paretovariate(0.5), len(data))) - 1
        how = chance.randrange(5)
        if how == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif how == 1:
            data[place] = chance.choice([0, 1, 127, 128, 255])
        elif how == 2:
            data[place : place + 4] = struct.pack(">I", chance.choice(EXTREMES))
        elif how == 3:
            del data[place : place + chance.randrange(1, 9)]
        else:
            data[place:place] = chance.randbytes(chance.randrange(1, 9))
        if not data:
            return b"\0"
    if chance.random() < 0.2:
        del data[chance.randrange(1, len(data) + 1) :]
    return bytes(data)


EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x0000FFFF, 0x00010000)


def checked(problem):
    """Return a status that an image can be to blame for."""
    assert problem.status in (415, 422), problem
    return problem.status


def outcome(data, recipe):
    """Return what becomes of a file: an image within the limits, or a 4xx."""
    try:
        encoded = images.encode(data, recipe, LIMIT)
    except Problem as problem:
        return checked(problem)
    assert encoded.width * encoded.height <= LIMIT
    Image.open(io.BytesIO(encoded.data)).load()
    return 200


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_seeds_are_good(number):
    for recipe in RECIPES:
        assert outcome(SEEDS[number], recipe) == 200


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_a_damaged_file_is_an_image_or_a_problem(number):
    chance = random.Random(1000 + number)
    for _ in range(MANY):
        outcome(damaged(SEEDS[number], chance), chance.choice(RECIPES))


@pytest.mark.slow
@settings(max_examples=3 * MANY, deadline=None)
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False))
def test_a_damaged_file_can_be_described_or_not(seed, chance):
    try:
        summary = source.describe(damaged(seed, chance), LIMIT)
    except Problem as problem:
        checked(problem)
    else:
        assert summary.pixels >= summary.width * summary.height


@given(st.binary(max_size=300), st.sampled_from([b"", *(s[:16] for s in SEEDS)]))
def test_no_bytes_at_all_are_an_error(data, head):
    outcome(head + data, RECIPES[0])


def bomb(width, height):
    """Return a PNG of any size that is a few kilobytes: black compresses well."""

    def chunk(kind, body):
        sum_ = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + sum_

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    )


@pytest.mark.slow
@settings(
    max_examples=MANY,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(SEEDS),
    st.randoms(use_true_random=False),
    st.sampled_from(PATHS),
)
def test_over_http_it_is_the_same_and_costs_no_worker(client, seed, chance, path):
    response = client.post(path, content=damaged(seed, chance))
    assert response.status_code in (200, 415, 422), response.text


@pytest.mark.slow
def test_after_all_that_no_worker_was_lost(client):
    figures = client.get("/stats").json()
    assert (figures["lost"], figures["workers_lost"], figures["timed_out"]) == (0, 0, 0)
    # A successor may stand by, and take over from one that large images made grow.
    assert set(figures["exits"]) <= {"recycled-memory"}, figures["exits"]
