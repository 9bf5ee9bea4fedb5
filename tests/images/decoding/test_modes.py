"""Depths, transparency and palettes become RGB of eight bits."""

import struct

import numpy as np
import pytest
from decoded import pixels, png, reason
from PIL import Image

# Sixteen bits and more


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(encode, kind):
    samples = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    assert np.array_equal(pixels(encode(samples, kind))[..., 1], samples >> 8)


def test_sixteen_bit_grey_of_the_other_byte_order_is_the_same(encode):
    samples = np.arange(0, 65536, 32, dtype=np.uint16).reshape(32, 64)
    image = Image.frombytes("I;16B", (64, 32), samples.astype(">u2").tobytes())
    assert np.array_equal(pixels(encode(image, "TIFF"))[..., 0], samples >> 8)


def test_sixteen_bit_grey_where_zero_is_white_is_inverted(encode):
    samples = np.arange(0, 65536, 32, dtype=np.uint16).reshape(32, 64)
    data = encode(samples, "TIFF", tiffinfo={262: 0})
    assert np.array_equal(pixels(data)[..., 0], 255 - (samples >> 8))


def test_sixteen_bit_colour_takes_the_high_byte():
    samples = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in samples)
    assert np.array_equal(pixels(png(raw, size=(7, 5), depth=16, colour=2)), samples >> 8)


def test_floating_point_from_0_to_1_is_scaled(encode):
    samples = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(pixels(encode(samples, "TIFF"))[..., 2].ravel(), np.arange(256))


@pytest.mark.parametrize("value", [-0.1, 1.5, 255, np.nan, np.inf])
def test_floating_point_of_another_range_is_refused(encode, value):
    samples = np.array([[0.5, value]], np.float32)
    assert reason(encode(samples, "TIFF")) == "floating point samples outside 0 to 1"


def test_integers_without_an_agreed_range_are_refused(encode):
    samples = np.array([[0, 70_000]], np.int32)
    assert reason(encode(samples, "TIFF")) == (
        "signed or 32-bit integer samples, which have no agreed range"
    )


# Transparency


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_transparency_is_composited_on_white(picture, encode, kind, options):
    alpha = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    data = encode(np.dstack([picture, alpha]), kind, **options)
    share = alpha[..., None] / 255
    assert np.abs(pixels(data) - (picture * share + 255 * (1 - share))).max() <= 1


def test_grey_with_alpha_is_composited_on_white(encode):
    image = Image.merge("LA", [Image.new("L", (4, 4), 100), Image.new("L", (4, 4), 51)])
    assert pixels(encode(image, "PNG"))[0, 0].tolist() == [224, 224, 224]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_white(encode, kind):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((2, 1), 0)
    found = pixels(encode(image, kind, transparency=1))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 2].tolist() == [0, 0, 0]


def test_a_palette_with_an_alpha_for_each_colour(encode):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    found = pixels(encode(image, "PNG", transparency=bytes([51, 255])))
    assert found.tolist() == [[[204, 204, 204], [255, 0, 0]]]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key"),
    [
        (2, 0, b"\x10", struct.pack(">H", 1)),  # samples 0, 1, 0, 0
        (4, 0, b"\x05\0", struct.pack(">H", 5)),
        (8, 0, b"\x00\x05\0\0", struct.pack(">H", 5)),
        (16, 0, struct.pack(">4H", 0, 300, 0, 0), struct.pack(">H", 300)),
        (8, 2, bytes([0, 0, 0, 9, 8, 7] + [0] * 6), struct.pack(">3H", 9, 8, 7)),
        (
            16,
            2,
            struct.pack(">12H", 0, 0, 0, 999, 888, 777, *[0] * 6),
            struct.pack(">3H", 999, 888, 777),
        ),
    ],
)
def test_a_transparent_colour_is_white_at_every_depth(depth, colour, row, key):
    data = png(b"\0" + row, size=(4, 1), depth=depth, colour=colour, extra=[(b"tRNS", key)])
    assert pixels(data)[0, :, 0].tolist() == [0, 255, 0, 0]
