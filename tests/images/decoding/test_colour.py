"""Colours become sRGB, whatever the file says them to be."""

import io
import struct
import threading

import numpy as np
import pytest
import torch
from decoded import decode, distance, no_decoder, pixels, png
from PIL import Image, ImageCms
from profiles import ADOBE, P3, PROPHOTO, SRGB, SRGB_BYTES, camera_exif, cmyk_profile, grey_profile

from pipeline.images.decoding import colour
from pipeline.images.decoding import decode as module
from pipeline.images.decoding.colour import Colours, conversion, matrix_profile
from pipeline.images.decoding.crops import crops
from pipeline.images.decoding.quiet import quiet
from pipeline.images.preprocess import Preprocess

WIDE = {"P3": P3, "Adobe": ADOBE, "ProPhoto": PROPHOTO}


@pytest.fixture
def photo():
    """Return a smooth picture of many colours inside sRGB, uint8 [96, 128, 3]."""
    y, x = np.mgrid[0:96, 0:128] / 96
    waves = np.stack([np.sin(3 * x + y), np.cos(4 * y), np.sin(2 * x - 5 * y)], 2)
    return (128 + 90 * waves).astype(np.uint8)


def to(profile, rgb, mode="RGB"):
    """Return an sRGB picture in the colours of a profile."""
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.profileToProfile(Image.fromarray(rgb), SRGB, own, outputMode=mode)


def remarks(data):
    with quiet():
        return module.picture(data).remarks


LOSSLESS = [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
            ("WEBP", {"lossless": True})]  # fmt: skip


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_a_wide_space_comes_out_as_the_srgb_copy(photo, encode, name, kind, options):
    image = to(WIDE[name], photo)
    assert distance(np.asarray(image), photo) > 2
    data = encode(image, kind, icc_profile=WIDE[name], **options)
    assert distance(pixels(data), photo) < 1
    assert remarks(data) == ("Converted to sRGB (without a name)",)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_too_on_every_way(photo, encode, monkeypatch, name, options):
    data = encode(
        to(WIDE[name], photo), "JPEG", quality=98, subsampling=0, icc_profile=WIDE[name], **options
    )
    found = pixels(data)
    assert distance(found, photo) < 1.5
    monkeypatch.setattr(module, "decode_jpeg", no_decoder)
    assert np.array_equal(pixels(data), found)


def test_a_large_jpeg_is_reduced_and_then_converted(encode, photo):
    large = np.asarray(Image.fromarray(photo).resize((1280, 960), Image.Resampling.BICUBIC))
    data = encode(to(PROPHOTO, large), "JPEG", quality=98, icc_profile=PROPHOTO)
    found = decode(data, least=96)
    assert found.shape == (3, 120, 160)
    small = np.asarray(Image.fromarray(large).resize((160, 120), Image.Resampling.BOX))
    assert distance(found.permute(1, 2, 0).numpy(), small) < 2


def test_crops_come_out_alike(encode, photo):
    data = encode(to(PROPHOTO, photo), "PNG", icc_profile=PROPHOTO)
    with quiet():
        found, said, _ = crops(data, Preprocess(64, 56), b"1" * 32, [0, 1])
        want, *_ = crops(encode(photo, "PNG"), Preprocess(64, 56), b"1" * 32, [0, 1])
    assert said == ("Converted to sRGB (without a name)",)
    for one, other in zip(found, want, strict=True):
        assert (one.float() - other.float()).abs().mean() < 1


def test_the_srgb_profiles_change_nothing_whatever_they_are_called(photo, encode):
    made = matrix_profile(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), (0.3127, 0.3290), None)
    for profile in (SRGB_BYTES, made):
        for kind in ("PNG", "TIFF"):
            data = encode(photo, kind, icc_profile=profile)
            assert np.array_equal(pixels(data), photo)
            assert remarks(data) == ()


def test_a_profile_in_many_segments_is_joined(photo, encode):
    long = P3 + bytes(200_000)
    long = struct.pack(">I", len(long)) + long[4:]
    data = encode(to(P3, photo), "JPEG", quality=98, subsampling=0, icc_profile=long)
    assert data.count(b"ICC_PROFILE\0") > 2
    assert distance(pixels(data), photo) < 1.5
    second = data.index(b"ICC_PROFILE\0", data.index(b"ICC_PROFILE\0") + 1)
    lacking = data.replace(data[second : second + 14], b"XCC_PROFILE\0\2\4")
    assert remarks(lacking) == ("Colour profile ignored (damaged)",)


@pytest.mark.parametrize(
    "profile", [b"junk", P3[:200], SRGB_BYTES[:150], P3[:12] + b"zzzz" + P3[16:]]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_a_broken_profile_is_ignored_and_told(photo, encode, kind, profile):
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = pixels(encode(photo, kind, **options))
    data = encode(photo, kind, icc_profile=profile, **options)
    assert np.array_equal(pixels(data), plain)
    assert remarks(data) == ("Colour profile ignored (damaged)",)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_grey_with_a_profile_gets_srgbs_curve(encode, kind):
    grey = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (64, 1))
    found = pixels(encode(grey, kind, icc_profile=grey_profile(1.0)))
    linear = grey / 255
    want = 255 * np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert distance(found, want[..., None]) < 1.5
    assert (found == found[..., :1]).all()


def test_grey_under_a_profile_of_colours_is_taken_as_colours(encode):
    grey = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    found = pixels(encode(grey, "PNG", icc_profile=PROPHOTO))
    want = pixels(encode(np.dstack([grey] * 3), "PNG", icc_profile=PROPHOTO))
    assert np.abs(found.astype(int) - want).max() <= 1


def test_a_profile_of_another_space_is_ignored_and_told(photo, encode):
    data = encode(photo, "PNG", icc_profile=grey_profile(1.8))
    assert np.array_equal(pixels(data), photo)
    assert remarks(data) == ("Colour profile ignored (GRAY, where pixels are RGB)",)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_goes_by_the_table_of_its_profile(encode, kind):
    image = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    data = encode(
        image, kind, icc_profile=cmyk_profile(), **({"quality": 99} if kind == "JPEG" else {})
    )
    assert distance(pixels(data)[16, 16], np.array([64, 255, 255])) < 6
    assert distance(pixels(encode(image, kind))[16, 16], np.array([0, 255, 255])) < 3
    assert remarks(data)[0].startswith("Converted to sRGB")


def test_transparency_meets_the_white_after_the_conversion(photo, encode):
    image = to(PROPHOTO, photo)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    plain = Image.fromarray(photo)
    plain.putalpha(image.getchannel("A"))
    found = pixels(encode(image, "PNG", icc_profile=PROPHOTO))
    assert distance(found, pixels(encode(plain, "PNG"))) < 1


def test_a_palette_is_converted_too(photo, encode):
    image = to(PROPHOTO, photo).quantize(64)
    found = pixels(encode(image, "PNG", icc_profile=PROPHOTO))
    want = pixels(encode(image.convert("RGB"), "PNG", icc_profile=PROPHOTO))
    assert np.array_equal(found, want)


def test_adobe_rgb_that_a_camera_names_without_a_profile_is_believed(photo, encode):
    image = to(ADOBE, photo)
    data = encode(image, "JPEG", quality=98, subsampling=0, exif=camera_exif())
    assert distance(pixels(data), photo) < 1.5
    assert remarks(data) == ("Converted to sRGB (Adobe RGB, says EXIF)",)
    for other in (camera_exif(index=b"R98\0"), camera_exif(space=1)):
        assert remarks(encode(image, "JPEG", exif=other)) == ()


def chunked(photo, *extra):
    raw = b"".join(b"\0" + row.tobytes() for row in photo)
    return png(raw, size=photo.shape[1::-1], depth=8, colour=2, extra=extra)


def ints(*values):
    return b"".join(struct.pack(">I", round(value * 100_000)) for value in values)


PLAIN = ints(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
WIDER = ints(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


def test_the_gamma_and_primaries_of_a_png_are_taken_into_account(photo):
    bright = np.rint(255 * (photo / 255) ** (2.2 / 1.0)).astype(np.uint8)  # nearly linear light
    found = pixels(chunked(bright, (b"gAMA", ints(1.0))))
    assert distance(found, photo) < 4 < distance(bright, photo)
    wide = chunked(np.asarray(to(P3, photo)), (b"gAMA", ints(0.45455)), (b"cHRM", WIDER))
    assert distance(pixels(wide), photo) < 1
    assert remarks(wide) == ("Converted to sRGB (gAMA and cHRM of the PNG)",)


@pytest.mark.parametrize("extra", [
    [(b"gAMA", ints(0.45455))], [(b"gAMA", ints(0.45455)), (b"cHRM", PLAIN)],
    [(b"sRGB", b"\0"), (b"gAMA", ints(1.0))], [(b"cICP", bytes([1, 13, 0, 1])), (b"gAMA", ints(1))],
])  # fmt: skip
def test_what_says_srgb_in_a_png_changes_nothing(photo, extra):
    data = chunked(photo, *extra)
    assert np.array_equal(pixels(data), photo) and remarks(data) == ()


@pytest.mark.parametrize("extra", [
    [(b"gAMA", ints(0))], [(b"cHRM", ints(*[0.3] * 8))], [(b"cHRM", ints(*[0.0] * 8))],
    [(b"gAMA", b"\xff\xff\xff\xff")],
])  # fmt: skip
def test_senseless_gamma_and_primaries_of_a_png_are_ignored(photo, extra):
    data = chunked(photo, *extra)
    assert np.array_equal(pixels(data), photo)


def test_the_code_points_of_a_png_are_taken_into_account(photo):
    data = chunked(np.asarray(to(P3, photo)), (b"cICP", bytes([12, 13, 0, 1])))
    assert distance(pixels(data), photo) < 1
    assert remarks(data) == ("Converted to sRGB (Display P3)",)
    bright = chunked(photo, (b"cICP", bytes([9, 16, 0, 1])))
    assert remarks(bright) == ("High dynamic range taken as it is (no tone mapping)",)


def test_each_thread_makes_a_conversion_once(monkeypatch):
    made = []
    real = colour.ImageCms.buildTransform
    monkeypatch.setattr(
        colour.ImageCms, "buildTransform", lambda *a, **k: (made.append(1), real(*a, **k))[1]
    )
    profile = P3 + b"of this test"

    def three():
        for _ in range(3):
            conversion(Colours(profile), "RGB")

    three()
    other = threading.Thread(target=three)
    other.start()
    other.join()
    assert len(made) == 2


def test_a_conversion_leaves_a_picture_channels_last(photo, encode):
    found = decode(encode(to(P3, photo), "PNG", icc_profile=P3))
    assert found.dtype == torch.uint8 and found.permute(1, 2, 0).is_contiguous()
