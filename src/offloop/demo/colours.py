"""Colours and transparency: profiles, paper behind holes, padding. Workers only."""

from __future__ import annotations

import io
from contextlib import suppress

from PIL import Image, ImageCms

__all__ = ["flatten", "in_srgb", "on_paper"]

# The colour space that a profile must have to describe an image of that mode.
_PROFILE_SPACE = {"L": "GRAY", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}

_SRGB = ImageCms.createProfile("sRGB")

_WHITE = (255, 255, 255)

Colour = tuple[int, int, int]


def in_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert by the profile, if there is one that fits; a bad one is ignored."""
    grey = image.mode in ("L", "LA")
    if icc and image.mode in _PROFILE_SPACE:
        with suppress(ImageCms.PyCMSError, OSError):
            image = _apply_profile(image, icc)
    if grey and image.mode == "RGB":
        return image.convert("L")
    return image.convert("RGB") if image.mode == "CMYK" else image


def _apply_profile(image: Image.Image, icc: bytes) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    if profile.profile.xcolor_space.strip() != _PROFILE_SPACE[image.mode]:
        return image
    if ImageCms.getProfileDescription(profile).startswith("sRGB"):
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode=mode)
    assert converted is not None  # only None when it works in place
    return converted


def on_paper(
    image: Image.Image, size: tuple[int, int], colour: Colour | None
) -> Image.Image:
    """Put an image into the middle of a larger sheet.

    Args:
        image: stays as it is.
        size: of the sheet.
        colour: of the sheet; None: transparent if the image can be, or else white.
    """
    mode = image.mode
    if colour is not None and len(set(colour)) > 1:
        mode = "RGB" if mode == "L" else "RGBA" if mode == "LA" else mode
        image = image.convert(mode)
    paper = Image.new(mode, size, _paper(mode, colour))
    left, top = (size[0] - image.width) // 2, (size[1] - image.height) // 2
    paper.paste(image, (left, top))
    return paper


def _paper(mode: str, colour: Colour | None) -> tuple[int, ...]:
    opaque = 0 if colour is None else 255
    red_green_blue = iter(colour or _WHITE)
    return tuple(opaque if band == "A" else next(red_green_blue) for band in mode)


def flatten(image: Image.Image, colour: Colour | None) -> Image.Image:
    """Fill transparent parts with a colour; None: white."""
    if not image.has_transparency_data:
        return image
    colour = colour or _WHITE
    mode = "L" if image.mode == "LA" and len(set(colour)) == 1 else "RGB"
    paper = Image.new(mode, image.size, colour[: len(mode)])
    paper.paste(image.convert(mode), mask=image.getchannel("A"))
    return paper
