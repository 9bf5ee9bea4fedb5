import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import PipelineError, UsageError
from pipeline.images.decoding.pictures import as_source, check_source

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


def test_what_a_png_cannot_hold_is_converted_without_the_profile_of_the_colours_before():
    picture = Image.fromarray(RGB).convert("CMYK")
    picture.info["icc_profile"] = b"of inks"
    with Image.open(io.BytesIO(as_source(picture))) as again:
        assert again.mode == "RGB" and "icc_profile" not in again.info
    assert picture.info["icc_profile"] == b"of inks" and picture.mode == "CMYK"
    for mode in ("F", "I", "HSV", "YCbCr", "LAB", "RGBX", "PA", "RGBa"):
        with Image.open(io.BytesIO(as_source(Image.new(mode, (3, 2))))) as again:
            assert again.size == (3, 2)


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
