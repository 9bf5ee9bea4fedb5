"""Every command works on a table whose features lie in parts, and gives what it gives otherwise."""

import json
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_folder
from photos import OPTIONS, tune

import pipeline
from pipeline.cli import main
from pipeline.errors import DamagedError
from pipeline.extraction import extract
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.columns import parts
from pipeline.store.columns.checked import Unread
from pipeline.store.columns.parts import PartedRows
from pipeline.store.table import FeatureTable

ASKED = ExtractOptions(precision="fp32", views=2)


@pytest.fixture
def small(monkeypatch):
    """Put everything larger than nothing into parts of three rows of the fake trunk."""
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setattr(parts, "PART", 3 * 11 * 4)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


def call(cache, *words):
    done = CliRunner().invoke(main, [*words, "--cache", str(cache)])
    assert done.exit_code == 0, done.output
    return done.stdout


def written(path):
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_extract_writes_the_same_table_in_parts(folder, cache, tmp_path, fake_trunk, monkeypatch):
    one = extract_table(folder, ASKED, Cache.at(tmp_path / "one")).table
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setattr(parts, "PART", 3 * 11 * 4)
    parted = extract_table(folder, ASKED, cache).table
    assert isinstance(parted.features, PartedRows) and isinstance(parted.views, PartedRows)
    assert isinstance(one.features, np.memmap) and len(parted.features.parts) == 7
    assert parted.table_id == one.table_id and parted.shards == one.shards
    np.testing.assert_array_equal(parted.features, one.features)
    np.testing.assert_array_equal(parted.views, one.views)


def test_a_warm_run_reads_little_of_it(folder, cache, fake_trunk, small, monkeypatch):
    first = extract_table(folder, ASKED, cache)
    looked = []  # at the first thousand rows, for features that are the same in all
    monkeypatch.setattr(extract, "flat_notes", lambda rows: looked.append(rows) or ())
    read, files = [], {path: written(path) for path in first.table.files}
    check = PartedRows.check
    monkeypatch.setattr(PartedRows, "check", lambda self, n: read.append(n) or check(self, n))
    assert extract_table(folder, ASKED, cache).extracted == 0
    table = cache.open_table()
    listed = pipeline.list_tables(cache.root)
    assert read == []
    assert listed[0].bytes == table.nbytes > 0
    assert {path: written(path) for path in table.files} == files and len(looked) == 1


@pytest.mark.parametrize("column", ["features", "views"])
def test_what_is_damaged_is_made_again_by_the_same_run(folder, cache, fake_trunk, small, column):
    table = extract_table(folder, ASKED, cache).table
    rows = getattr(table, column)
    want = np.array(rows)
    data = bytearray(rows.path(1).read_bytes())
    data[-9] ^= 4
    rows.path(1).write_bytes(data)
    rows.path(2).unlink()
    verdict = upkeep.verify(cache)
    assert set(verdict.problems) == {str(rows.path(1)), str(rows.path(2))}
    assert verdict.repairs == [table.provenance.command]
    done = extract_table(folder, ASKED, cache)
    assert (done.extracted, done.views_computed) == (0, 0)
    assert upkeep.verify(cache).problems == {}
    np.testing.assert_array_equal(getattr(cache.open_table(), column), want)


def test_what_verify_finds_is_mended_though_no_time_tells_of_it(
    folder, cache, fake_trunk, small, monkeypatch
):
    monkeypatch.setattr(extract, "flat_notes", lambda rows: ())  # which would find it first
    features = extract_table(folder, ASKED, cache).table.features
    path, want = features.path(1), np.array(features)
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)
    parts.remember(features.folder, {path.name: parts.Stamp.of(path.stat())})
    extract_table(folder, ASKED, cache)
    assert list(upkeep.verify(cache).problems) == [str(path)]
    extract_table(folder, ASKED, cache)
    assert upkeep.verify(cache).problems == {}
    np.testing.assert_array_equal(cache.open_table().features, want)


def test_views_that_are_added_leave_the_features_where_they_are(folder, cache, fake_trunk, small):
    before = extract_table(folder, ExtractOptions(precision="fp32"), cache).table
    inodes = {path: path.stat().st_ino for path in before.features.paths}
    after = extract_table(folder, ASKED, cache).table
    assert after.view_count == 2
    assert {path: path.stat().st_ino for path in after.features.paths} == inodes


def test_a_table_in_parts_may_be_taken_elsewhere(folder, cache, fake_trunk, small, tmp_path):
    table = extract_table(folder, ASKED, cache).table
    want = np.array(table.features)
    shutil.move(table.path, tmp_path / "mine.h5")
    shutil.move(parts.folder_of(table.path), tmp_path / "mine.parts")
    found = FeatureTable.open(tmp_path / "mine.h5")
    np.testing.assert_array_equal(found.features, want)
    os.rename(tmp_path / "mine.parts", tmp_path / "lost.parts")
    with pytest.raises(DamagedError, match=r"mine\.parts/.* is missing.* makes it again"):
        _ = FeatureTable.open(tmp_path / "mine.h5").features[0]


def test_every_command_gives_what_it_gives_on_one_file(work, monkeypatch):
    shutil.copytree(work / "cache", work / "parts")
    shutil.rmtree(work / "parts" / "tables")
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setattr(parts, "PART", 11 * 512 * 4)
    table = pipeline.extract(work / "photos", cache=work / "parts", **OPTIONS)
    assert len(table.features.parts) == 5
    told = {}
    for kind in ("cache", "parts"):
        cache = work / kind
        for clf in ("linear", "logreg", "svm-rbf"):
            call(cache, "fit-head", "--clf", clf, "--folds", "2")
        heads = json.loads(call(cache, "heads", "--json"))["heads"]
        scores = json.loads(call(cache, "evaluate", "--json"))["metrics"]
        found = json.loads(call(cache, "audit", "--json"))["findings"]
        call(cache, "show", "--output", str(work / f"{kind}.png"), "--data", str(work / "photos"))
        page = str(work / f"{kind}.html")
        call(cache, "report", "--output", page, "--data", str(work / "photos"))
        told[kind] = ([(head["id"], head["metrics"]) for head in heads], scores, found)
    assert told["cache"] == told["parts"]
    heads = json.loads(call(work / "parts", "heads", "--json"))["heads"]
    head = next(one["id"] for one in heads if one["clf"] == "linear")
    shutil.rmtree(work / "cache")
    (work / "parts").rename(work / "cache")
    read = []
    monkeypatch.setattr(PartedRows, "check", lambda self, n: read.append(n))
    monkeypatch.setattr(Unread, "read", lambda self: read.append(self))
    for words in (
        ["status"], ["heads"], ["cache", "info"], ["cache", "gc", "--dry-run"],
        ["fit-head", "--clf", "linear", "--folds", "2"],  # it is there
    ):  # fmt: skip
        call(work / "cache", *words)
        assert len(read) < 5, words
    monkeypatch.undo()
    assert tune(work, head, epochs=1, views=1).info.metrics["val"].start.accuracy > 0.9
