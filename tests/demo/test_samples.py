"""The sample pictures: sizes, modes, and that they stay the same."""

from __future__ import annotations

import pytest

from offloop.demo import samples
from offloop.demo.jobs import SAMPLES


@pytest.mark.parametrize(
    ("name", "mode", "size", "format"),
    [
        ("photo", "RGB", (1600, 1200), "JPEG"),
        ("graphic", "RGBA", (1200, 800), "PNG"),
    ],
)
def test_samples_are_pictures(name, mode, size, format):
    sample = samples.draw(name)
    image = sample.image
    assert (image.mode, image.size, sample.format) == (mode, size, format)
    assert sample.size == size
    assert len(image.resize((100, 100)).convert("RGB").getcolors(10_000)) > 30


@pytest.mark.slow
def test_a_sample_is_the_same_every_time():
    first, second = (samples.draw("photo").image.tobytes() for _ in range(2))
    assert first == second


def test_an_animation_moves():
    sample = samples.draw("animation")
    frames = [image for image, _ in sample.more]
    assert len(frames) > 20
    assert all(frame.size == sample.size for frame in frames)
    assert len({frame.tobytes() for frame in frames}) == len(frames)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_name_that_the_server_offers_can_be_drawn(name):
    assert samples.draw(name).size > (100, 100)
