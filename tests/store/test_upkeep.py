"""What the collector takes for left behind, and what it must leave to others, wherever they run."""

import hashlib
import os
import time

import numpy as np
import pytest
from aging import age
from tables import make_table

from pipeline.store import hdf5
from pipeline.store.atomic import TEMPORARY, file_clock, make_folder
from pipeline.store.upkeep import OLD, collect, garbage, usage, verify

FINGERPRINT = "f" * 64
KEYS = [(hashlib.sha256(bytes([n])).digest(), 0) for n in range(4)]
#: A process number that no process of this host has.
NOBODY = 2**22 + 12345


def commit(cache, keys=KEYS):
    """Commit a shard, and return its path."""
    store = cache.rows(FINGERPRINT)
    rows = np.ones((len(keys), 2), np.float32)
    return store.path(store.commit(keys, rows, engine="test"))


def written(path, seconds):
    """Put the time of a file that many seconds before now, by the clock of its folder."""
    when = file_clock(path.parent) - seconds
    os.utime(path, (when, when))


@pytest.mark.parametrize("number", [NOBODY, os.getpid()], ids=["of nobody", "of this process"])
def test_what_another_host_is_writing_stays_and_what_is_left_behind_goes(cache, number):
    """Whether this host has a process of that number says nothing about the writer."""
    folder = make_folder(cache.rows(FINGERPRINT).folder)
    young, old = (folder / f"{TEMPORARY}{number}-{name}.h5" for name in ("young", "old"))
    models = make_folder(cache.root / "models")
    for path in (young, old):
        path.write_bytes(b"half")
    (models / f"{TEMPORARY}{number}-young").mkdir()
    (models / f"{TEMPORARY}{number}-old").mkdir()
    written(young, OLD - 600)
    written(old, OLD + 600)
    written(models / f"{TEMPORARY}{number}-old", OLD + 600)
    assert set(garbage(cache)) == {old, models / f"{TEMPORARY}{number}-old"}
    collect(cache, garbage(cache))
    assert young.exists() and not old.exists() and len(list(models.iterdir())) == 1


def test_a_folder_into_which_somebody_writes_is_not_old(cache):
    folder = make_folder(cache.root / "models" / f"{TEMPORARY}1-abc")
    (folder / "model.safetensors").write_bytes(b"half")
    written(folder, 2 * OLD)
    assert garbage(cache) == {}
    written(folder / "model.safetensors", 2 * OLD)
    written(folder, 2 * OLD)
    assert list(garbage(cache)) == [folder]


@pytest.mark.parametrize("wrong", [-10 * OLD, 10 * OLD])
def test_the_clock_is_that_of_the_files_and_not_of_this_host(cache, monkeypatch, wrong):
    folder = make_folder(cache.root / "tables")
    for name, seconds in (("young", 60), ("old", OLD + 60)):
        (folder / f"{TEMPORARY}{name}").write_bytes(b"half")
        written(folder / f"{TEMPORARY}{name}", seconds)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + wrong)
    assert [path.name for path in garbage(cache)] == [f"{TEMPORARY}old"]


def test_where_the_clock_cannot_be_asked_nothing_is_old(cache, monkeypatch):
    temporary = make_folder(cache.root) / f"{TEMPORARY}1-abc"
    temporary.write_bytes(b"half")
    written(temporary, 10 * OLD)

    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.store.atomic.NamedTemporaryFile", full)
    assert garbage(cache) == {}


def test_what_a_run_begins_to_need_after_the_question_stays(cache):
    shard = commit(cache)
    shown = garbage(cache)
    assert list(shown) == [shard]
    with cache.reading([FINGERPRINT], KEYS[:1]):
        assert collect(cache, shown) == {} and shard.exists()
    assert collect(cache, shown) == shown and not shard.exists()


def test_rows_stay_while_they_are_read_and_no_longer(cache):
    shard = commit(cache)
    with cache.reading(["e" * 64, FINGERPRINT], KEYS[2:]):
        assert garbage(cache) == garbage(cache, unfinished=True) == {}
        (manifest,) = (cache.root / "runs").iterdir()
        kept = manifest.read_bytes()
    assert not manifest.exists() and list(garbage(cache)) == [shard]
    manifest.write_bytes(kept)  # of a run that was killed
    assert garbage(cache) == {}
    age(cache.root)
    assert set(garbage(cache)) == {shard, manifest}


def test_an_unfinished_run_is_not_given_up_while_its_rows_are_written(cache):
    cache.begin_run(FINGERPRINT, KEYS)
    shard = commit(cache)
    age(cache.root)
    assert garbage(cache) == {}
    assert len(garbage(cache, unfinished=True)) == 2
    os.utime(shard)  # a long run has just committed it
    assert garbage(cache, unfinished=True) == {}


def test_a_run_that_ends_while_the_collector_looks_keeps_its_rows(cache, monkeypatch):
    cache.begin_run(FINGERPRINT, KEYS)
    shard = commit(cache)
    real = type(cache).manifests

    def manifests(self):
        yield from real(self)
        table = make_table(cache.tables / "t--fake--x.h5", fingerprint=FINGERPRINT)
        object.__setattr__(table, "shards", (shard.name,))
        table.path.unlink()
        table.write(table.path)
        self.end_run(FINGERPRINT, KEYS)

    monkeypatch.setattr(type(cache), "manifests", manifests)
    assert garbage(cache) == {}


def test_a_manifest_that_goes_while_it_is_read_is_no_damage(cache, monkeypatch):
    cache.begin_run(FINGERPRINT, KEYS)

    class Gone(hdf5.Reader):
        def __init__(self, path):
            path.unlink()
            super().__init__(path)

    monkeypatch.setattr(hdf5, "Reader", Gone)
    assert list(cache.manifests()) == []


def test_looking_changes_nothing_and_takes_no_lock(cache):
    commit(cache)
    before = sorted(cache.root.rglob("*"))
    with cache.rows(FINGERPRINT).lock():
        assert len(garbage(cache)) == 1
    (cache.rows(FINGERPRINT).folder / "lock").unlink()
    garbage(cache)
    verify(cache)
    usage(cache)
    assert sorted(cache.root.rglob("*")) == before


def test_the_empty_folder_of_a_run_that_has_begun_stays(cache):
    cache.begin_run(FINGERPRINT, KEYS)
    with cache.rows(FINGERPRINT).lock():
        collect(cache, [])
        assert cache.rows(FINGERPRINT).folder.exists()
    cache.end_run(FINGERPRINT, KEYS)
    collect(cache, [])
    assert not cache.rows(FINGERPRINT).folder.exists()


def test_a_cache_that_is_not_there_reads_as_empty(cache):
    assert garbage(cache, unfinished=True) == collect(cache, []) == usage(cache) == {}
    found = verify(cache)
    assert (found.shards, found.tables, found.results, found.problems) == (0, 0, 0, {})
    assert cache.current() is None and cache.stores() == [] and list(cache.manifests()) == []
    assert not cache.root.exists()
