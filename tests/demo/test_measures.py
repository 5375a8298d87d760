"""PSNR and SSIM: known values, and that they order what eyes would order."""

from __future__ import annotations

import io
from math import inf

import pytest
from PIL import Image, ImageFilter

from offloop.demo.measures import compare


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_what_is_equal_is_wholly_alike():
    image = Image.effect_noise((50, 40), 30)
    assert compare(image, png(image)) == (inf, pytest.approx(1.0))


def test_a_uniform_error_has_a_psnr_that_can_be_worked_out():
    dark, light = Image.new("L", (40, 40), 100), Image.new("L", (40, 40), 110)
    psnr, _ = compare(dark, png(light))
    assert psnr == pytest.approx(28.1308, abs=1e-3)  # 20 log10(255 / 10)


def test_more_blur_is_less_alike():
    image = Image.effect_noise((100, 80), 60)
    figures = [
        compare(image, png(image.filter(ImageFilter.GaussianBlur(radius))))
        for radius in (0.4, 1, 3)
    ]
    assert figures == sorted(figures, reverse=True)
    assert figures[2][1] < 0.4


def test_what_is_not_seen_does_not_count():
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert compare(clear, png(Image.new("RGBA", (20, 20), (0, 0, 255, 0))))[0] == inf


def test_large_images_are_compared_in_small(monkeypatch):
    image = Image.effect_noise((1500, 900), 30)
    assert compare(image, png(image))[1] == pytest.approx(1.0)
