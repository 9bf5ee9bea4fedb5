"""`Preprocess.apply` against torchvision's own transforms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from pipeline.images.preprocess import Preprocess

SIDES = st.integers(1, 90)


@settings(max_examples=60)
@given(SIDES, SIDES, st.integers(8, 40), st.integers(-3, 12), st.booleans())
def test_it_gives_what_resize_and_centre_crop_give(height, width, crop, more, squash):
    resize = max(1, crop + more)  # smaller than the crop: torchvision pads
    if max(height, width) > 8 * min(height, width):
        height = width  # strips are cut first
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    sides = [resize, resize] if squash else [resize]
    wanted = v2.CenterCrop(crop)(v2.Resize(sides, antialias=True)(image))
    got = Preprocess(resize, crop, squash=squash).apply(image)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize(("height", "width"), [(2, 101), (101, 2)])
def test_the_middle_of_a_strip_is_taken(height, width):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    middle = v2.CenterCrop((min(height, 16), min(width, 16)))(image)
    plain = Preprocess(32, 32)
    assert torch.equal(plain.apply(image), plain.apply(middle))
