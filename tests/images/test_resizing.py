import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.images import resizing
from pipeline.images.preprocess import Preprocess
from pipeline.images.resizing import alike, evaluation_view

SIDES, SEEDS = st.integers(1, 90), st.integers(0, 2**32 - 1)


def by_torchvision(rgb, preprocess):
    return preprocess.apply(torch.from_numpy(rgb).permute(2, 0, 1)).permute(1, 2, 0).numpy()


@settings(max_examples=150, deadline=None)
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
