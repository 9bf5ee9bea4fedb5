"""AVIF and HEIC, where their libraries are there: upright, whole, and in sRGB."""

import io

import numpy as np
import pytest
from decoded import SHOWN, distance, pixels, reason
from PIL import Image, ImageCms, features

from pipeline.images.decoding import decode as module
from pipeline.images.decoding.colour import matrix_profile
from pipeline.images.decoding.quiet import quiet

P3 = matrix_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.3127, 0.3290), None)
KINDS = ["avif", "heic"]


@pytest.fixture
def photo():
    y, x = np.mgrid[0:96, 0:128] / 96
    waves = np.stack([np.sin(3 * x + y), np.cos(4 * y), np.sin(2 * x - 5 * y)], 2)
    return Image.fromarray((128 + 90 * waves).astype(np.uint8))


def coded(kind, image, *more, exif=b"", profile=b"", **options):
    buffer = io.BytesIO()
    if kind == "avif":
        if not features.check("avif"):
            pytest.skip("this Pillow has no AVIF")
        image.save(buffer, "AVIF", quality=95, subsampling="4:4:4", exif=exif, icc_profile=profile,
                   **({"save_all": True, "append_images": more} if more else {}))  # fmt: skip
        return buffer.getvalue()
    heif = pytest.importorskip("pillow_heif")
    image.info |= {"exif": exif} if exif else {}
    image.info |= {"icc_profile": profile} if profile else {}
    file = heif.from_pillow(image)
    for one in more:
        file.add_from_pillow(one)
    file.save(buffer, quality=95, chroma=444, **options)
    return buffer.getvalue()


def said(data):
    with quiet():
        return module.picture(data).remarks


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_nearly_the_pixels(kind, photo):
    data = coded(kind, photo)
    assert distance(pixels(data), np.asarray(photo)) < 1.5
    assert said(data) == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_turned_upright_once(kind, photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo
    if kind == "heic":  # the library turns the pixels before it writes them, unless as a plugin
        heif = pytest.importorskip("pillow_heif")
        data = as_plugin(heif, photo, exif)
    else:
        data = coded(kind, stored, exif=exif.tobytes())
    want = SHOWN[orientation](np.asarray(photo))
    found = pixels(data)
    assert found.shape == want.shape and distance(found, want) < 1.5


def as_plugin(heif, image, exif):
    """Return a HEIC file with rotation and mirroring as boxes, as phones write it."""
    from pillow_heif import as_plugin as plugin

    buffer = io.BytesIO()
    image.encoderinfo = {"exif": exif.tobytes(), "quality": 95}
    image.encoderconfig = ()
    plugin._save_heif(image, buffer, "x.heic")
    data = buffer.getvalue()
    assert (b"irot" in data or b"imir" in data) == (exif[0x0112] > 1)
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_its_colours_become_srgb(kind, photo):
    own = ImageCms.ImageCmsProfile(io.BytesIO(P3))
    wide = ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), own, outputMode="RGB")
    wide.info.clear()
    data = coded(kind, wide, profile=P3)
    assert (
        distance(pixels(data), np.asarray(photo))
        < 1.5
        < distance(np.asarray(wide), np.asarray(photo))
    )
    assert said(data) == ("Converted to sRGB (without a name)",)


def test_the_code_points_of_heic_are_taken_into_account(photo):
    own = ImageCms.ImageCmsProfile(io.BytesIO(P3))
    wide = ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), own, outputMode="RGB")
    wide.info.clear()
    data = coded(
        "heic", wide, color_primaries=12, transfer_characteristics=13, matrix_coefficients=6,
        full_range_flag=1,
    )  # fmt: skip
    assert distance(pixels(data), np.asarray(photo)) < 1.5
    assert said(data) == ("Converted to sRGB (Display P3)",)


@pytest.mark.parametrize("kind", KINDS)
def test_transparency_is_composited_on_white(kind, photo):
    photo.putalpha(51)
    seen = np.asarray(photo.convert("RGB")) / 5 + 255 * 4 / 5
    assert distance(pixels(coded(kind, photo)), seen) < 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_further_pictures_are_told(kind, photo):
    data = coded(kind, photo, photo.transpose(Image.Transpose.ROTATE_180))
    assert distance(pixels(data), np.asarray(photo)) < 2
    what = "primary picture read (2 pictures)" if kind == "heic" else "first frame read (2 frames)"
    assert said(data) == (f"Only the {what}",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_refused(kind, photo):
    data = coded(kind, photo)
    for cut in (60, len(data) // 2, len(data) - 40):
        assert reason(data[:cut]) in ("damaged", "truncated")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_refused_from_its_header(kind, photo):
    data = bytearray(coded(kind, photo))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = (60_000).to_bytes(4, "big") * 2
    assert reason(bytes(data)) in ("more pixels than the limit of 178,956,970", "damaged")


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_library_it_is_named(kind, photo, monkeypatch):
    data = coded(kind, photo)
    monkeypatch.setattr(module.formats, "_has", lambda name: False)
    assert reason(data) == f"{kind.upper()}, which is not read"
