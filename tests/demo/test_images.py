"""From source to result: size, colours, orientation, padding, and the file itself."""

from __future__ import annotations

import io
import itertools
import pickle
import time

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageStat

from offloop.demo import images, samples, writers
from offloop.demo.accept import Accepted
from offloop.demo.arrange import TURNS
from offloop.demo.problems import Problem
from offloop.demo.recipe import Recipe
from offloop.demo.source import Source

WRITES = writers.writable()
PLENTY = 10_000_000
WHITE = (255, 255, 255)


def encode(data, **recipe):
    encoded = images.encode(data, Recipe(**recipe), PLENTY)
    image = Image.open(io.BytesIO(encoded.data))
    image.load()
    assert image.size == (encoded.width, encoded.height)
    return image


def render(image, icc=b"", orientation=1, icc_="srgb", **recipe):
    recipe["icc"] = icc_
    source = Source(image, image.size, orientation, icc=icc)
    encoded = images.render(source, Recipe(**recipe), PLENTY)
    return Image.open(io.BytesIO(encoded.data))


def near(pixel, wanted, by=6):
    return all(abs(a - b) <= by for a, b in zip(pixel, wanted, strict=True))


@pytest.mark.parametrize("format", WRITES)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_every_format(picture, format, mode):
    source = picture("TIFF", mode=mode)
    image = encode(source, format=format, width=32)
    assert image.format == writers._NAMES[format]
    assert image.size == (32, 24)


@pytest.mark.parametrize(
    ("source", "result"),
    [("JPEG", "JPEG"), ("WEBP", "WEBP"), ("GIF", "GIF"), ("BMP", "JPEG")],
)
def test_without_a_wish_the_format_stays(picture, source, result):
    assert encode(picture(source)).format == result


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif", "jp2"])
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
    turn = TURNS.get(orientation)
    inverse = {6: TURNS[8], 8: TURNS[6]}.get(orientation, turn)
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
    upright.transpose(TURNS[8]).save(file, format, exif=exif)
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


@pytest.mark.parametrize("format", sorted({*WRITES} - {"jpeg"}))
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
    exif[0x010F] = "Camera"
    exif[0x013B] = "A. Painter"
    source = picture(exif=exif.tobytes(), comment=b"secret", dpi=(300, 300))
    for format in WRITES:
        bare = encode(source, format=format)
        assert "xmp" not in bare.info
        # A JPEG XL says how its colours are meant; its decoder tells it as a profile.
        assert "icc_profile" not in bare.info or format == "jxl"
        assert b"secret" not in bare.info.get("comment", b"")
        kept = encode(source, format=format, strip=False)
        can_hold = format in ("jpeg", "png", "webp", "avif", "heic", "jxl")
        for tag, there in [(0x010F, can_hold), (0x013B, can_hold)]:
            assert (tag in kept.getexif()) == there or format == "tiff"
        assert 0x010F not in bare.getexif()
        assert (bare.getexif().get(0x013B) == "A. Painter") == can_hold


def test_a_result_beyond_the_limit_is_refused_before_anything_is_decoded_to_it():
    line = Image.new("L", (1, 2000))
    with pytest.raises(Problem, match="8192x16384000 pixels") as refused:
        render(line, format="png", width=8192, height=1, fit="outside", enlarge=True)
    assert refused.value.status == 422


def test_a_side_beyond_the_limit_is_refused():
    with pytest.raises(Problem, match="8193x1; 8192 pixels a side are allowed"):
        render(Image.new("L", (8193, 1)), format="png")
    assert render(Image.new("L", (8192, 1)), format="webp").width == 8192


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


# --- what else can be asked for -------------------------------------------------------


def two_halves(size=(40, 20)):
    """A picture whose left is red and whose right is blue."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    return image


def test_it_is_turned_before_it_is_scaled():
    result = render(two_halves(), format="png", rotate=90, width=10)
    assert result.size == (10, 20)
    assert near(result.getpixel((5, 2)), (255, 0, 0))  # the left is the top now
    result = render(two_halves(), format="png", flop=True)
    assert result.getpixel((2, 2)) == (0, 0, 255)


def test_a_part_is_cut_out_where_people_see_it():
    stored = two_halves().transpose(TURNS[8])
    result = render(stored, orientation=6, format="png", crop=(25, 3, 10, 9))
    assert (result.size, result.getcolors()) == ((10, 9), [(90, (0, 0, 255))])


@pytest.mark.parametrize("orientation", [1, 6])
def test_attention_goes_to_the_detail(orientation):
    picture = Image.new("RGB", (300, 100), "grey")
    noise = Image.effect_noise((80, 80), 90).convert("RGB")
    picture.paste(noise, (210, 10))
    stored = picture if orientation == 1 else picture.transpose(TURNS[8])
    how = {"format": "png", "width": 100, "height": 100, "fit": "cover"}
    found = render(stored, orientation=orientation, gravity="attention", **how)
    assert ImageStat.Stat(found.convert("L")).stddev[0] > 40
    middle = render(stored, orientation=orientation, **how)
    assert ImageStat.Stat(middle.convert("L")).stddev[0] < 5


def test_a_plain_picture_is_cut_in_its_middle():
    picture = Image.new("RGB", (300, 100), "grey")
    picture.paste("red", (100, 0, 200, 100))
    how = {"format": "png", "width": 1, "height": 100, "fit": "cover"}
    assert render(picture.convert("L"), gravity="attention", **how).width == 1
    narrow = render(Image.new("RGB", (9, 9)), gravity="attention", **how)
    assert narrow.size == (1, 100)


def test_colours_can_be_dropped():
    assert render(two_halves(), format="png", grayscale=True).mode == "L"
    clear = Image.new("RGBA", (9, 9), (255, 0, 0, 9))
    assert render(clear, format="png", grayscale=True).mode == "LA"


def edge_of(image):
    """How steep the step from red to blue is."""
    line = [image.getpixel((x, 10))[0] for x in range(image.width)]
    return max(abs(a - b) for a, b in itertools.pairwise(line))


def test_edges_can_be_made_softer_and_harder():
    plain = edge_of(render(two_halves(), format="png"))
    soft = render(two_halves(), format="png", blur=3)
    assert edge_of(soft) < plain / 2
    assert edge_of(render(soft, format="png", sharpen=5)) > edge_of(soft)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("colour", [(10, 10, 10), (255, 128, 0)])
def test_a_background_lies_behind_padding_and_holes(mode, colour):
    clear = Image.new(mode, (40, 20))
    if mode[-1] == "A":
        clear.putalpha(0)
    result = render(
        clear, format="png", width=40, height=40, fit="contain", background=colour
    ).convert("RGB")
    assert result.getpixel((0, 0)) == colour
    assert result.getpixel((20, 20)) == (colour if mode[-1] == "A" else (0, 0, 0))


def test_colours_may_stay_as_they_are_with_their_profile():
    red = Image.new("RGB", (8, 8), "red")
    kept = render(red, icc=swapped_profile(), icc_="keep", format="png")
    assert kept.getpixel((0, 0)) == (255, 0, 0)
    assert kept.info["icc_profile"] == swapped_profile()
    bare = render(red, icc=swapped_profile(), icc_="keep", format="png", grayscale=True)
    assert "icc_profile" not in bare.info


def test_steps_are_done_one_after_the_other():
    steps = (Recipe(crop=(10, 0, 20, 20)), Recipe(width=10), Recipe(rotate=90))
    result = render(two_halves(), format="png", before=steps)
    assert result.size == (10, 10)
    assert near(result.getpixel((5, 1)), (255, 0, 0))
    assert near(result.getpixel((5, 8)), (0, 0, 255))


def test_a_step_that_would_be_too_large_is_refused_before_any_is_done():
    steps = (Recipe(width=8000, height=8000, fit="fill"), Recipe(width=10))
    with pytest.raises(Problem, match="8000x8000") as refused:
        render(two_halves(), before=steps)
    assert refused.value.status == 422


@pytest.mark.parametrize("format", ["webp", "gif", "png", "avif"])
@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations_move_on(source, format):
    data = film(source, ["red", "lime", "blue"])
    result = encode(data, format=format, width=10, frames=100)
    assert (result.n_frames, result.size) == (3, (10, 5))
    result.seek(2)
    assert near(result.convert("RGB").getpixel((5, 2)), (0, 0, 255), by=20)
    result.load()
    assert result.info["duration"] == 70
    assert encode(data, format=format, frames=2).n_frames == 2
    assert getattr(encode(data, format=format), "n_frames", 1) == 1


def film(format, colours, **how):
    frames = [Image.new("RGB", (40, 20), colour) for colour in colours]
    out = io.BytesIO()
    how = {"save_all": True, "append_images": frames[1:], "duration": 70, **how}
    frames[0].save(out, format, **how)
    return out.getvalue()


def test_a_format_that_cannot_move_gets_the_first_frame():
    result = encode(film("GIF", ["red", "blue"]), format="jpeg", frames=100)
    assert near(result.getpixel((5, 5)), (255, 0, 0), by=20)


def test_the_format_is_one_that_the_client_takes(picture):
    takes = Accepted(("avif", "webp"), ("jpeg",))
    assert encode(picture(), accepted=takes).format == "AVIF"
    still = encode(film("GIF", ["red", "blue"]), accepted=takes)
    assert still.format == "AVIF"
    moving = encode(film("GIF", ["red", "blue"]), accepted=takes, frames=9)
    assert moving.format == "WEBP"


def test_the_likeness_is_measured_on_demand(picture):
    good, poor = (
        images.encode(picture(), Recipe("jpeg", quality, measure=True), PLENTY).likeness
        for quality in (95, 5)
    )
    assert good[0] > poor[0] > 10
    assert 1 > good[1] > poor[1] > 0
    assert images.encode(picture(), Recipe(), PLENTY).likeness is None


@pytest.mark.slow
def test_decoding_small_costs_nothing_that_a_lossy_file_could_show():
    recipe = Recipe("jpeg", quality=85)
    photo = images.render(samples.draw("photo"), recipe, PLENTY).data
    whole = Image.open(io.BytesIO(photo)).resize((400, 300), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    whole.save(out, "WEBP", quality=80, method=4)

    def likeness(data):
        made = Image.open(io.BytesIO(data)).convert("RGB")
        error = np.asarray(made, float) - np.asarray(whole, float)
        return 10 * np.log10(255**2 / (error**2).mean())

    small = images.encode(photo, Recipe("webp", quality=80, width=400), PLENTY).data
    assert likeness(small) > 38
    assert likeness(small) > likeness(out.getvalue()) - 0.3
    fine = images.encode(photo, Recipe("png", width=400), PLENTY).data
    assert likeness(fine) > 50


@pytest.mark.slow
@pytest.mark.parametrize("format", [name for name in ("avif", "jxl") if name in WRITES])
def test_an_encoder_has_one_core(format):
    # Processor time beyond the wall's would be that of a second thread. One thread
    # has the wall's at most, however busy the machine is.
    picture = samples.draw("photo")
    wall, used = time.perf_counter(), time.process_time()
    images.render(picture, Recipe(format, width=700, speed=8), PLENTY)
    wall, used = time.perf_counter() - wall, time.process_time() - used
    assert used <= 1.1 * wall


@pytest.mark.parametrize("source", ["WEBP", "PNG"])
def test_an_animation_on_its_side_does_not_crash_the_avif_encoder(source):
    # Pillow 13.0.0 does, if it is given the orientation along with further frames.
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x013B] = "A. Painter"
    frames = [Image.new("RGB", (40, 20), (80 * n, 0, 0)) for n in range(3)]
    out = io.BytesIO()
    how = {"save_all": True, "append_images": frames[1:], "exif": exif.tobytes()}
    frames[0].save(out, source, **how)
    result = encode(out.getvalue(), format="avif", frames=9, strip=False)
    assert (result.size, result.n_frames) == ((20, 40), 3)
    assert result.getexif()[0x013B] == "A. Painter"
