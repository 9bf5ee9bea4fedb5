"""CMYK JPEGs of each kind: alike at every size, and by both decoders."""

import numpy as np
import pytest
import torch
from decoded import decode, no_decoder, pixels
from PIL import Image
from profiles import camera_exif, cmyk_profile

from pipeline.images.decoding import decode as module
from pipeline.images.decoding.quiet import quiet

ADOBE_RGB = camera_exif()


@pytest.fixture
def inks():
    """Return smooth inks with some black, uint8 [480, 640, 4]."""
    y, x = np.mgrid[0:480, 0:640] / 480
    waves = [np.sin(3 * x + y), np.cos(4 * y), np.sin(2 * x - 5 * y), np.cos(3 * x) - 0.5]
    return (100 + 80 * np.stack(waves, 2)).astype(np.uint8)


def coded(kind, inks, encode, **options):
    """Return a JPEG whose samples are inverted inks, as Adobe writes them, or the inks."""

    def written(samples):  # Pillow inverts what it writes
        image = Image.frombytes("CMYK", (640, 480), np.ascontiguousarray(samples).tobytes())
        return bytearray(encode(image, "JPEG", quality=95, **options))

    if kind == "adobe":
        return bytes(written(inks))
    if kind == "ycck":  # what libjpeg turns into inverted inks
        rgb = Image.fromarray(np.ascontiguousarray(inks[..., :3]))
        samples = np.dstack([np.asarray(rgb.convert("YCbCr")), 255 - inks[..., 3]])
        data = written(255 - samples)
        data[data.index(b"Adobe") + 11] = 2
        return bytes(data)
    data = bytes(written(inks if kind == "inverted, unmarked" else 255 - inks))
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


KINDS = ["adobe", "ycck", "inverted, unmarked", "not inverted, unmarked"]
SAID = {
    "nothing": {},
    "a profile": {"icc_profile": cmyk_profile()},
    "a broken profile": {"icc_profile": b"broken"},
    "Adobe RGB": {"exif": ADOBE_RGB},
}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_same_colours_at_every_size_and_by_both_decoders(
    inks, encode, monkeypatch, kind, said
):
    data = coded(kind, inks, encode, **SAID[said])
    with quiet():
        whole = module.picture(data)
    found = whole.pixels.permute(1, 2, 0).numpy()
    for least in (240, 120, 60):
        with quiet():
            reduced = module.picture(data, least=least)
        assert reduced.remarks == whole.remarks
        height, width = reduced.pixels.shape[1:]
        assert height == least
        boxes = found.reshape(height, 480 // height, width, 640 // width, 3).mean((1, 3))
        assert np.abs(reduced.pixels.permute(1, 2, 0).numpy() - boxes).mean() < 1
    monkeypatch.setattr(module, "decode_jpeg", no_decoder)
    assert torch.equal(decode(data), whole.pixels)


def test_an_rgb_space_of_exif_does_not_move_inks(inks, encode):
    data = coded("adobe", inks, encode, exif=ADOBE_RGB)
    assert np.array_equal(pixels(data), pixels(coded("adobe", inks, encode)))
    with quiet():
        assert module.picture(data).remarks == (
            "Colour profile ignored (RGB, where pixels are CMYK)",
        )


def test_both_decoders_mix_inks_alike(encode, monkeypatch):
    inks = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    data = encode(Image.frombytes("CMYK", (64, 64), inks.tobytes()), "JPEG", quality=100)
    found = pixels(data)
    monkeypatch.setattr(module, "decode_jpeg", no_decoder)
    assert np.array_equal(pixels(data), found)
