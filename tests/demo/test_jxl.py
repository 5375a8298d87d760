"""The size of a JPEG XL: as its encoder wrote it, and of no file an error."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from offloop.demo import images
from offloop.demo.jxl import size_of
from offloop.demo.plugins import READERS
from offloop.demo.problems import Problem
from offloop.demo.recipe import Recipe

needs_plugin = pytest.mark.skipif("JXL" not in READERS, reason="no JPEG XL here")

SIZES = [(1, 1), (8, 8), (64, 48), (257, 3), (90, 2000), (160, 90), (48, 64), (9001, 2)]


def jxl(size, **how):
    out = io.BytesIO()
    Image.new("L", size).save(out, "JXL", **how)
    return out.getvalue()


@needs_plugin
@pytest.mark.parametrize("size", SIZES)
def test_the_size_is_the_decoder_s(size):
    exif = Image.Exif()
    exif[0x0112] = 1
    for how in ({}, {"use_container": True}, {"exif": exif.tobytes()}):
        assert size_of(jxl(size, **how)) == size


def test_without_the_library_it_is_known_too():
    # 16 x 16 by the short form: one bit, five of height / 8 - 1, ratio 1 to 1.
    bare = b"\xff\x0a" + (1 | 1 << 1 | 1 << 6).to_bytes(2, "little")
    assert size_of(bare) == (16, 16)
    boxed = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x01jxlc\0\0\0\0\0\0\0\x14" + bare
    assert size_of(boxed) == (16, 16)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"\xff\xd8\xff", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)],
)
def test_a_file_that_does_not_say_it_has_none(data):
    assert size_of(data) is None


def test_boxes_without_end_are_not_walked():
    head = b"\0\0\0\x0cJXL \r\n\x87\n"
    assert size_of(head + 100 * b"\0\0\0\x08free" + b"\0\0\0\0jxlc\xff\x0a") is None


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\x0a", b"\0\0\0\x0cJXL "]))
def test_no_file_keeps_it_from_ending(data, head):
    size = size_of(head + data)
    assert size is None or (0 <= size[0] < 2**32 and 0 < size[1] <= 2**30)


@needs_plugin
def test_a_bomb_is_refused_before_it_is_decoded():
    bomb = jxl((9000, 9000), lossless=True, effort=1)
    assert len(bomb) < 20_000
    with pytest.raises(Problem, match=r"81\.0 megapixels; 50\.0 are allowed"):
        images.encode(bomb, Recipe("png", width=9), 50_000_000)
