"""Features in parts: the same rows as in one file, and each part checked when it is read."""

import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from aging import age
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import make_table

from pipeline.errors import DamagedError, PipelineError
from pipeline.store import upkeep
from pipeline.store.columns import parts
from pipeline.store.columns.parts import Part, PartedRows
from pipeline.store.hdf5 import Streamed
from pipeline.store.table import FeatureTable

ROW = 24 * 4  # bytes of a row


@pytest.fixture
def small(monkeypatch):
    """Put everything larger than nothing into parts of ten rows."""
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setattr(parts, "PART", 10 * ROW)


@pytest.fixture
def parted(cache, small):
    """Return a table of 84 rows in nine parts, in a cache."""
    return make_table(cache.tables / "t--fake--x.h5", train=60, val=24)


def whole(**given):
    return make_table(**{"train": 60, "val": 24, **given})


def rows_in(folder, array, part):
    """Return rows as parts of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART", part)
        return parts.write(folder, Streamed.of(array))


def test_a_table_in_parts_is_the_table_in_one_file(tmp_path, parted):
    want = whole()
    assert isinstance(parted.features, PartedRows) and len(parted.features.parts) == 9
    assert parted.features.shape == want.features.shape and parted.dim == 24
    np.testing.assert_array_equal(parted.features, want.features)
    assert parted.table_id == want.table_id
    files = [path for path in parted.files if path.name != parts.WHOLE]
    assert parted.nbytes == sum(path.stat().st_size for path in files)
    again = replace(parted, path=None).write(tmp_path / "copy.h5")  # from its parts
    np.testing.assert_array_equal(again.features, want.features)
    assert sorted(p.name for p in parts.folder_of(again.path).iterdir()) == sorted(
        p.name for p in parts.folder_of(parted.path).iterdir()
    )


@settings(max_examples=40)
@given(
    rows=st.integers(1, 12),
    part=st.integers(1, 200),
    blocks=st.lists(st.integers(1, 40), max_size=8),
    half=st.booleans(),
    views=st.booleans(),
)
def test_any_limit_and_any_blocks_give_the_rows(tmp_path_factory, rows, part, blocks, half, views):
    shape = (rows, 2, 3) if views else (rows, 3)
    array = np.random.default_rng(0).random(shape).astype(np.float16 if half else np.float32)
    cuts = np.cumsum(blocks)
    given = Streamed(shape, array.dtype, lambda: np.split(array.ravel(), cuts[cuts < array.size]))
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART", part)
        patch.setattr(parts, "MAPPED", 2)
        made = parts.write(folder, given)
        back = PartedRows.of_json(json.loads(json.dumps(made.to_json())), folder, "")
        np.testing.assert_array_equal(back, array)
        np.testing.assert_array_equal(np.concatenate(list(back.blocks())), array)
    assert back.dtype == array.dtype and len(back) == rows


@settings(max_examples=60)
@given(data=st.data())
def test_it_is_indexed_as_an_array(tmp_path_factory, data):
    array = np.random.default_rng(1).random((11, 4, 3)).astype(np.float32)
    made = rows_in(tmp_path_factory.mktemp("parts"), array, data.draw(st.integers(1, 200)))
    number = st.integers(-11, 10)
    some = st.lists(number, max_size=9).map(lambda rows: np.array(rows, np.int64))
    ends = st.one_of(st.none(), st.integers(-13, 13))
    cut = st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, -1, 5]))
    mask = st.lists(st.booleans(), min_size=11, max_size=11).map(np.array)
    at = data.draw(st.one_of(number, some, cut, mask))
    np.testing.assert_array_equal(made[at], array[at])
    rows = data.draw(some)
    beside = np.arange(len(rows)) % 4
    np.testing.assert_array_equal(made[rows, beside], array[rows, beside])
    np.testing.assert_array_equal(made[rows, 1:3], array[rows, 1:3])


def test_a_row_that_is_not_there_is_refused(parted):
    for at in (84, -85, np.array([3, 84])):
        with pytest.raises(IndexError):
            parted.features[at]


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def swap(path):
    other = next(one for one in sorted(path.parent.glob("*.h5")) if one != path)
    path.write_bytes(other.read_bytes())


HARM = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, 100),
    "missing": lambda path: path.unlink(),
    "another": swap,
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_part_is_named_by_who_reads_it_and_by_verify(cache, parted, harm):
    HARM[harm](parted.features.path(3))
    name = parted.features.path(3).name
    back = FeatureTable.open(parted.path)
    assert back.table_id == parted.table_id and len(back.labels) == 84
    np.testing.assert_array_equal(back.features[:30], whole().features[:30])
    for at in (33, slice(25, 35), np.array([2, 39])):
        with pytest.raises(DamagedError, match=f"{name} is .*makes it again: pipeline extract x"):
            back.features[at]
    found = upkeep.verify(cache)
    assert list(found.problems) == [str(parted.features.path(3))]
    assert found.repairs == ["pipeline extract x"]


def test_a_part_that_is_found_damaged_is_trusted_by_nobody(parted):
    path, features = parted.features.path(3), parted.features
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    stamps = parts.recall(features.folder)
    stamps[path.name] = parts.Stamp.of(path.stat())  # a bit that flips by itself changes no time
    parts.remember(features.folder, stamps)
    assert features.damaged(trust=True) == {}
    with pytest.raises(DamagedError):
        features[30]
    assert list(features.damaged(trust=True)) == [path]


def test_parts_are_hashed_once_where_nothing_changed(parted, monkeypatch):
    monkeypatch.setattr(parts.shards, "RACY", -1e9)
    hashed = []
    real = PartedRows.check
    monkeypatch.setattr(PartedRows, "check", lambda self, n: hashed.append(n) or real(self, n))
    features = FeatureTable.open(parted.path).features
    assert features.damaged(trust=True) == {} and hashed == []
    (features.folder / parts.WHOLE).unlink()
    assert features.damaged(trust=True) == features.damaged(trust=True) == {}
    assert hashed == list(range(9))
    monkeypatch.setattr(parts, "MAPPED", 1)
    for at in (0, 15, 0, 15):
        features[at]
    assert hashed == [*range(9), 0, 1]
    os.utime(features.path(1))  # mapped anew after it was changed
    features[0], features[15]
    assert hashed == [*range(9), 0, 1, 1]


def test_writing_again_mends_what_is_damaged_and_leaves_the_rest(parted):
    folder = parts.folder_of(parted.path)
    flip(parted.features.path(3))
    parted.features.path(5).unlink()
    before = {path.name: path.stat().st_ino for path in folder.glob("*.h5")}
    again = whole().write(parted.path)
    np.testing.assert_array_equal(again.features, whole().features)
    after = {path.name: path.stat().st_ino for path in folder.glob("*.h5")}
    mended = {parted.features.path(3).name, parted.features.path(5).name}
    assert {name for name in after if after[name] != before.get(name)} == mended


class Killed(BaseException):
    """What no code of the library catches."""


def test_a_kill_at_any_step_leaves_no_table_or_a_whole_one(cache, small, monkeypatch):
    path, want, calls = cache.tables / "t--fake--x.h5", whole(), 0
    steps = ("open", "write", "fsync", "replace", "utime")
    real = {name: getattr(os, name) for name in steps}

    def count(kill_at):
        def counted(name):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == kill_at:
                    raise Killed
                return real[name](*args, **kwargs)

            return call

        for name in steps:
            monkeypatch.setattr(os, name, counted(name))

    count(None)
    want.write(path)
    total, wrote = calls, 0
    assert total > 60
    for kill_at in range(1, total + 1):
        for name in steps:
            monkeypatch.setattr(os, name, real[name])
        shutil.rmtree(cache.root)
        calls = 0
        count(kill_at)
        with pytest.raises(Killed):
            want.write(path)
        for name in steps:
            monkeypatch.setattr(os, name, real[name])
        if path.exists():
            wrote += 1
            np.testing.assert_array_equal(FeatureTable.open(path).features, want.features)
        assert upkeep.verify(cache).problems == {}
        left = {one.name: one.stat().st_ino for one in cache.tables.glob("t*/[0-9a-f]*.h5")}
        np.testing.assert_array_equal(want.write(path).features, want.features)
        now = {one.name: one.stat().st_ino for one in cache.tables.glob("t*/[0-9a-f]*.h5")}
        assert left.items() <= now.items()  # what was whole is used again
    assert 0 < wrote < 10


def test_a_full_disk_names_the_part_and_leaves_no_table(cache, small, monkeypatch):
    real, wrote = os.fsync, []

    def full(file):
        wrote.append(file)
        if len(wrote) == 8:
            raise OSError(28, "No space left on device")
        return real(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PipelineError, match=r"Cannot write the part .*No space left"):
        whole().write(cache.tables / "t--fake--x.h5")
    assert cache.table_files() == [] and upkeep.verify(cache).tables == 0


def test_gc_keeps_the_parts_of_tables_and_removes_what_none_has(cache, parted, monkeypatch):
    folder = parts.folder_of(parted.path)
    assert upkeep.garbage(cache) == {}
    stray = folder / f"{'0' * 64}.h5"
    shutil.copy(parted.features.path(0), stray)
    assert upkeep.garbage(cache) == {}  # somebody may be writing
    age(cache.root)
    assert list(upkeep.garbage(cache)) == [stray]
    upkeep.collect(cache, upkeep.garbage(cache))
    np.testing.assert_array_equal(FeatureTable.open(parted.path).features, whole().features)
    parted.path.unlink()
    assert len(upkeep.garbage(cache)) == 10
    upkeep.collect(cache, upkeep.garbage(cache))
    assert not folder.exists()


def test_views_lie_in_parts_too(tmp_path, small):
    views = np.random.default_rng(0).random((60, 2, 24)).astype(np.float32)
    made = replace(whole(), views=views).write(tmp_path / "t.h5")
    assert isinstance(made.views, PartedRows) and made.view_count == 2
    np.testing.assert_array_equal(made.views, views)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parts": [["../../etc/passwd", 84, 9]]}, "what its parts are"),
        ({"parts": [["0" * 64 + ".h5", 83, 9]]}, "as many rows"),
        ({"parts": [["0" * 64 + ".h5", -1, 9], ["0" * 64 + ".h5", 85, 9]]}, "what its parts are"),
        ({"dtype": "object"}, "what its parts are"),
        ({"shape": [84]}, "what its parts are"),
        ({"parts": 7}, "what its parts are"),
    ],
    ids=str,
)
def test_a_list_of_parts_that_cannot_be_is_refused(parted, changes, reason):
    with pytest.raises(ValueError, match=reason):
        PartedRows.of_json(parted.features.to_json() | changes, parted.path.parent, "")


def test_a_part_whose_rows_are_of_another_shape_is_refused(parted, tmp_path):
    other = make_table(tmp_path / "o.h5", train=10, dim=12).features
    shutil.copy(other.path(0), parted.features.folder)
    own = parted.features
    lies = PartedRows(own.folder, [Part(*other.parts[0])], (10, 24), own.dtype)
    with pytest.raises(DamagedError, match="another shape than its table says"):
        lies[0]


def test_it_can_be_sent_to_a_process_which_checks_what_it_reads(parted):
    sent = pickle.dumps(parted.features)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent), whole().features)
    flip(parted.features.path(3))
    with pytest.raises(DamagedError):
        pickle.loads(sent)[30]
