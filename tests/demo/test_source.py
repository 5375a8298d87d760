"""Reading files of unknown origin: what is right is decoded, all else is a problem."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import GifImagePlugin, Image, ImageCms

from offloop.demo import source
from offloop.demo.problems import Problem
from offloop.demo.recipe import Recipe

PLENTY = 10_000_000
KEEP = Recipe(strip=False)
ORIENTATION = 0x0112
ARTIST = 0x013B
CAMERA = 0x010F


def problem_of(data, max_pixels=PLENTY):
    with pytest.raises(Problem) as refused:
        source.read(data, Recipe(), max_pixels)
    return refused.value


def exif(orientation, **more):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    names = {"artist": ARTIST, "camera": CAMERA}
    for name, value in more.items():
        tags[names[name]] = value
    return tags.tobytes()


def png_of(width, height):
    """A PNG of any size in a few kilobytes: black compresses well."""

    def chunk(kind, body):
        sum_ = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + sum_

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize(
    "format",
    ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "JPEG2000", "QOI"],
)
def test_accepted_formats_are_decoded(picture, format):
    read = source.read(picture(format), Recipe(), PLENTY)
    assert (read.format, read.size, read.image.size) == (format, (64, 48), (64, 48))
    assert read.image.mode == "RGB"


def test_a_jpeg_of_several_frames_is_decoded():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "MPO", save_all=True, append_images=frames[1:])
    read = source.read(out.getvalue(), Recipe(), PLENTY)
    assert (read.format, read.image.size) == ("MPO", (8, 8))
    assert problem_of(out.getvalue(), max_pixels=127).detail.count("2 frames") == 1


@pytest.mark.parametrize(
    ("format", "mode", "plain"),
    [
        ("PNG", "1", "L"),
        ("PNG", "L", "L"),
        ("PNG", "LA", "LA"),
        ("PNG", "P", "RGB"),
        ("PNG", "RGBA", "RGBA"),
        ("JPEG", "CMYK", "CMYK"),
        ("TIFF", "YCbCr", "RGB"),
        ("TIFF", "F", "L"),
        ("TIFF", "I", "L"),
    ],
)
def test_modes_become_one_of_the_plain_ones(picture, format, mode, plain):
    image = source.read(picture(format, mode=mode), Recipe(), PLENTY).image
    assert image.mode == plain
    low, high = image.convert("L").getextrema()
    assert high - low > 100  # the picture is still there


def test_a_transparent_colour_becomes_alpha():
    out = io.BytesIO()
    Image.new("L", (4, 4), 9).save(out, "PNG", transparency=9)
    image = source.read(out.getvalue(), Recipe(), PLENTY).image
    assert (image.mode, image.getpixel((0, 0))) == ("LA", (9, 0))


def test_16_bit_grey_keeps_its_brightness():
    out = io.BytesIO()
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(out, "PNG")
    image = source.read(out.getvalue(), Recipe(), PLENTY).image
    assert [image.getpixel((x, 0)) for x in range(3)] == [0, 127, 255]


def test_a_flat_image_of_floats_does_not_divide_by_zero():
    out = io.BytesIO()
    Image.new("F", (2, 2), 0.5).save(out, "TIFF")
    assert source.read(out.getvalue(), Recipe(), PLENTY).image.mode == "L"


def test_an_image_on_its_side_is_measured_upright(picture):
    read = source.read(picture(exif=exif(6)), Recipe(), PLENTY)
    assert (read.orientation, read.upright, read.image.size) == (6, (48, 64), (64, 48))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_ignored(picture, value):
    assert source.read(picture(exif=exif(value)), KEEP, PLENTY).orientation == 1


def test_damaged_exif_data_is_ignored(picture):
    data = picture("WEBP", exif=b"Exif\0\0 neither byte order")
    read = source.read(data, KEEP, PLENTY)
    assert (read.orientation, read.size) == (1, (64, 48))


def test_exif_data_that_cannot_be_written_again_is_dropped(picture, monkeypatch):
    def fail(self, offset=8):
        raise struct.error

    data = picture(exif=exif(6, artist="A. Painter"))
    monkeypatch.setattr(Image.Exif, "tobytes", fail)
    assert source.read(data, KEEP, PLENTY).exif == b""


def test_exif_data_is_kept_on_demand_but_for_the_orientation(picture):
    data = picture(exif=exif(6, artist="A. Painter", camera="Camera"))
    kept = Image.Exif()
    kept.load(source.read(data, KEEP, PLENTY).exif)
    assert dict(kept) == {ARTIST: "A. Painter", CAMERA: "Camera"}


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_a_file_without_exif_data_has_none_to_keep(picture, format):
    assert source.read(picture(format), KEEP, PLENTY).exif == b""


def test_exif_data_that_no_jpeg_could_hold_is_dropped(picture):
    data = picture("WEBP", exif=exif(1, artist="x" * 70_000))
    assert source.read(data, KEEP, PLENTY).exif == b""


def test_a_jpeg_that_will_be_small_is_decoded_small(picture):
    data = picture(size=(1600, 1200), exif=exif(8))

    def decoded(width, **recipe):
        read = source.read(data, Recipe(width=width, **recipe), PLENTY)
        assert read.upright == (1200, 1600)
        return read.image.size

    assert decoded(100) == decoded(100, format="webp", quality=80) == (200, 150)
    assert decoded(300) == (400, 300)
    assert decoded(301) == (800, 600)
    assert decoded(601) == (1600, 1200)
    # What keeps the pixels gets better ones: twice as many a side, at least.
    for fine in (
        {"format": "png"},
        {"format": "webp", "quality": 95},
        {"format": "webp", "lossless": True},
    ):
        assert decoded(300, **fine) == (800, 600)


def test_cropping_decodes_enough_for_the_part_that_is_left(picture):
    wide = picture(size=(1600, 200))
    read = source.read(wide, Recipe(width=100, height=100, fit="cover"), PLENTY)
    assert read.image.size == (800, 100)  # though it all will be as wide as 100


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"Hello, I am a text.", "no known image"),
        (b"\0" * 1000, "no known image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a film"),
        (b"MZ\x90\0", "a program"),
        (b"P6 1 1 255 abc", "no known image"),
    ],
)
def test_what_is_not_an_accepted_image_is_called_by_its_name(data, name):
    problem = problem_of(data)
    assert problem.status == 415
    assert name in problem.detail


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"]
)
@pytest.mark.parametrize("share", [0.15, 0.6])
def test_a_file_that_is_cut_off_is_called_damaged(picture, format, share):
    data = picture(format, size=(200, 200))
    problem = problem_of(data[: int(len(data) * share)])
    assert problem.status == 422
    assert format in problem.detail


def test_a_bomb_is_refused_before_it_unfolds():
    bomb = png_of(8000, 8000)
    assert len(bomb) < 10_000
    problem = problem_of(bomb, max_pixels=50_000_000)
    assert problem.status == 422
    assert "64.0 megapixels; 50.0 are allowed" in problem.detail


def test_every_frame_of_an_animation_counts():
    frames = [Image.new("L", (100, 100), n) for n in range(10)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert "in 10 frames" in problem_of(out.getvalue(), max_pixels=99_999).detail
    assert source.read(out.getvalue(), Recipe(), 100_000).image.size == (100, 100)


def test_every_page_of_a_tiff_counts_with_its_own_size():
    pages = [Image.new("L", (100, 100)), Image.new("L", (200, 200))]
    out = io.BytesIO()
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    assert "in 2 frames" in problem_of(out.getvalue(), max_pixels=49_999).detail
    assert source.read(out.getvalue(), Recipe(), 50_000).image.size == (100, 100)


def test_a_tiff_of_endless_pages_is_refused():
    entries = b"".join(
        struct.pack("<HHII", *entry)
        for entry in [(256, 3, 1, 1), (257, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    )
    size = 2 + len(entries) + 4
    pages = [
        struct.pack("<H", 4) + entries + struct.pack("<I", 8 + size * (number + 1))
        for number in range(1100)
    ]
    problem = problem_of(b"II*\0" + struct.pack("<I", 8) + b"".join(pages))
    assert problem.status == 422
    assert "more than 1000 frames" in problem.detail


def test_an_image_without_pixels_is_refused():
    data = b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 0, 0, 0) + b"\x02\x00"
    assert problem_of(data + frame + b";").status == 422


def test_author_and_copyright_are_kept_in_any_case(picture):
    data = picture(exif=exif(6, artist="A. Painter", camera="Camera"))
    kept = Image.Exif()
    kept.load(source.read(data, Recipe(), PLENTY).exif)
    assert dict(kept) == {ARTIST: "A. Painter"}
    without = picture(exif=exif(6, camera="Camera"))
    assert source.read(without, Recipe(), PLENTY).exif == b""


def animation(frames, **how):
    out = io.BytesIO()
    images = [Image.new("L", (10, 10), n % 256) for n in range(frames)]
    images[0].save(out, "GIF", save_all=True, append_images=images[1:], **how)
    return out.getvalue()


def test_no_more_frames_are_decoded_than_wanted():
    data = animation(5, duration=40, loop=3)
    read = source.read(data, Recipe(frames=3), PLENTY)
    assert [duration for _, duration in read.more] == [40, 40]
    assert (read.duration, read.loop) == (40, 3)
    assert source.read(data, Recipe(), PLENTY).more is None
    assert source.read(animation(2), Recipe(frames=2), PLENTY).loop == 1


def test_a_later_frame_that_is_damaged_is_the_file_s_fault():
    data = animation(3)
    read = source.read(data[:-12], Recipe(frames=3), PLENTY)
    with pytest.raises(Problem, match="The GIF file is damaged"):
        list(read.more)


def test_an_animation_that_ends_early_is_as_long_as_it_is(picture, monkeypatch):
    def seek(self, frame):
        raise EOFError

    read = source.read(animation(3), Recipe(frames=3), PLENTY)
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "seek", seek)
    assert list(read.more) == []


def test_a_gif_of_endless_frames_is_refused():
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x4c\x01\0"
    data = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + 1100 * frame + b";"
    assert "more than 1000 frames" in problem_of(data).detail


@pytest.mark.parametrize("said", [-5, 10**9, "long", None])
def test_nonsense_about_an_animation_is_ignored(said):
    image = Image.new("L", (1, 1))
    image.info = {"duration": said, "loop": said}
    assert (source._duration(image), source._loop(image)) == (0, 0)


def test_an_icon_is_as_large_as_the_picture_in_it():
    bomb = png_of(8000, 8000)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(bomb), 22)
    problem = problem_of(b"\0\0\x01\0\x01\0" + entry + bomb, 1_000_000)
    assert (problem.status, problem.detail.count("64.0 megapixels")) == (422, 1)


@pytest.mark.parametrize("side", [1200, 8000])
def test_a_frame_that_is_larger_than_the_header_says_is_refused(side):
    frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0)
    data = animation(1)[:-1] + frame + b"\x02\x02\x4c\x01\0;"
    read = source.read(data, Recipe(frames=2), 1_000_000)
    with pytest.raises(Problem, match="more pixels than its header says; 1"):
        list(read.more)


def test_a_file_is_described_by_its_headers():
    out = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGBA", (40, 20)).save(out, "PNG", exif=exif(6), icc_profile=profile)
    size = len(out.getvalue())
    assert source.describe(out.getvalue(), PLENTY) == source.Summary(
        *("PNG", 20, 40, "RGBA", 1, 800, True, 6, "sRGB built-in", size)
    )
    assert source.describe(animation(7), PLENTY).frames == 7


def test_a_bomb_can_be_described():
    summary = source.describe(png_of(8000, 8000), PLENTY)
    assert summary.pixels == 64_000_000


def test_what_cannot_be_described_is_a_problem(picture):
    with pytest.raises(Problem, match="no known image"):
        source.describe(b"hello", PLENTY)
    assert source.describe(picture(icc_profile=b"nonsense"), PLENTY).icc == "damaged"
