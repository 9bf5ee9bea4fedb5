import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.images.decoding.crops import _box, _draws, view
from pipeline.images.preprocess import Preprocess
from pipeline.images.views import POLICIES, numbered, numbers

PREPROCESS = Preprocess(resize=20, crop=16)


def image(seed: int, height: int = 40, width: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def digest(seed: int) -> bytes:
    return hashlib.sha256(b"%d" % seed).digest()


def test_view_0_is_the_evaluation_transform():
    picture = image(1)
    assert torch.equal(
        view(picture, PREPROCESS, digest=digest(1), number=0), PREPROCESS.apply(picture)
    )


def test_a_view_is_the_same_for_ever_and_another_for_another_number_or_image():
    picture = image(1)
    first = view(picture, PREPROCESS, digest=digest(1), number=1)
    assert torch.equal(first, view(picture, PREPROCESS, digest=digest(1), number=1))
    assert not torch.equal(first, view(picture, PREPROCESS, digest=digest(1), number=2))
    assert not torch.equal(first, view(picture, PREPROCESS, digest=digest(2), number=1))


def test_the_geometry_is_fixed_by_content_and_number_alone():
    # kept activations depend on it: when this changes, VIEW_POLICY has to change
    draws = _draws(bytes(range(32)), 3)
    assert _box(100, 200, POLICIES["crop+mirror"], draws) == (13, 47, 81, 82)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 5))
def test_a_view_of_any_picture_has_the_inputs_shape(height, width, number):
    found = view(image(0, height, width), PREPROCESS, digest=digest(0), number=number)
    assert found.shape == (3, 16, 16) and found.dtype == torch.uint8


@given(
    st.integers(30, 500), st.integers(30, 500), st.integers(0, 10**6),
    st.sampled_from(["crop", "shift"]),
)  # fmt: skip
def test_crops_lie_within_the_picture_and_the_bounds(height, width, seed, name):
    policy = POLICIES[name]
    top, left, h, w = _box(height, width, policy, _draws(digest(seed), 1))
    assert 0 <= top <= height - h and 0 <= left <= width - w
    assert policy.ratio[0] * 0.9 <= w / h <= policy.ratio[1] * 1.1
    if max(height, width) <= min(height, width) * 1.05:
        assert policy.scale[0] * 0.9 <= h * w / (height * width) <= policy.scale[1] * 1.02


def test_half_of_the_views_are_flipped():
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(3, 48, 64).contiguous()
    views = [view(ramp, PREPROCESS, digest=digest(n), number=1).int() for n in range(200)]
    flipped = sum(bool(v[0, 8, 0] > v[0, 8, -1]) for v in views)
    assert 70 <= flipped <= 130


def test_the_mirror_is_the_evaluation_view_flipped_and_there_is_one():
    picture = image(1)
    (number,) = numbers("mirror", 4)
    found = view(picture, PREPROCESS, digest=digest(1), number=number)
    assert torch.equal(found, PREPROCESS.apply(picture).flip(-1))
    assert numbers("none", 4) == ()


def test_only_policies_with_a_mirror_flip():
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(3, 48, 64).contiguous()

    def flipped(policy):
        found = [
            view(ramp, PREPROCESS, digest=digest(n), number=numbered(policy, 1)) for n in range(60)
        ]
        return sum(bool(crop[0, 8, 0] > crop[0, 8, -1]) for crop in found)

    assert flipped("crop") == flipped("shift") == 0
    assert 15 < flipped("crop+mirror") < 45 and 15 < flipped("shift+mirror") < 45


@given(st.sampled_from([name for name in POLICIES if name != "none"]), st.integers(1, 65535))
def test_a_number_tells_its_policy(name, one):
    from pipeline.images.views import policy_of

    assert policy_of(numbered(name, one)) is POLICIES[name]
    assert numbered("crop+mirror", one) == one
