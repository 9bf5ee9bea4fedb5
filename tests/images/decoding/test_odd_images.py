"""Every file that breaks image readers ends as pixels or a reason, in a process of its own."""

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from pipeline.images.decoding.decode import decode, picture
from pipeline.images.decoding.formats import unread

READ_ALL = """
import json, resource, sys, time
from pathlib import Path
import torch
from pipeline.errors import BadImage
from pipeline.images.decoding.decode import decode, picture
from pipeline.images.decoding.formats import unread
from pipeline.images.decoding.quiet import quiet

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found, slowest = {}, 0.0
for path in sorted(Path(sys.argv[1]).rglob("*")):
    if path.is_file():
        began = time.monotonic()
        try:
            with quiet():
                picture = decode(path.read_bytes())
            assert picture.dtype == torch.uint8 and picture.shape[0] == 3 and picture.numel() > 0
            outcome = "pixels"
        except BadImage as error:
            outcome = str(error)
        found[str(path.relative_to(sys.argv[1]))] = outcome
        slowest = max(slowest, time.monotonic() - began)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"found": found, "slowest": slowest, "grown": grown}))
"""


@pytest.fixture(scope="module")
def outcome():
    """Return what became of every file, from one run."""
    folder = Path(__file__).resolve().parents[4] / "shared/data/odd_images"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/odd_images, which is not here")
    run = subprocess.run(
        [sys.executable, "-c", READ_ALL, folder], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return {**json.loads(run.stdout), "stderr": run.stderr}


def test_every_file_ends_as_pixels_or_a_reason(outcome):
    if unread("avif"):
        pytest.skip("this Pillow has no AVIF, and faults of its own with a few BMPs and TIFFs")
    kinds = (found.partition(" (")[0] for found in outcome["found"].values())
    assert Counter(kinds) == {
        "pixels": 958,
        "not a JPEG, PNG, WebP, GIF, BMP or TIFF file": 61,
        "Windows icon, which is not read": 22,
        "JPEG 2000, which is not read": 13,
        "PNM, which is not read": 10,
        "a variant of its format that is not read": 29,
        "a variant of TIFF that is not read": 4,
        "damaged": 29,
        "truncated": 10,
        "more pixels than the limit of 178,956,970": 6,
        "signed or 32-bit integer samples, which have no agreed range": 4,
        "floating point samples outside 0 to 1": 2,
    }


def test_nothing_is_printed_and_nothing_hangs_and_memory_is_bounded(outcome):
    assert outcome["stderr"] == ""
    assert outcome["slowest"] < 10
    assert outcome["grown"] < 1000  # MB


def test_every_valid_png_of_the_suite_is_read_and_every_broken_one_refused(outcome):
    suite = {Path(p).name: o for p, o in outcome["found"].items() if p.startswith("pngsuite")}
    assert len(suite) == 175
    for name, found in suite.items():
        assert (found == "pixels") != name.startswith("x"), name


def test_what_image_rs_calls_bad_is_refused(outcome):
    bad = {p: o for p, o in outcome["found"].items() if p.startswith("image-rs/tests/bad")}
    assert len(bad) > 5
    assert "pixels" not in bad.values()


@pytest.mark.parametrize("way", ["Landscape", "Portrait"])
def test_the_eight_orientations_of_a_picture_agree(shared, way):
    folder = shared("odd_images") / "exif"
    plain = decode((folder / f"{way}_1.jpg").read_bytes()).float()
    other = "Portrait" if way == "Landscape" else "Landscape"
    elsewhere = decode((folder / f"{other}_1.jpg").read_bytes()).float().transpose(1, 2)
    for orientation in range(2, 9):
        turned = decode((folder / f"{way}_{orientation}.jpg").read_bytes()).float()
        assert turned.shape == plain.shape
        assert (turned - plain).abs().mean() < 5
    assert (elsewhere - plain).abs().mean() > 30  # two different pictures do differ


@pytest.mark.parametrize("name", ["hymenoptera", "flowers"])
def test_real_photos_are_those_that_pillow_reads(shared, name):
    files = sorted(path for path in shared(name).rglob("*.jpg"))
    assert len(files) > 300
    for path in files[:: max(1, len(files) // 150)]:
        found, remarks = picture(path.read_bytes())
        with Image.open(path) as image:
            right = image.convert("RGB")
            if remarks:
                own = io.BytesIO(image.info["icc_profile"])
                srgb = ImageCms.createProfile("sRGB")
                right = ImageCms.profileToProfile(right, own, srgb, outputMode="RGB")
        expected, found = np.asarray(right), found.permute(1, 2, 0).numpy()
        assert np.abs(found.astype(int) - expected).max() <= 2, path


def test_a_cmyk_jpeg_shows_what_its_rgb_twin_shows(shared):
    folder = shared("odd_images") / "pillow/Tests/images"
    cmyk = decode((folder / "pil_sample_cmyk.jpg").read_bytes()).float()
    rgb = decode((folder / "pil_sample_rgb.jpg").read_bytes()).float()
    assert (cmyk - rgb).abs().mean() < 8


def test_the_pngs_of_a_picture_in_many_kinds_agree(shared):
    """PngSuite's cube: palette, grey key, colour key at 8 and 16 bits, on white each time."""
    folder = shared("odd_images") / "pngsuite/png"
    names = ["tbbn2c16", "tbgn2c16", "tbrn2c08", "tbbn3p08", "tbgn3p08", "tbwn3p08", "tp1n3p08"]
    cubes = [decode((folder / f"{name}.png").read_bytes()).float() for name in names]
    for cube in cubes:
        assert (cube - cubes[0]).abs().mean() < 3
        assert torch.equal(cube[:, 0, 0], torch.full((3,), 255.0))


@pytest.mark.parametrize("pair", ["basn0g16 basi0g16", "basn2c16 basi2c16", "basn6a16 basi6a16"])
def test_interlacing_changes_no_pixel(shared, pair):
    folder = shared("odd_images") / "pngsuite/png"
    one, other = (decode((folder / f"{name}.png").read_bytes()) for name in pair.split())
    assert torch.equal(one, other)
    assert int(one.max()) > 250
    assert len(one.unique()) > 30  # scaled: clipping would leave nearly nothing but 255


def test_the_gammas_of_the_suite_come_out_alike(shared):
    """The same picture, written with six gammas (PngSuite's g03 to g25)."""
    folder = shared("odd_images") / "pngsuite/png"
    for kind in ("n0g16", "n2c08", "n3p04"):
        files = [folder / f"g{gamma}{kind}.png" for gamma in ("03", "05", "07", "10")]
        first, *others = [decode(file.read_bytes()).float() for file in files]
        assert all((first - other).abs().mean() < 6 for other in others)  # 13 to 38 as stored
