"""A second extraction of the same rows waits for the first and takes what that computed."""

import errno
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_folder, picture
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import pipeline
from pipeline.errors import LockedError
from pipeline.extraction.compute import _locked
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import find_rows
from pipeline.progress import Silent
from pipeline.store import shards
from pipeline.store.cache import Cache

RECIPE = ExtractOptions(precision="fp32")


class Heard(Silent):
    """Keeps what is told, and does something when a wait begins or goes on."""

    def __init__(self, begin=lambda: None, go_on=lambda: None):
        self.told, self.begin, self.go_on = [], begin, go_on

    def say(self, sentence):
        self.told.append(sentence)

    def start(self, what, total):
        if what == "waiting":
            self.begin()

    def update(self, text):
        self.go_on()


@pytest.fixture
def photos(tmp_path, fake_trunk, monkeypatch):
    monkeypatch.setattr(shards, "_POLL", 0.001)
    return make_folder(tmp_path / "photos")


@pytest.fixture
def locked(tmp_path, photos):
    """Give a cache that lacks one image's row, the lock that guards it, and how many there are."""
    cache = Cache.at(tmp_path / "cache")
    fingerprint = extract_table(photos, RECIPE, cache).table.fingerprint
    (photos / "ants" / "new.png").write_bytes(picture(99))
    return cache, cache.rows(fingerprint)


def link(source, store, name):
    store.path(name).parent.mkdir(parents=True, exist_ok=True)
    os.link(source.path(name), store.path(name))


def test_it_waits_for_the_rows_of_the_first_and_says_for_whom(photos, locked, fake_trunk, tmp_path):
    cache, store = locked
    held = store.lock()
    held.__enter__()

    def finish():
        other = Cache.at(tmp_path / "other")
        table = extract_table(photos, RECIPE, other).table
        for name in table.shards:
            link(other.rows(table.fingerprint), store, name)
        fake_trunk.batches.clear()
        held.__exit__(None, None, None)

    heard = Heard(finish)
    done = extract_table(photos, RECIPE, cache, heard)
    assert (done.extracted, done.reused) == (0, 21) and fake_trunk.batches == []
    assert heard.told[0].startswith(f"Another process (pid {os.getpid()} on ")
    assert heard.told[0].endswith("waiting for it to end, since what it computes is reused.")
    assert len(heard.told) == 2 and re.fullmatch(r"Waited \d+ s\.", heard.told[1])


def test_rows_that_come_between_the_look_and_the_lock_are_not_computed_again(
    photos, tmp_path, fake_trunk
):
    cache = Cache.at(tmp_path / "cache")
    table = extract_table(photos, RECIPE, cache).table
    keys = [(bytes.fromhex(digest), 0) for digest in table.digests]
    rows = find_rows(cache, pipeline_key(table), keys, device="cpu")
    rows.index = shards.Index()  # as it was before
    with _locked(cache, [rows], dict.fromkeys(keys, ""), RECIPE, Silent(), None):
        assert rows.computed == []


def test_views_that_another_process_computes_come_into_the_same_table(photos, tmp_path, fake_trunk):
    cache, other = Cache.at(tmp_path / "cache"), Cache.at(tmp_path / "other")
    viewed = replace(RECIPE, views=1)
    fingerprint = extract_table(photos, RECIPE, cache).table.fingerprint
    whole = extract_table(photos, viewed, other).table
    store, held = cache.rows(fingerprint), cache.rows(fingerprint).lock()
    held.__enter__()

    def finish():
        for name in set(whole.shards) - set(store.names()):
            link(other.rows(fingerprint), store, name)
        held.__exit__(None, None, None)

    done = extract_table(photos, viewed, cache, Heard(finish))
    assert done.views_computed == 0
    np.testing.assert_array_equal(done.table.views, whole.views)


def pipeline_key(table):
    from pipeline.trunks.spec import FeatureKey

    return FeatureKey.of(table.provenance)


def test_what_a_process_that_dies_has_not_computed_is_computed(photos, locked, fake_trunk):
    cache, store = locked
    program = (
        "import sys, fcntl; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, store.folder / "lock"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    heard = Heard(lambda: holder.send_signal(signal.SIGKILL))
    done = extract_table(photos, RECIPE, cache, heard)
    holder.communicate()
    assert (done.extracted, done.reused) == (1, 20)
    assert "(pid unknown)" in heard.told[0]


def test_interrupting_the_wait_leaves_at_once_and_leaves_nothing(photos, locked):
    cache, store = locked

    def stop():
        raise KeyboardInterrupt

    with store.lock(), pytest.raises(KeyboardInterrupt):
        extract_table(photos, RECIPE, cache, Heard(go_on=stop))
    assert list((cache.root / "runs").iterdir()) == []
    assert extract_table(photos, RECIPE, cache).extracted == 1


def test_it_fails_at_once_where_it_is_told_not_to_wait(photos, locked):
    cache, store = locked
    with store.lock(), pytest.raises(LockedError, match=rf"pid {os.getpid()} on .* --no-wait"):
        extract_table(photos, ExtractOptions(precision="fp32", wait=False), cache)
    (photos / "ants" / "new.png").unlink()
    with store.lock():
        assert extract_table(photos, RECIPE, cache).extracted == 0  # readers need no lock


def test_locks_are_taken_in_one_order_so_that_two_runs_never_wait_for_each_other(
    photos, tmp_path, monkeypatch
):
    cache, taken = Cache.at(tmp_path / "cache"), []
    real = shards.RowStore.lock
    monkeypatch.setattr(
        shards.RowStore, "lock",
        lambda self, *a, **k: (taken.append(self.fingerprint), real(self, *a, **k))[1],
    )  # fmt: skip
    key = pipeline_key(extract_table(photos, RECIPE, cache).table)
    taken.clear()
    several = [
        find_rows(cache, replace(key, layer=layer, pool="avg"), [(b"x" * 32, 0)], device="cpu")
        for layer in ("layer1", "layer2", "layer3", "layer4")
    ]
    for given in (several, several[::-1]):
        with _locked(cache, given, {(b"x" * 32, 0): ""}, RECIPE, Silent(), None):
            pass
    assert taken == sorted(taken[:4]) * 2


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks_it_goes_on_with_one_note(photos, tmp_path, monkeypatch, number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    heard, cache = Heard(), Cache.at(tmp_path / "cache")
    assert extract_table(photos, RECIPE, cache, heard).extracted == 20
    assert heard.told == [
        f"The file system of {cache.root} has no locks: extract into this cache in one process at "
        "a time, or the same rows are computed twice."
    ]
    assert not list(cache.root.rglob(".tmp-*"))


@pytest.fixture
def features(tmp_path):
    return pipeline.TrunkFeatures(precision="fp32", cache=tmp_path / "cache")


def test_the_threads_of_a_cross_validation_on_a_cold_cache_compute_each_row_once(photos, features):
    import joblib

    paths = sorted(map(str, photos.rglob("*.png")))
    labels = ["ants" in path for path in paths]
    model = make_pipeline(features, LogisticRegression())
    with joblib.parallel_config(backend="threading"):
        scores = cross_val_score(model, paths, labels, cv=3, n_jobs=3, error_score="raise")
    assert np.isfinite(scores).all()
    (store,) = Cache.at(features.cache).stores()
    assert sum(len(store.check(name)[0]) for name in store.names()) == len(paths)


PROGRAM = """
import sys
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
import joblib, pipeline
from pathlib import Path

paths = sorted(map(str, Path(sys.argv[1]).rglob("*.png")))
trunk = dict(trunk="squeezenet1_1", weights="random", image_size=32)
model = make_pipeline(
    pipeline.TrunkFeatures(**trunk, precision="fp32", cache=sys.argv[2]), LogisticRegression()
)
with joblib.parallel_config(backend=sys.argv[3]):
    grid = {"trunkfeatures__layer": ["layer3", "layer4"]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=int(sys.argv[4]), error_score="raise")
    search.fit(paths, ["ants" in path for path in paths])
print(search.cv_results_["mean_test_score"].tolist())
"""


@pytest.mark.slow
def test_the_workers_of_a_grid_search_on_a_cold_cache_score_as_one_does(tmp_path, photos):
    def scores(backend, jobs):
        command = [sys.executable, "-c", PROGRAM, photos, tmp_path / f"{backend}{jobs}"]
        return subprocess.check_output([*command, backend, str(jobs)], text=True, timeout=300)

    alone = scores("loky", 1)
    assert "nan" not in alone
    for backend in ("loky", "multiprocessing", "threading"):
        assert scores(backend, 2) == alone
