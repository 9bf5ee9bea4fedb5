"""How crops are put together for a device, known before there is an engine."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipeline.extraction.engines import batches_of
from pipeline.extraction.options import ExtractOptions
from pipeline.images.decoding import nvjpeg
from pipeline.images.decoding.crops import crops
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.engines import devices
from pipeline.trunks.engines.choice import BATCH_SIZE, batches_on
from pipeline.trunks.spec import LIBJPEG, NVJPEG, FeatureKey

KEY = FeatureKey("resnet18", "0", "feature", "own", Preprocess(40, 32), "bf16", decoder=NVJPEG)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(nvjpeg, "is_right", lambda: True)
    monkeypatch.setattr(devices, "choose_device", lambda asked: "cuda" if asked != "cpu" else "cpu")


def test_a_gpu_gets_large_pinned_batches_and_the_key_says_what_decodes(gpu):
    on_gpu = (BATCH_SIZE["cuda"], True)
    assert batches_of(KEY, ExtractOptions()) == (*on_gpu, nvjpeg.crops_on_gpu, 1)
    assert batches_of(replace(KEY, decoder=LIBJPEG), ExtractOptions()) == (*on_gpu, crops, 1)
    assert batches_on("cuda", LIBJPEG, 7) == (7, True, crops, 1)
    for device, behind in (("cpu", 0), ("mps", 1)):
        found = batches_on(device, LIBJPEG, None)
        assert found == (BATCH_SIZE[device], False, crops, behind)


def test_crops_that_are_kept_themselves_come_from_the_cpu(gpu):
    pixels = FeatureKey("", "", "pixels", "", KEY.preprocess, "bf16")
    assert batches_of(pixels, ExtractOptions()) == (BATCH_SIZE["cpu"], False, crops, 0)


def test_the_engines_name_says_what_decoded(gpu):
    engine = SimpleNamespace(name="torch-cuda")
    assert batches_on("cuda", NVJPEG, None).names(engine) == "torch-cuda with nvJPEG"
    assert batches_on("cuda", LIBJPEG, None).names(engine) == "torch-cuda"
