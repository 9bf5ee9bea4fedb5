"""Shards are written beside the computation, soon after it has begun, and never far behind it."""

import time

import numpy as np
import pytest
from conftest import FakeEngine, make_folder

from pipeline.errors import PipelineError
from pipeline.extraction import engines, plan, writer
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.progress import Silent
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.shards import RowStore
from pipeline.trunks.engines import choice

RECIPE = ExtractOptions(precision="fp32")
REAL = RowStore.commit


class Watched(FakeEngine):
    """An engine that counts the shards in the cache each time that it begins a batch."""

    def __init__(self, cache):
        super().__init__()
        self.cache, self.there = cache, []

    def run(self, batches):
        def watched():
            for crops in batches:
                self.there.append(len(list(self.cache.root.glob("rows/*/??/*.h5"))))
                yield crops

        yield from super().run(watched())


@pytest.fixture
def engine(fake_trunk, cache, monkeypatch):
    made = Watched(cache)
    monkeypatch.setattr(engines, "make_engine", lambda *given: made)
    return made


@pytest.fixture
def behind(monkeypatch):
    """Compute on while shards are written, as on a GPU."""
    monkeypatch.setattr(choice, "BEHIND", {"cpu": 1})
    monkeypatch.setattr(plan, "SHARD_ROWS", 4)


def test_something_is_committed_after_a_batch_of_many(tmp_path, cache, engine, monkeypatch):
    monkeypatch.setattr(choice, "BATCH_SIZE", {"cpu": 32})
    extract_table(make_folder(tmp_path / "photos", each=100), RECIPE, cache)
    assert engine.there == [0, 1, 1, 2, 2, 2, 2]  # parts of 32, 64 and 104 images


def test_a_shard_is_written_while_the_next_batch_is_computed(
    tmp_path, cache, engine, behind, monkeypatch
):
    begun = []

    def commit(store, *given, **more):
        until, wanted = time.monotonic() + 30, min(len(begun) + 2, 3)  # of three batches
        while len(engine.there) < wanted and time.monotonic() < until:
            time.sleep(0.001)
        begun.append(len(engine.there))
        return REAL(store, *given, **more)

    monkeypatch.setattr(RowStore, "commit", commit)
    folder = make_folder(tmp_path / "photos", each=6)
    done = extract_table(folder, RECIPE, cache)
    assert [count >= wanted for count, wanted in zip(begun, (2, 3, 3), strict=True)] == [True] * 3
    monkeypatch.setattr(RowStore, "commit", REAL)
    want = extract_table(folder, RECIPE, Cache.at(tmp_path / "whole")).table
    np.testing.assert_array_equal(done.table.features, want.features)


@pytest.mark.parametrize("several", [False, True], ids=["a shard a part", "several"])
def test_computing_waits_for_a_slow_disk(tmp_path, cache, engine, behind, monkeypatch, several):
    if several:
        monkeypatch.setattr(plan, "SHARD_ROWS", 256)
        monkeypatch.setattr(writer, "SHARD_BYTES", 1)
    ahead, commits = [], []

    def commit(store, *given, **more):
        time.sleep(0.05)  # all batches of these small pictures take less
        commits.append(len(engine.there))
        ahead.append(len(engine.there) - len(commits))
        return REAL(store, *given, **more)

    monkeypatch.setattr(RowStore, "commit", commit)
    extract_table(make_folder(tmp_path / "photos", each=20), RECIPE, cache)
    assert len(commits) == 10 and max(ahead) <= 2


@pytest.mark.parametrize("nth", [0, 1, 8, 9])
def test_a_shard_that_cannot_be_written_ends_the_run_with_its_sentence(
    tmp_path, cache, engine, behind, monkeypatch, nth
):
    folder, calls = make_folder(tmp_path / "photos", each=20), []

    def commit(store, *given, **more):
        calls.append(1)
        if len(calls) == nth + 1:
            raise PipelineError("Cannot write the shard.")
        return REAL(store, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(RowStore, "commit", commit)
        with pytest.raises(PipelineError, match=r"^Cannot write the shard\.$"):
            extract_table(folder, RECIPE, cache)
    assert upkeep.verify(cache).problems == {} and nth < len(calls) <= nth + 3
    done = extract_table(folder, RECIPE, cache)
    want = extract_table(folder, RECIPE, Cache.at(tmp_path / "whole")).table
    np.testing.assert_array_equal(done.table.features, want.features)


def test_ctrl_c_counts_what_was_being_committed(tmp_path, cache, engine, behind):
    said = []

    class Interrupted(Silent):
        def advance(self, count, bad=0):
            if len(engine.there) == 4:
                raise KeyboardInterrupt

        def say(self, text):
            said.append(text)

    with pytest.raises(KeyboardInterrupt):
        extract_table(make_folder(tmp_path / "photos", each=20), RECIPE, cache, Interrupted())
    (store,) = cache.stores()
    kept = len(store.index().rows)
    assert kept == 12 and said[-1] == f"{kept} of 40 images are in the cache."
