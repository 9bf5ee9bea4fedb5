import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from decoded import decode, pixels, reason
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from profiles import camera_exif, cmyk_profile

from pipeline.errors import PipelineError, UsageError
from pipeline.images.decoding.decode import picture as decoded
from pipeline.images.decoding.modes import BEYOND_ONE, NO_RANGE
from pipeline.images.decoding.pictures import as_source, check_source
from pipeline.images.decoding.quiet import quiet

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (9, 7, 3), np.uint8)


def test_paths_stay_paths_and_bytes_of_files_stay_bytes():
    assert as_source("a.jpg") == as_source(Path("a.jpg")) == as_source(np.str_("a.jpg")) == "a.jpg"
    for data in (b"x", bytearray(b"x"), memoryview(b"x"), io.BytesIO(b"x")):
        assert as_source(data) == b"x"
    with pytest.raises(UsageError, match="not a file that is open for text"):
        as_source(io.StringIO("x"))


@pytest.mark.parametrize("as_given", [np.asarray, torch.tensor, Image.fromarray, np.asfortranarray])
def test_a_picture_in_memory_keeps_its_pixels(as_given):
    with Image.open(io.BytesIO(as_source(as_given(RGB)))) as picture:
        assert (np.asarray(picture) == RGB).all()
    grey = RGB[..., 0].copy()
    with Image.open(io.BytesIO(as_source(as_given(grey)))) as picture:
        assert picture.mode == "L" and (np.asarray(picture) == grey).all()


def test_arrays_of_one_channel_with_transparency_and_of_16_bits():
    with Image.open(io.BytesIO(as_source(RGB[..., :1]))) as picture:
        assert (np.asarray(picture) == RGB[..., 0]).all()
    four = np.dstack([RGB, RGB[..., :1]])
    with Image.open(io.BytesIO(as_source(four))) as picture:
        assert picture.mode == "RGBA" and (np.asarray(picture) == four).all()
    deep = RGB[..., 0].astype(np.uint16) * 257
    with Image.open(io.BytesIO(as_source(deep))) as picture:
        assert (np.asarray(picture) == deep).all()


def test_a_pil_image_is_brought_upright_as_its_file_would_be():
    picture = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as opened, Image.open(io.BytesIO(as_source(opened))) as again:
        assert again.size == (9, 7) and not again.getexif().get(0x0112)


def of(mode):
    """Return a picture in memory, 9×7 pixels of noise with transparency, in a mode."""
    alpha = np.random.default_rng(1).integers(0, 256, (9, 7), np.uint8)
    clear = Image.fromarray(np.dstack([RGB, alpha]))
    deep = np.random.default_rng(2).integers(0, 65536, (9, 7), np.uint16)
    if mode == "F":
        return Image.fromarray(alpha.astype(np.float32) / 255)
    if mode == "I;16":
        return Image.fromarray(deep)
    if mode == "I;16B":
        return Image.frombytes(mode, (7, 9), (65535 - deep).astype(">u2").tobytes())
    if mode == "PA":
        return clear.quantize(20).convert("PA")
    if mode.startswith("P "):
        few = Image.fromarray(RGB).quantize(20)
        few.info["transparency"] = 3 if mode == "P key" else bytes(range(0, 200, 10))
        return few
    if mode in ("LA", "La"):
        grey = Image.fromarray(RGB[..., int(mode == "La")].copy())
        return Image.merge("LA", [grey, Image.fromarray(alpha)]).convert(mode)
    return (clear if mode == "RGBa" else Image.fromarray(RGB)).convert(mode)


#: Mode → the format that holds it, and the mode that it has there.
HELD = {
    "F": ("TIFF", "F"),
    "I;16": ("TIFF", "I;16"),
    "I;16B": ("TIFF", "I;16B"),
    "CMYK": ("TIFF", "CMYK"),
    "LAB": ("TIFF", "LAB"),
    "YCbCr": ("PNG", "RGB"),
    "LA": ("PNG", "LA"),
    "P key": ("PNG", "P"),
    "P keys": ("PNG", "P"),
    "La": ("PNG", "LA"),
    "RGBa": ("PNG", "RGBA"),
    "PA": ("PNG", "RGBA"),
    "HSV": ("PNG", "RGB"),
}


@pytest.mark.parametrize("mode", HELD)
def test_a_mode_decodes_as_a_file_that_holds_it(encode, mode):
    image = of(mode)
    kind, there = HELD[mode]
    before = image.mode, image.info.copy(), image.tobytes()
    held = image if image.mode == there else image.convert(there)
    with quiet():
        found = decoded(as_source(image))
        want = decoded(encode(held, kind))
    assert torch.equal(found.pixels, want.pixels) and found.remarks == want.remarks == ()
    assert (image.mode, image.info, image.tobytes()) == before


def test_modes_differ_so_that_the_test_before_can_fail():
    shown = {mode: decode(as_source(of(mode))).numpy().tobytes() for mode in HELD}
    assert len({*shown.values()}) >= len(HELD) - 2  # conversions of one picture may agree


@pytest.mark.parametrize("largest", [200, 100_000])
def test_32_bit_integers_are_refused_as_in_a_file(largest):
    assert reason(as_source(Image.fromarray(np.full((9, 7), largest, np.int32)))) == NO_RANGE


def test_floats_beyond_one_are_refused_as_in_a_file():
    assert reason(as_source(Image.new("F", (3, 2), 2.0))) == BEYOND_ONE


def test_the_profile_of_inks_counts_as_in_a_file(encode):
    inks = Image.fromarray(RGB).convert("CMYK")
    inks.info["icc_profile"] = cmyk_profile()
    found = pixels(as_source(inks))
    assert np.array_equal(found, pixels(encode(inks, "TIFF", icc_profile=cmyk_profile())))
    del inks.info["icc_profile"]
    assert not np.array_equal(found, pixels(as_source(inks)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_a_cameras_exif_says_of_colours_counts_as_in_its_file(encode, kind):
    data = encode(Image.fromarray(RGB), kind, exif=camera_exif())
    with Image.open(io.BytesIO(data)) as image, quiet():
        assert np.array_equal(pixels(as_source(image)), pixels(data))
        assert decoded(as_source(image)).remarks == decoded(data).remarks
    plain = pixels(encode(Image.fromarray(RGB), kind))
    assert np.array_equal(pixels(data), plain) == (kind == "PNG")


@pytest.mark.parametrize("junk", [b"junk", b"II+\0\x08\0\0\0\x10\0\0\0"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_junk_exif_of_a_pil_image_is_ignored_and_told(encode, kind, junk):
    data = encode(Image.fromarray(RGB), kind, exif=b"Exif\0\0" + junk)
    with Image.open(io.BytesIO(data)) as image, quiet():
        found = decoded(as_source(image))
        assert torch.equal(found.pixels, decoded(data).pixels)
    assert found.remarks == ("Orientation ignored (EXIF that cannot be read)",)


def test_a_colour_space_in_exif_that_cannot_be_read_is_told_of_a_pil_image(encode):
    data = encode(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0junk R03\0")
    with Image.open(io.BytesIO(data)) as image, quiet():
        found = decoded(as_source(image))
        assert found.remarks == decoded(data).remarks
    what = "Colour space ignored", "Orientation ignored"
    assert found.remarks == tuple(f"{one} (EXIF that cannot be read)" for one in what)


def test_a_tiff_that_pillow_has_turned_is_not_turned_again(encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(RGB), "TIFF", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels(as_source(image)), pixels(data))
    assert pixels(data).shape == (7, 9, 3)


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (RGB / 255, "not float64 [9, 7, 3]. Scale its values to 0 to 255"),
        (torch.zeros(3, 4, 5), "not float32 [3, 4, 5]. Its channels come first"),
        (RGB.transpose(2, 0, 1), "not uint8 [3, 9, 7]. Its channels come first"),
        (RGB.astype(np.int64), "not int64 [9, 7, 3]."),
        (RGB[None], "not uint8 [1, 9, 7, 3]."),
        (RGB[:0], "not uint8 [0, 7, 3]. It has no pixels."),
        (RGB[..., :2], "not uint8 [9, 7, 2]."),
        (np.zeros(3, np.uint8), "not uint8 [3]."),
        (3, "not 3."),
        (None, "not None."),
        ({"a": 1}, "not {'a': 1}."),
        (object(), "not an object of type object."),
    ],
)
def test_what_is_no_image_is_refused_with_what_is(item, why):
    with pytest.raises(UsageError) as caught:
        check_source(item)
    assert str(caught.value).startswith("An image is a path, a file or its bytes, a PIL image, or ")
    assert why in str(caught.value)
    with pytest.raises(UsageError):
        as_source(item)


def test_a_pil_image_of_a_damaged_file_is_a_sentence():
    buffer = io.BytesIO()
    Image.fromarray(RGB).resize((90, 90)).save(buffer, "JPEG")
    picture = Image.open(io.BytesIO(buffer.getvalue()[:800]))
    with pytest.raises(PipelineError, match="A PIL image cannot be read: "):
        as_source(picture)


def test_a_picture_of_a_lossy_tiff_is_not_compressed_again(encode):
    smooth = np.cumsum(RNG.integers(0, 3, (48, 56, 4)), 1).astype(np.uint8)
    data = encode(Image.fromarray(smooth, "CMYK"), "TIFF", compression="jpeg")
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["compression"] == "jpeg"
        assert np.array_equal(pixels(as_source(image)), pixels(data))


@pytest.mark.parametrize("change", [Image.Image.copy, lambda image: image.convert("RGB")])
def test_what_is_made_of_a_cameras_picture_keeps_its_colour_space(encode, change):
    data = encode(Image.fromarray(RGB), "JPEG", exif=camera_exif())
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels(as_source(change(image))), pixels(data))


def test_the_gamma_of_a_png_counts_as_in_its_file(encode):
    chunks = PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", 100_000))
    data = encode(Image.fromarray(RGB), "PNG", pnginfo=chunks)
    with Image.open(io.BytesIO(data)) as image, quiet():
        assert np.array_equal(pixels(as_source(image)), pixels(data))
        assert decoded(as_source(image)).remarks == decoded(data).remarks
    assert not np.array_equal(pixels(data), pixels(encode(Image.fromarray(RGB), "PNG")))
