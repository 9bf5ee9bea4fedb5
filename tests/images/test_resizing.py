import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images import resizing
from pipeline.images.decoding.crops import crops, crops_by_numpy
from pipeline.images.preprocess import Preprocess
from pipeline.images.resizing import alike, evaluation_view
from pipeline.images.views import AUGMENTED, numbered

SIDES, SEEDS = st.integers(1, 90), st.integers(0, 2**32 - 1)


def by_torchvision(rgb, preprocess):
    return preprocess.apply(torch.from_numpy(rgb).permute(2, 0, 1)).permute(1, 2, 0).numpy()


@settings(max_examples=150)
@given(SIDES, SIDES, st.integers(1, 60), st.integers(0, 20), st.booleans(), SEEDS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_numpy_gives_torchvisions_pixels(interpolation, height, width, crop, more, squash, seed):
    preprocess = Preprocess(crop + more, crop, interpolation, squash=squash)
    if not alike(preprocess):
        pytest.skip("torchvision resizes in floating point here")
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(evaluation_view(rgb, preprocess), by_torchvision(rgb, preprocess))


@pytest.mark.parametrize("size", [(2000, 90), (90, 2000), (1500, 2100)])
def test_strips_and_large_pictures_too(size):
    preprocess = Preprocess(256, 224, "bicubic")
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.array_equal(evaluation_view(rgb, preprocess), by_torchvision(rgb, preprocess))


def test_what_torchvision_may_do_otherwise_is_left_to_it(tmp_path):
    assert not alike(Preprocess(200, 224, "bicubic"))  # it pads
    old = tmp_path / "cpuinfo"
    old.write_text("flags : sse4_2")
    assert not resizing._whole_numbers(old)
    assert not resizing._whole_numbers(tmp_path / "none")


@settings(max_examples=150)
@given(SIDES, SIDES, st.integers(1, 60), st.sampled_from(AUGMENTED), st.integers(1, 5), SEEDS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_numpy_gives_the_same_augmented_views(
    interpolation, height, width, crop, policy, number, seed
):
    preprocess = Preprocess(crop, crop, interpolation)
    if not alike(preprocess):
        pytest.skip("torchvision resizes in floating point here")
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", compress_level=0)
    asked = (file.getvalue(), preprocess, bytes(32), [0, numbered(policy, number)])
    ours, theirs = crops_by_numpy(*asked), crops(*asked)
    assert (ours.remarks, ours.side) == (theirs.remarks, theirs.side)
    for own, other in zip(ours.crops, theirs.crops, strict=True):
        assert np.array_equal(own, other.permute(1, 2, 0).numpy())


def test_pictures_for_people_need_no_torch(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    program = (
        "import sys, hashlib\n"
        "from pathlib import Path\n"
        "from pipeline.images.preprocess import Preprocess\n"
        "from pipeline.images.thumbnails import pictures, views\n"
        f"path = {str(tmp_path / 'a.png')!r}\n"
        "digest = hashlib.sha256(Path(path).read_bytes()).digest()\n"
        "(small,) = pictures([(path, digest)], side=20, workers=1)\n"
        "size = Preprocess(32, 32, 'bicubic')\n"
        "both = list(views([(path, digest, 0), (path, digest, 3)], size, workers=1))\n"
        "print(small.rgb.shape, [v.rgb.shape for v in both], 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "(13, 20, 3) [(32, 32, 3), (32, 32, 3)] False"
