"""libvips does as Pillow does, and where it could not it leaves the work to Pillow."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from offloop.demo import images
from offloop.demo.problems import Problem
from offloop.demo.recipe import Recipe

vips = pytest.importorskip("offloop.demo.vips", reason="there is no libvips here")

PLENTY = 10_000_000


def picture(format="PNG", mode="RGB", size=(120, 80), **how):
    """Return a file of soft colours, in which every corner is another one."""
    width, height = size
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    image = Image.fromarray(np.dstack([red, green, 128 + 0 * red]).astype(np.uint8))
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    out = io.BytesIO()
    image.convert(mode).save(out, format, **how)
    return out.getvalue()


def both(data, recipe):
    made = [module.encode(data, recipe, PLENTY) for module in (vips, images)]
    return [Image.open(io.BytesIO(one.data)) for one in made]


def assert_alike(data, recipe, by=6.0):
    theirs, ours = both(data, recipe)
    assert (theirs.size, theirs.format) == (ours.size, ours.format)
    assert theirs.has_transparency_data == ours.has_transparency_data
    far = np.abs(
        np.asarray(theirs.convert("RGBA"), float)
        - np.asarray(ours.convert("RGBA"), float)
    )
    assert far.mean() < by, recipe


RECIPES = [
    Recipe("png"),
    Recipe("jpeg", width=50),
    Recipe("webp", width=50, height=50, fit="cover"),
    Recipe("png", width=70, height=70, fit="contain", enlarge=True),
    Recipe("png", width=70, height=70, fit="contain", background=(255, 0, 0)),
    Recipe("png", width=30, height=70, fit="fill", grayscale=True),
    Recipe("webp", crop=(20, 10, 60, 40), lossless=True),
    Recipe("png", rotate=90, flop=True, width=31),
    Recipe("png", width=300, enlarge=True, flip=True),
]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_it_does_as_pillow_does(recipe, mode):
    assert_alike(picture(mode=mode), recipe)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = picture("JPEG", size=(1200, 800), exif=exif, quality=95)
    assert_alike(data, Recipe("png", width=60))
    assert_alike(data, Recipe("png", width=40, height=40, fit="cover"))


def test_colours_become_those_of_srgb():
    assert_alike(picture("JPEG", "CMYK"), Recipe("png", width=60), by=30)
    assert_alike(picture(icc_profile=b"nonsense"), Recipe("png", width=60))


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("avif", width=30),
        Recipe("webp", blur=2.0),
        Recipe("webp", measure=True),
        Recipe("jpeg", max_bytes=900),
        Recipe("webp", frames=3),
    ],
    ids=str,
)
def test_what_it_does_not_do_is_pillow_s(recipe):
    theirs, ours = (
        module.encode(picture("GIF", "L"), recipe, PLENTY) for module in (vips, images)
    )
    assert theirs.data == ours.data


def test_damaged_files_are_the_same_problems():
    chance = random.Random(4)
    seeds = [picture("JPEG"), picture("PNG"), picture("WEBP")]
    statuses = set()
    for number in range(300):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice([1, 3, 20])):
            place = min(int(chance.paretovariate(0.4)) + 3, len(data) - 1)
            data[place] ^= 1 << chance.randrange(8)
        if number % 3 == 0:
            del data[chance.randrange(4, len(data)) :]
        try:
            vips.encode(data, Recipe("webp", width=20), PLENTY)
        except Problem as problem:
            statuses.add(problem.status)
    assert statuses <= {415, 422}
    assert 422 in statuses


def test_limits_are_pillow_s():
    with pytest.raises(Problem, match="megapixels"):
        vips.encode(picture(), Recipe("png"), 100)
    with pytest.raises(Problem, match="8192 pixels a side"):
        vips.encode(picture(), Recipe("png", width=9000, enlarge=True), 10**9)


def test_its_version_is_told():
    assert vips.version().count(".") == 2
