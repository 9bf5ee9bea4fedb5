"""Every file that breaks image readers ends as pixels or a reason, in a process of its own."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.images.decoding.decode import decode

READ_ALL = """
import json, resource, sys, time
from pathlib import Path
import torch
from pipeline.errors import BadImage
from pipeline.images.decoding.decode import decode
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
    assert Counter(outcome["found"].values()) == {
        "pixels": 944,
        "not a JPEG, PNG, WebP, GIF, BMP or TIFF file": 121,
        "damaged, or a variant of its format that is not read": 35,
        "damaged": 29,
        "truncated": 10,
        "more pixels than the limit of 178,956,970": 6,
        "signed or 32-bit integer samples, which have no agreed range": 2,
        "floating point samples outside 0 to 1": 1,
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
    for path in files[:: max(1, len(files) // 150)]:
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        found = decode(path.read_bytes()).permute(1, 2, 0).numpy()
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
