"""EXIF that cannot be read costs no picture: it is ignored alike on every way, and told."""

import io
import struct

import numpy as np
import pytest
import torch
from decoded import decode, pixels
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from pipeline.images.decoding import decode as module
from pipeline.images.decoding.headers import exif_orientation
from pipeline.images.decoding.quiet import quiet

IGNORED = "Orientation ignored (EXIF that cannot be read)"


def block(kind=3, count=1, value=struct.pack("<HH", 6, 0), order="<"):
    """Return EXIF of one tag, the orientation."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHI", 0x0112, kind, count) + value
    return head + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


READ = {
    "short": (block(), 6),
    "of the other byte order": (block(value=struct.pack(">HH", 6, 0), order=">"), 6),
    "long": (block(4, value=struct.pack("<I", 8)), 8),
    "two shorts": (block(count=2, value=struct.pack("<HH", 3, 1)), 3),
    "without an end": (block()[:-4], 6),
    "nothing said": (block(value=bytes(4)), 1),
    "no such tag": (b"II*\0" + struct.pack("<IH", 8, 0) + bytes(4), 1),
    "none": (b"", 1),
}
JUNK = {
    "no header": b"junk",
    "an offset beyond the end": b"MM\0*\xff\xff\xff\xff",
    "cut": block()[:16],
    "BigTIFF": b"II+\0\x08\0\0\0\x10" + bytes(7),
    "a byte": block(1, value=b"\6\0\0\0"),
    "of no type": block(7, value=b"\6\0\0\0"),
    "an unknown type": block(99),
    "text": block(2, 2, b"6\0\0\0"),
    "a fraction": block(5, value=struct.pack("<I", 8)),
    "floating point": block(11, value=struct.pack("<f", 6)),
    "no value": block(count=0),
    "a count beyond the end": block(count=0x7FFFFFFF),
    "nine": block(value=struct.pack("<HH", 9, 0)),
}


@pytest.mark.parametrize("name", READ)
def test_an_orientation_is_read(name):
    exif, orientation = READ[name]
    assert exif_orientation(exif) == orientation


@pytest.mark.parametrize("name", JUNK)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_junk_is_ignored_and_told_at_every_size(picture, encode, kind, name):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(picture, kind, exif=b"Exif\0\0" + JUNK[name], **options)
    plain = encode(picture, kind, **options)
    for least in (None, 20):
        with quiet():
            found = module.picture(data, least=least)
        assert torch.equal(found.pixels, decode(plain, least=least))
        assert found.remarks == (IGNORED,)


def test_junk_in_a_png_of_imagemagick_is_ignored_and_told(picture, encode):
    texts = PngInfo()
    texts.add_text("Raw profile type exif", "\nexif\n 4\nno hex\n")
    with quiet():
        found = module.picture(encode(picture, "PNG", pnginfo=texts))
    assert found.remarks == (IGNORED,)
    assert np.array_equal(found.pixels.permute(1, 2, 0).numpy(), picture)


@pytest.mark.parametrize("head", [b"junk", b"II+\0\x08\0\0\0\x10" + bytes(7)])
def test_junk_that_looks_like_a_colour_space_ends_no_run(picture, encode, head):
    data = encode(picture, "JPEG", exif=b"Exif\0\0" + head + b"R03\0")
    with quiet():
        found = module.picture(data)
    assert torch.equal(found.pixels, decode(encode(picture, "JPEG")))
    assert found.remarks == ("Colour space ignored (EXIF that cannot be read)", IGNORED)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("junk", [b"junk", b"MM\xff\xff"])
def test_junk_in_avif_costs_no_picture(picture, encode, junk):
    text = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x010E, 2, 40, 26) + bytes(4) + b"x" * 40
    data = encode(picture, "AVIF", exif=b"Exif\0\0" + text)
    whole = pixels(data)
    at = data.index(text[:26])
    assert np.array_equal(pixels(data[:at] + junk + data[at + len(junk) :]), whole)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_of_xmp_counts_at_no_size(picture, encode, kind):
    xmp = '<rdf:Description tiff:Orientation="6"/>'
    options = {"lossless": True} if kind == "WEBP" else {}
    plain, told = encode(picture, kind, **options), {"xmp": xmp.encode()}
    if kind == "PNG":
        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", xmp)
        told = {"pnginfo": texts}
    if kind == "TIFF":
        told = {"tiffinfo": {700: xmp.encode()}}
    data = encode(picture, kind, **options, **told)
    assert xmp.encode() in data
    for least in (None, 20):
        assert torch.equal(decode(data, least=least), decode(plain, least=least))


def test_the_pixels_of_a_turned_jpeg_have_their_channels_last(picture, encode):
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        found = decode(encode(picture, "JPEG", exif=exif))
        assert found.permute(1, 2, 0).is_contiguous(), orientation
        with Image.open(io.BytesIO(encode(picture, "JPEG", exif=exif))) as image:
            assert image.getexif()[0x0112] == orientation
