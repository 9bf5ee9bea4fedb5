"""What `predict` says of images that vanish, or whose features are not finite."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import FakeEngine, picture
from photos import Heard

from pipeline.errors import PipelineError
from pipeline.images.preprocess import Preprocess
from pipeline.inference import logit_stream
from pipeline.inference.options import ComputeOptions


class Stub:
    """A head that gives the first two features."""

    preprocess, classes = Preprocess(10, 8), ("ants", "bees")
    key = SimpleNamespace(trunk="stub")

    def precision_on(self, device, asked):
        return "bf16"

    def logits(self, features, engine):
        assert np.isfinite(features).all()
        return features[:, :2].astype(float)


class Poisoned(FakeEngine):
    """Gives rows that are not finite at some places of the stream."""

    def __init__(self, at):
        super().__init__()
        self.at, self.done = at, 0

    def run(self, batches):
        for rows in super().run(batches):
            for n in range(len(rows)):
                if self.done + n in self.at:
                    rows[n, 3] = np.nan
            self.done += len(rows)
            yield rows


@pytest.fixture
def paths(tmp_path):
    for n in range(24):
        (tmp_path / f"{n:02}.png").write_bytes(picture(n))
    return sorted(str(path) for path in tmp_path.glob("*.png"))


def scored(paths, cache, monkeypatch, at, size=8):
    monkeypatch.setattr(logit_stream, "engine_of", lambda *args, **options: Poisoned(at))
    means = ComputeOptions(workers=2, batch_size=size, device="cpu")
    found = list(logit_stream.through_trunk(Stub(), iter(paths), means, cache, Heard()))
    bad, start = {}, 0
    for one in found:
        bad |= {start + slot: reason for slot, reason in one.bad.items()}
        start += len(one.logits)
    return bad, np.concatenate([one.logits for one in found])


def test_an_image_whose_feature_is_not_finite_is_bad_by_itself(paths, cache, monkeypatch):
    _, whole = scored(paths, cache, monkeypatch, ())
    bad, logits = scored(paths, cache, monkeypatch, (5, 20))
    assert bad == dict.fromkeys((5, 20), "its feature is not finite in bf16")
    good = [n for n in range(24) if n not in bad]
    assert np.array_equal(logits[good], whole[good]) and np.isfinite(logits).all()


def test_a_whole_batch_is_the_trunks_fault(paths, cache, monkeypatch):
    with pytest.raises(PipelineError, match=r"All 8 images of a batch .*08\.png first: stub is"):
        scored(paths, cache, monkeypatch, range(8, 16))


def test_a_fifo_a_folder_and_nothing_at_all_are_told_one_by_one(paths, cache, monkeypatch):
    for n in (3, 4, 5):
        os.unlink(paths[n])
    os.mkfifo(paths[3])
    os.mkdir(paths[4])
    bad, _ = scored(paths, cache, monkeypatch, (9,))
    assert bad == {
        3: "not a regular file", 4: "not a regular file", 5: "no such file",
        9: "its feature is not finite in bf16",
    }  # fmt: skip
