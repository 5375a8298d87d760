"""From source to result: size, colours, orientation, padding, and the file itself."""

from __future__ import annotations

import io
import pickle

import pytest
from PIL import Image, ImageCms

from offloop.demo import images
from offloop.demo.problems import Problem
from offloop.demo.recipe import FORMATS, Recipe
from offloop.demo.source import Source

PLENTY = 10_000_000
WHITE = (255, 255, 255)


def encode(data, **recipe):
    encoded = images.encode(data, Recipe(**recipe), PLENTY)
    image = Image.open(io.BytesIO(encoded.data))
    image.load()
    assert image.size == (encoded.width, encoded.height)
    return image


def render(image, icc=b"", orientation=1, **recipe):
    size = image.size[::-1] if orientation > 4 else image.size
    encoded = images.render(
        Source(image, size, orientation, icc=icc), Recipe(**recipe), PLENTY
    )
    return Image.open(io.BytesIO(encoded.data))


def near(pixel, wanted, by=6):
    return all(abs(a - b) <= by for a, b in zip(pixel, wanted, strict=True))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_every_format(picture, format, mode):
    source = picture("TIFF", mode=mode)
    image = encode(source, format=format, width=32)
    assert image.format == format.upper()
    assert image.size == (32, 24)


@pytest.mark.parametrize(
    ("source", "result"),
    [("JPEG", "JPEG"), ("WEBP", "WEBP"), ("GIF", "GIF"), ("BMP", "PNG")],
)
def test_without_a_wish_the_format_stays(picture, source, result):
    assert encode(picture(source)).format == result


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_quality_is_paid_in_bytes(picture, format):
    sizes = [
        len(images.encode(picture(), Recipe(format, quality), PLENTY).data)
        for quality in (10, None, 95)
    ]
    assert sizes == sorted(set(sizes))


def test_lossless_formats_take_any_quality(picture):
    assert encode(picture("PNG"), format="png", quality=1).format == "PNG"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_result_is_upright(orientation):
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste("red", (0, 0, 10, 10))  # the top left corner
    # How a camera would have stored it: the inverse of what puts it right.
    turn = images._TURNS.get(orientation)
    inverse = {6: images._TURNS[8], 8: images._TURNS[6]}.get(orientation, turn)
    stored = upright if inverse is None else upright.transpose(inverse)
    result = render(stored, orientation=orientation, format="png")
    assert result.tobytes() == upright.tobytes()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_format_says_in_its_own_way_how_it_lies(format):
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste("red", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    upright.transpose(images._TURNS[8]).save(file, format, exif=exif)
    result = encode(file.getvalue(), format="png")
    assert result.size == (40, 20)
    assert near(result.getpixel((2, 2)), (255, 0, 0), by=20)
    assert near(result.getpixel((35, 2)), WHITE, by=20)


def test_a_cropped_image_on_its_side_is_cropped_upright():
    stored = Image.new("RGB", (60, 20), "blue")
    result = render(
        stored, orientation=6, format="png", width=20, height=20, fit="cover"
    )
    assert (result.size, result.getpixel((10, 10))) == ((20, 20), (0, 0, 255))


def test_cover_keeps_the_middle():
    image = Image.new("RGB", (60, 20), "red")
    image.paste("lime", (20, 0, 40, 20))
    result = render(image, format="png", width=20, height=20, fit="cover")
    assert result.getcolors() == [(400, (0, 255, 0))]


def test_a_shrunk_source_is_cropped_in_its_own_pixels():
    image = Image.new("RGB", (30, 10), "red")  # stands for a file of 60x20
    image.paste("lime", (10, 0, 20, 10))
    recipe = Recipe("png", width=10, height=10, fit="cover")
    encoded = images.render(Source(image, (60, 20)), recipe, PLENTY)
    result = Image.open(io.BytesIO(encoded.data))
    assert result.getcolors() == [(100, (0, 255, 0))]
    assert encoded.source == (60, 20)


def test_contain_pads_with_white_or_nothing():
    grey = Image.new("L", (40, 20), 0)
    padded = render(grey, format="png", width=40, height=40, fit="contain")
    assert (padded.getpixel((0, 0)), padded.getpixel((20, 20))) == (255, 0)
    clear = Image.new("RGBA", (40, 20), "black")
    padded = render(clear, format="png", width=40, height=40, fit="contain")
    assert padded.getpixel((0, 0)) == (255, 255, 255, 0)
    assert padded.getpixel((20, 20)) == (0, 0, 0, 255)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_jpeg_shows_white_where_the_source_was_transparent(mode):
    clear = Image.new(mode, (16, 16))
    result = render(clear, format="jpeg").convert("RGB")
    assert near(result.getpixel((8, 8)), WHITE)


@pytest.mark.parametrize("format", ["png", "webp", "avif", "gif", "tiff"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_other_formats_stay_transparent(format, mode):
    clear = Image.new(mode, (16, 16))
    result = render(clear, format=format).convert("RGBA")
    assert result.getpixel((8, 8))[3] == 0


def profile(name):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def swapped_profile():
    """The bytes of an sRGB profile whose red and blue are exchanged."""
    data = bytearray(profile("sRGB"))
    red, blue = data.index(b"rXYZ", 128), data.index(b"bXYZ", 128)
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data).replace(b"s\0R\0G\0B", b"t\0R\0G\0B")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_converted_by_the_profile(mode):
    red = Image.new(mode, (8, 8), "red")
    result = render(red, icc=swapped_profile(), format="png")
    assert near(result.getpixel((0, 0))[:3], (0, 0, 255))
    assert result.mode == mode
    assert "icc_profile" not in result.info


@pytest.mark.parametrize(
    "icc",
    [b"not a profile", profile("sRGB"), profile("LAB")],
    ids=["bad", "srgb", "lab"],
)
def test_a_profile_that_says_nothing_new_or_wrong_things_changes_nothing(icc):
    red = Image.new("RGB", (8, 8), "red")
    assert render(red, icc=icc, format="png").getpixel((0, 0)) == (255, 0, 0)


def test_grey_stays_grey_and_its_alpha_stays():
    grey = Image.new("LA", (8, 8), (9, 7))
    result = render(grey, icc=swapped_profile(), format="png")
    assert (result.mode, result.getpixel((0, 0))) == ("LA", (9, 7))


def test_a_grey_profile_is_applied():
    # Linear light: what it calls 55 is a bright 128 in sRGB.
    data = bytearray(LINEAR_GREY)
    grey = Image.new("L", (8, 8), 55)
    result = render(grey, icc=bytes(data), format="png")
    assert result.mode == "L"
    assert near([result.getpixel((0, 0))], [128])


def grey_profile():
    """The smallest ICC profile of linear grey that the library takes."""
    white = b"XYZ \0\0\0\0" + bytes.fromhex("0000f6d6000100000000d32d")
    curve = b"curv\0\0\0\0\0\0\0\0"
    tags = [(b"wtpt", white), (b"kTRC", curve)]
    offset = 128 + 4 + 12 * len(tags)
    table, body = len(tags).to_bytes(4, "big"), b""
    for name, data in tags:
        place = (offset + len(body)).to_bytes(4, "big")
        table += name + place + len(data).to_bytes(4, "big")
        body += data
    size = (offset + len(body)).to_bytes(4, "big")
    header = size + b"lcms" + bytes.fromhex("02400000") + b"mntrGRAYXYZ "
    header += bytes(12) + b"acsp" + bytes(28)
    header += bytes.fromhex("0000f6d6000100000000d32d")
    return header.ljust(128, b"\0") + table + body


LINEAR_GREY = grey_profile()


def test_metadata_stays_behind_unless_it_is_asked_for(picture):
    exif = Image.Exif()
    exif[0x013B] = "A. Painter"
    source = picture(exif=exif.tobytes(), comment=b"secret", dpi=(300, 300))
    for format in FORMATS:
        bare = encode(source, format=format)
        assert not bare.info.keys() & {"exif", "comment", "icc_profile", "xmp"}
        kept = encode(source, format=format, strip=False)
        expected = format in ("jpeg", "png", "webp", "avif")
        assert (kept.getexif().get(0x013B) == "A. Painter") == expected


def test_a_result_beyond_the_limit_is_refused_before_anything_is_decoded_to_it():
    line = Image.new("L", (1, 2000))
    with pytest.raises(Problem, match="8192x16384000 pixels") as refused:
        render(line, format="png", width=8192, height=1, fit="outside")
    assert refused.value.status == 422


@pytest.mark.parametrize(("format", "longest"), [("webp", 16_383), ("jpeg", 65_500)])
def test_a_side_beyond_the_format_is_refused(format, longest):
    with pytest.raises(Problem, match=f"{format} ends at {longest}"):
        render(Image.new("L", (longest + 1, 1)), format=format)
    assert render(Image.new("L", (longest, 1)), format=format).width == longest


def test_a_format_that_pillow_was_built_without_is_refused(picture, monkeypatch):
    monkeypatch.delitem(Image.SAVE, "AVIF")
    with pytest.raises(Problem, match="cannot write avif") as refused:
        encode(picture(), format="avif")
    assert (refused.value.status, refused.value.param) == (400, "format")


def test_a_result_travels_and_tells_how_long_each_step_took(picture):
    encoded = images.encode(picture(), Recipe("webp"), PLENTY)
    assert pickle.loads(pickle.dumps(encoded)) == encoded
    assert min(encoded.decode, encoded.encode) > 0
    assert (
        images.render(Source(Image.new("L", (1, 1)), (1, 1)), Recipe(), 1).decode == 0
    )
