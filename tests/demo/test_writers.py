"""Files of every format: options, sizes to fit into, and what cannot be written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from offloop.demo import writers
from offloop.demo.problems import Problem
from offloop.demo.recipe import FORMATS, LOSSY, Recipe
from offloop.demo.writers import Film, write

WRITES = writers.writable()


def noise(size=(64, 64), mode="RGB"):
    width, height = size
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def one(image):
    return Film([image], [0])


def size_of(format, image=None, **recipe):
    data, _ = write(one(image or noise()), format, Recipe(**recipe))
    return len(data)


def test_what_comes_with_pillow_can_be_written():
    assert set(WRITES) >= {"jpeg", "png", "webp", "avif", "gif", "tiff", "jp2"}
    assert set(WRITES) <= set(FORMATS)


@pytest.mark.parametrize("format", sorted({*LOSSY} & {*WRITES}))
def test_the_quality_can_be_lowered_until_the_file_fits(format):
    whole, quality = write(one(noise()), format, Recipe())
    limit = len(whole) * 2 // 3
    smaller, lower = write(one(noise()), format, Recipe(max_bytes=limit))
    assert len(smaller) <= limit
    assert 1 <= lower < quality
    better = Recipe(max_bytes=len(whole))
    assert write(one(noise()), format, better) == (whole, quality)


@pytest.mark.parametrize("recipe", [{}, {"quality": 1}])
@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_what_cannot_be_made_to_fit_is_refused(format, recipe):
    with pytest.raises(Problem, match="max_bytes allows 100") as refused:
        write(one(noise()), format, Recipe(max_bytes=100, **recipe))
    assert (refused.value.status, refused.value.param) == (422, "max_bytes")


def test_the_best_quality_that_fits_is_found():
    limit = size_of("jpeg", quality=41)
    _, quality = write(one(noise()), "jpeg", Recipe(max_bytes=limit))
    assert size_of("jpeg", quality=quality + 1) > limit
    assert quality >= 41


@pytest.mark.parametrize("format", ["webp", "jp2"])
def test_every_pixel_can_be_kept(format):
    data, quality = write(one(noise()), format, Recipe(lossless=True))
    assert quality is None
    assert Image.open(io.BytesIO(data)).convert("RGB").tobytes() == noise().tobytes()


def test_avif_comes_as_near_as_it_can():
    data, _ = write(one(noise()), "avif", Recipe(lossless=True))
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)
    assert np.abs(pixels - np.asarray(noise(), np.int16)).max() <= 4


@pytest.mark.parametrize("format", ["jpeg", "avif"])
def test_colours_can_be_kept_sharp(format):
    assert size_of(format, subsampling="4:4:4") > size_of(format, subsampling="4:2:0")


def test_a_jpeg_can_come_line_by_line():
    for progressive in (True, False):
        data, _ = write(one(noise()), "jpeg", Recipe(progressive=progressive))
        image = Image.open(io.BytesIO(data))
        assert bool(image.info.get("progressive")) == progressive


def test_effort_is_paid_back_in_bytes():
    image = noise((200, 200)).resize((400, 400))
    fast, small = ({"lossless": True, "method": method} for method in (0, 6))
    assert size_of("webp", image, **small) < size_of("webp", image, **fast)
    assert size_of("avif", image, speed=4) < size_of("avif", image, speed=10)


def test_a_format_that_pillow_was_built_without_is_not_offered(monkeypatch):
    monkeypatch.delitem(Image.SAVE, "AVIF")
    assert "avif" not in writers.writable()


def test_versions_name_what_decides_over_the_file():
    assert {"Pillow", "libwebp", "libavif"} <= writers.versions().keys()
