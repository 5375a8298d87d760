"""Counting frames: the same number as a decoder finds, and no endless walk."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from offloop.demo.gif import count_frames


def gif(frames, **how):
    out = io.BytesIO()
    images = [Image.new("L", (9, 7), 30 * n) for n in range(frames)]
    images[0].save(out, "GIF", save_all=True, append_images=images[1:], **how)
    return out.getvalue()


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("how", [{}, {"comment": b"x" * 700, "loop": 0}])
def test_the_count_is_the_decoder_s(frames, how):
    data = gif(frames, duration=50, **how)
    assert count_frames(data, 100) == Image.open(io.BytesIO(data)).n_frames


def test_counting_ends_at_the_limit():
    assert count_frames(gif(7), 3) == 3


@given(st.integers(0, 700))
def test_what_is_cut_off_has_the_frames_that_have_begun(length):
    data = gif(7, comment=b"hello")
    assert 0 <= count_frames(data[:length], 100) <= 7


@given(st.binary(max_size=400))
def test_no_file_keeps_it_from_ending(data):
    assert 0 <= count_frames(b"GIF89a" + data, 50) <= 50
