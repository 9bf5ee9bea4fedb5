import json

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.extraction import canary
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache
from pipeline.trunks.spec import FeatureKey


class Engine:
    """Means of rows, times what another machine might make of them."""

    notes = ()

    def __init__(self, name="torch-cpu", precision="fp32", factor=1.0):
        self.name, self.precision, self.factor, self.runs = name, precision, factor, 0

    def run(self, batches):
        for crops in batches:
            self.runs += 1
            yield crops.float().mean((1, 3)).numpy() * np.float32(self.factor)


@pytest.fixture
def kept(tmp_path):
    preprocess = Preprocess(resize=16, crop=16, mean=(0.5,) * 3, std=(0.2,) * 3)
    key = FeatureKey("fake", "0" * 64, "feature", "own", preprocess, "fp32")
    store = Cache.at(tmp_path).rows(key.fingerprint)
    return lambda engine: canary.check(engine, [key], [store], [slice(None)])


def test_the_same_engine_computes_the_pictures_once(kept):
    engine = Engine()
    kept(engine)
    kept(engine)
    assert engine.runs == 1


def test_a_new_engine_that_agrees_is_noted_once(kept):
    kept(Engine())
    other = Engine("openvino-cpu", factor=1.0005)
    kept(other)
    kept(other)
    assert other.runs == 1


def test_a_new_machine_that_computes_something_else_is_refused_with_both_named(kept, monkeypatch):
    kept(Engine())
    monkeypatch.setattr(canary, "_processor", lambda engine: "another processor")
    with pytest.raises(PipelineError, match=r"0.01 apart on two fixed.*torch-cpu.*another proc"):
        kept(Engine(factor=1.01))


def test_an_engine_that_computes_in_another_precision_files_nothing(kept, tmp_path):
    with pytest.raises(PipelineError, match="computes in bf16 on this machine, where fp32"):
        kept(Engine(precision="bf16"))
    assert not list(tmp_path.rglob("canary.json"))


def test_a_damaged_canary_is_made_again(kept, tmp_path):
    kept(Engine())
    (path,) = tmp_path.rglob("canary.json")
    path.write_text("[1")
    kept(Engine())
    assert set(json.loads(path.read_text())) == {"values", "seen"}


def test_the_pictures_are_the_same_everywhere():
    assert canary.pictures(8).long().sum() == 49293
