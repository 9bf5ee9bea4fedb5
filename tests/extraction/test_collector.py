"""What the collector of unreferenced files leaves to runs, and what it removes."""

import numpy as np
import pytest
from aging import age
from conftest import make_folder, picture

from pipeline.errors import PipelineError
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache

RECIPE = ExtractOptions(precision="fp32")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


@pytest.fixture
def cache(tmp_path):
    return Cache.at(tmp_path / "cache")


def test_an_interrupted_run_keeps_its_shards_from_the_collector(
    folder, cache, fake_trunk, monkeypatch
):
    from pipeline.extraction import plan
    from pipeline.store import upkeep

    monkeypatch.setattr(plan, "SHARD_ROWS", 4)
    calls = []

    def stop(crops):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return np.ones((len(crops), 2), np.float32)

    with monkeypatch.context() as patch:
        patch.setattr(type(fake_trunk), "run", lambda self, xs: map(stop, xs))
        with pytest.raises(KeyboardInterrupt):
            extract_table(folder, RECIPE, cache)
    assert [run.unfinished for run in cache.manifests()] == [True]
    assert upkeep.garbage(cache, unfinished=True) == {}  # it may still be running elsewhere
    age(cache.root)
    assert upkeep.garbage(cache) == {}
    given_up = upkeep.garbage(cache, unfinished=True)
    assert len(given_up) == 4  # three shards and the manifest
    assert upkeep.collect(cache, given_up) == {}
    assert upkeep.collect(cache, given_up, unfinished=True) == given_up
    assert cache.stores() == [] and list(cache.manifests()) == []


def test_the_collector_removes_only_what_nothing_names(folder, cache, fake_trunk):
    from pipeline.store import upkeep

    extract_table(folder, RECIPE, cache)
    gone = extract_table(folder, ExtractOptions(precision="bf16"), cache)
    gone.table.path.unlink()
    found = upkeep.garbage(cache)
    assert {path.parents[1].name for path in found} == {gone.table.fingerprint}
    upkeep.collect(cache, list(found))
    assert extract_table(folder, RECIPE, cache).extracted == 0
    assert extract_table(folder, ExtractOptions(precision="bf16"), cache).extracted == 20


def test_the_collector_removes_converted_trunks_that_have_no_rows(folder, cache, fake_trunk):
    from pipeline.store import upkeep

    done = extract_table(folder, RECIPE, cache)
    cache.compiled.mkdir()
    kept = cache.compiled / f"{done.table.fingerprint}.ov"
    for path in (kept, cache.compiled / f"{'e' * 64}.ov"):
        path.write_bytes(b"a network")
    assert upkeep.garbage(cache) == {cache.compiled / f"{'e' * 64}.ov": 9}


def test_a_warm_run_keeps_its_rows_from_the_collector_until_its_table_names_them(
    folder, cache, fake_trunk, monkeypatch
):
    from pipeline.extraction import extract
    from pipeline.store import upkeep

    recipe = ExtractOptions(precision="fp32", views=1)
    extract_table(folder, recipe, cache).table.path.unlink()
    unreferenced = upkeep.garbage(cache)
    assert unreferenced
    real, seen = extract.assemble, []

    def assemble(*args, **options):
        seen.append(upkeep.collect(cache, unreferenced))
        table = real(*args, **options)
        seen.append(upkeep.collect(cache, unreferenced))
        return table

    monkeypatch.setattr(extract, "assemble", assemble)
    done = extract_table(folder, recipe, cache)
    assert (done.extracted, done.views_computed) == (0, 0) and seen == [{}, {}]
    assert not list((cache.root / "runs").iterdir())


def test_a_run_that_fails_leaves_no_manifest_of_what_it_looked_up(folder, cache, fake_trunk):
    extract_table(folder, RECIPE, cache)
    (folder / "ants" / "half.png").write_bytes(picture(1)[:90])
    with pytest.raises(PipelineError):
        extract_table(folder, ExtractOptions(precision="fp32", max_bad=0), cache)
    assert not list((cache.root / "runs").glob("reading-*"))


def test_a_warm_run_needs_no_manifest_where_none_can_be_written(
    folder, cache, fake_trunk, monkeypatch
):
    from pipeline.store import cache as module

    first = extract_table(folder, RECIPE, cache)

    def full(*args, **options):
        raise PipelineError("No space left on device")

    monkeypatch.setattr(module, "write_bytes", full)
    assert extract_table(folder, RECIPE, cache).table.path == first.table.path
