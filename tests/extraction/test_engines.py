"""How crops are put together for a device, known before there is an engine."""

from types import SimpleNamespace

import pytest

from pipeline.extraction.engines import batches_of
from pipeline.extraction.options import ExtractOptions
from pipeline.images.decoding import nvjpeg
from pipeline.images.decoding.crops import crops
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.engines import devices
from pipeline.trunks.engines.choice import BATCH_SIZE, batches_on
from pipeline.trunks.spec import FeatureKey

KEY = FeatureKey("resnet18", "0", "feature", "own", Preprocess(40, 32), "bf16")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(nvjpeg, "_alike", lambda: True)
    monkeypatch.setattr(devices, "choose_device", lambda asked: "cuda" if asked != "cpu" else "cpu")


def test_a_gpu_gets_large_pinned_batches_and_decodes_in_half_precision(gpu):
    assert batches_of(KEY, ExtractOptions()) == (BATCH_SIZE["cuda"], True, nvjpeg.crops_on_gpu)
    assert batches_on("cuda", "fp32", 7) == (7, True, crops)
    for device in ("cpu", "mps"):
        assert batches_on(device, "bf16", None) == (BATCH_SIZE[device], False, crops)


def test_crops_that_are_kept_themselves_come_from_the_cpu(gpu):
    pixels = FeatureKey("", "", "pixels", "", KEY.preprocess, "bf16")
    assert batches_of(pixels, ExtractOptions()) == (BATCH_SIZE["cpu"], False, crops)


def test_the_engines_name_says_what_decoded(gpu):
    engine = SimpleNamespace(name="torch-cuda")
    assert batches_on("cuda", "bf16", None).names(engine) == "torch-cuda with nvJPEG"
    assert batches_on("cuda", "fp32", None).names(engine) == "torch-cuda"
