"""A policy that destroys the label is refused, and one that keeps it is not."""

from dataclasses import replace

import numpy as np
import pytest
from photos import OPTIONS, Heard
from PIL import Image

import pipeline
from pipeline.finetuning.choosing import augmentation
from pipeline.finetuning.choosing.augmentation import PolicyScore, _boldest, choose_policy
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.prepare import load_trunk
from pipeline.finetuning.task import find_task
from pipeline.store.cache import Cache


def _sheet(rng):
    """Return pixels that grow brighter to the right, with a bright corner at the upper left."""
    ramp = np.tile(np.linspace(20, 200, 48), (48, 1)) + rng.normal(0, 12, (48, 48))
    ramp[:12, :12] += 60
    return np.clip(ramp, 0, 255).astype(np.uint8)


def _colours(rng, label):
    pixels = rng.integers(0, 120, (48, 48, 3))
    pixels[..., label] += 100
    return pixels.astype(np.uint8)


def _noise(rng, label):
    return rng.integers(0, 256, (48, 48, 3)).astype(np.uint8)


MAKERS = {
    "noise": _noise,
    "mirror": lambda rng, k: _sheet(rng)[:, ::-1] if k else _sheet(rng),
    "colour": _colours,
}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """Return a function from what tells the classes apart to the policy that is chosen."""

    def choose(kind):
        root = tmp_path_factory.mktemp(kind)
        rng = np.random.default_rng(0)
        for k, name in enumerate(("a", "b")):
            (root / "photos" / name).mkdir(parents=True)
            for n in range(60):
                picture = Image.fromarray(MAKERS[kind](rng, k))
                picture.save(root / "photos" / name / f"{n}.png")
        cache = Cache.at(root / "cache")
        table = pipeline.extract(root / "photos", cache=cache.root, **OPTIONS)
        pipeline.fit_head(table, clf="logreg", cache=cache.root)
        task = find_task(cache, None, FinetuneOptions(), [])
        heard = Heard()
        trunk = load_trunk(task, cache)
        found = choose_policy(task, cache, trunk, device="cpu", progress=heard)
        assert len([line for line in heard.said if "Augmentation" in line or "Views" in line]) == 2
        again = choose_policy(task, cache, trunk, device="cpu", progress=heard)
        assert again == found
        return found

    return choose


def test_where_the_class_is_the_mirror_image_views_are_not_mirrored(chosen):
    found = chosen("mirror")
    assert "mirror" not in found.policy
    assert next(one for one in found.scores if one.policy == "mirror").harms


def test_where_views_keep_the_label_the_boldest_policy_is_taken(chosen):
    assert chosen("colour").policy == "crop+mirror"


def test_a_head_that_knows_nothing_cannot_allow_a_bold_policy(chosen):
    assert chosen("noise").policy == "shift"


def test_the_ladder_is_climbed_until_a_policy_harms():
    groups = np.arange(100)
    spread = np.where(groups % 2, 0.01, -0.01)

    def taken(**worse):
        losses = {"none": np.zeros(100), **{p: w + spread for p, w in worse.items()}}
        scores = {p: PolicyScore(p, 0.0, w, 0.002) for p, w in worse.items()}
        return _boldest(scores, losses, groups)

    assert taken(mirror=-0.1, shift=-0.1, crop=-0.1) == "crop+mirror"
    assert taken(mirror=0.1, shift=-0.1, crop=-0.1) == "crop"
    assert taken(mirror=0.0, shift=-0.1, crop=0.1) == "shift+mirror"
    assert taken(mirror=0.1, shift=-0.1, crop=-0.05) == "shift"  # crops gain less than shifts do
    assert taken(mirror=0.0, shift=0.1, crop=0.1) == "mirror"
    assert taken(mirror=0.1, shift=0.1, crop=0.1) == "none"


def test_with_room_for_a_part_of_the_views_only_nothing_is_tried(work, monkeypatch):
    collect, ended = augmentation.collect, []

    def poor(*arguments):
        rows, fitting, lost = collect(*arguments)
        return rows, replace(fitting, views=fitting.views[:-1]), lost

    monkeypatch.setattr(augmentation, "collect", poor)
    cache = Cache.at(work / "cache")
    end_run = Cache.end_run
    monkeypatch.setattr(Cache, "end_run", lambda *a: ended.append(a) or end_run(*a))
    task, heard = find_task(cache, None, FinetuneOptions(), []), Heard()
    found = choose_policy(task, cache, load_trunk(task, cache), device="cpu", progress=heard)
    assert (found.policy, found.images) == ("shift", 0) and ended
    assert any("no room" in line for line in heard.said)
