"""The EXIF orientation is applied, and cannot cost the picture."""

import numpy as np
import pytest
from decoded import SHOWN, pixels
from PIL import Image


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_is_applied(picture, encode, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"subsampling": 0}}.get(kind, {})
    data = encode(picture, kind, exif=exif, **options)
    plain = pixels(encode(picture, kind, **options))
    assert np.array_equal(pixels(data), SHOWN[orientation](plain))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_that_does_not_exist_is_upright(picture, encode, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(pixels(encode(picture, kind, exif=exif)), pixels(encode(picture, kind)))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0junk", b"Exif\0\0MM\0*\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_cannot_be_read_does_not_cost_the_picture(picture, encode, kind, exif):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(
        pixels(encode(picture, kind, exif=exif, **options)),
        pixels(encode(picture, kind, **options)),
    )
