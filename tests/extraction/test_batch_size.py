"""The batch size that a GPU finds, on a stand-in; on a CPU there is none to find."""

import numpy as np
import pytest
import torch
from conftest import FakeEngine, make_folder
from torch import nn

from pipeline.extraction import batch_size, compute, engines, plan
from pipeline.extraction.batch_size import fastest
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache
from pipeline.trunks.engines import torch_engine
from pipeline.trunks.engines.torch_engine import TorchEngine

RECIPE = ExtractOptions(precision="fp32")


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ({4: 100, 8: 110, 16: 130, 32: 131}, 16),
        ({4: 100, 8: 104, 16: 500}, 4),  # nothing gained by twice as many
        ({4: 100, 8: 200, 16: 0}, 8),  # memory is full
        ({4: 0}, 4),  # which the engine halves
        ({4: 1, 8: 2, 16: 4, 32: 8, 64: 16}, 32),  # as many as are tried
    ],
)
def test_the_size_grows_while_that_makes_it_faster_and_memory_allows(monkeypatch, rates, found):
    monkeypatch.setattr(batch_size, "MOST", 32)
    assert fastest(rates.__getitem__, 4) == found


class Growing(FakeEngine):
    """An engine that is fastest with 16 images at once."""

    def __init__(self):
        super().__init__()
        self.tried = []

    def rate(self, size):
        assert not self.batches  # before the first row
        self.tried.append(size)
        return min(size, 16)


@pytest.fixture
def gpu(fake_trunk, monkeypatch):
    """Let plans take the CPU for a GPU, whose batches begin at 4 images; return its engines."""
    made, real, read = [], engines.batches_of, compute.read

    def make_engine(*given):
        made.append(Growing())
        return made[-1]

    def unpinned(plan, parts, taken, batches, *more):
        return read(plan, parts, taken, batches._replace(pinned=False), *more)

    monkeypatch.setattr(engines, "make_engine", make_engine)
    monkeypatch.setattr(engines, "batches_of", lambda *of: real(*of)._replace(pinned=True))
    monkeypatch.setattr(compute, "read", unpinned)
    monkeypatch.setattr(batch_size, "WORTH", 8)
    monkeypatch.setattr(plan, "SHARD_ROWS", 16)
    return made


def test_the_size_is_found_before_the_first_row_and_a_killed_run_goes_on_with_it(
    tmp_path, cache, gpu, monkeypatch
):
    folder, real = make_folder(tmp_path / "photos", each=20), compute.compute_part
    want = extract_table(folder, RECIPE, Cache.at(tmp_path / "whole"))
    (first,) = gpu
    assert first.tried == [4, 8, 16, 32] and set(first.batches) == {16}
    parts = []

    def killed(*given):
        if parts:
            raise KeyboardInterrupt
        parts.append(1)
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(compute, "compute_part", killed)
        with pytest.raises(KeyboardInterrupt):
            extract_table(folder, RECIPE, cache)
    done = extract_table(folder, RECIPE, cache)
    assert done.extracted == 24 and gpu[2].tried == [] and set(gpu[2].batches) == {16}
    np.testing.assert_array_equal(done.table.features, want.table.features)
    assert not list((cache.root / "runs").glob("*.h5"))


def test_a_size_that_was_asked_for_is_taken(tmp_path, cache, gpu):
    recipe = ExtractOptions(precision="fp32", batch_size=4)
    extract_table(make_folder(tmp_path / "photos", each=20), recipe, cache)
    assert gpu[0].tried == [] and set(gpu[0].batches) == {4}


def test_few_images_are_not_worth_the_search(tmp_path, cache, gpu):
    extract_table(make_folder(tmp_path / "photos", each=15), RECIPE, cache)
    assert gpu[0].tried == [] and set(gpu[0].batches) == {4}


def test_a_cpu_looks_for_none(tmp_path, cache, fake_trunk, monkeypatch):
    monkeypatch.setattr(batch_size, "WORTH", 1)
    extract_table(make_folder(tmp_path / "photos", each=20), RECIPE, cache)  # which has no `rate`
    assert set(fake_trunk.batches) == {4}


def test_an_engine_tells_its_rate_and_that_a_batch_fills_the_memory(monkeypatch):
    engine = TorchEngine.__new__(TorchEngine)
    engine.device, engine.shape, engine.limit, engine.notes = (
        torch.device("cpu"),
        (3, 8, 8),
        None,
        [],
    )
    seen = []

    def net(crops):
        seen.append(tuple(crops.shape))
        if len(crops) > 4:
            raise torch.OutOfMemoryError("full")
        return nn.Flatten()(crops.float())

    engine.net, engine.precision = net, "fp32"
    engine.copies = torch_engine.copies_for(engine.device)
    assert engine.rate(4) > 0 and set(seen) == {(4, 3, 8, 8)}
    assert engine.rate(8) == 0.0 and (engine.limit, engine.notes) == (None, [])
