"""What decoding touches of the process is as before when it has ended."""

import ctypes
import hashlib
import locale
import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image

from pipeline.images.decoding import reading
from pipeline.images.decoding.decode import decode
from pipeline.images.decoding.loader import load
from pipeline.images.decoding.quiet import quiet
from pipeline.images.preprocess import Preprocess
from pipeline.images.thumbnails import pictures, views

PRE = Preprocess(10, 8)
C_STDERR = "__stderrp" if sys.platform == "darwin" else "stderr"


@pytest.fixture
def files(tmp_path):
    """Twelve pictures of two formats, with digest and view."""
    found = []
    for n in range(12):
        path = tmp_path / f"{n}.{'jpg' if n % 2 else 'png'}"
        path.write_bytes(picture(n, size=(20, 16)))
        if n % 2:
            with Image.open(path) as image:
                image.load()
            image.save(path, "JPEG")
        found.append((str(path), hashlib.sha256(path.read_bytes()).digest(), 0))
    return found


def state():
    """Return what is global in this process and must not be left changed."""
    names = ["PIL", "PIL.Image", "PIL.TiffImagePlugin", "torchvision"]
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    return {
        "warnings": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "logging": [(log.level, log.disabled, [*log.filters], [*log.handlers]) for log in loggers],
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "numpy": (np.geterr(), np.get_printoptions()),
        "random": (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
        "locale": locale.setlocale(locale.LC_ALL),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "stderr": ctypes.c_void_p.in_dll(ctypes.CDLL(None), C_STDERR).value,
        "files": (os.fstat(1).st_ino, os.fstat(2).st_ino),
        "running": {thread.name for thread in threading.enumerate()},
    }


def all_of_it(files):
    return list(load(files, PRE, batch_size=4, workers=2))


def decoded(files):
    with quiet():
        return [decode(Path(path).read_bytes()) for path, _, _ in files]


WAYS = {
    "decode": decoded,
    "load": all_of_it,
    "pictures": lambda files: list(pictures([f[:2] for f in files], side=8, workers=2)),
    "views": lambda files: list(views(files, PRE, workers=2)),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_global_is_other_than_before(files, way):
    before = state()
    WAYS[way](files)
    assert state() == before
    WAYS[way](files)
    assert state() == before


def test_what_is_left_half_way_restores_all_the_same(files):
    before = state()
    with closing(load(files, PRE, batch_size=2, workers=2)) as batches:
        next(batches)
        assert state()["warnings"] != before["warnings"]
    assert state() == before
    stream = pictures([f[:2] for f in files], side=8, workers=2)
    next(stream)
    del stream
    assert state() == before


def test_a_damaged_image_and_an_error_restore_too(files, tmp_path, monkeypatch):
    before = state()
    lost = [*files[:3], (str(tmp_path / "x.png"), b"x" * 32, 0)]
    monkeypatch.setattr(reading, "_REASONS", {})  # what is not the file's fault
    with pytest.raises(Exception, match="Cannot read"):
        all_of_it(lost)
    assert state() == before


def test_scikit_learn_works_after_and_between_batches(files):
    """It copies the warning filters into its workers, and so reads every one of them."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2

    def learn(jobs):
        RandomForestClassifier(n_estimators=2, n_jobs=jobs).fit(x, y)
        assert len(cross_val_score(LogisticRegression(), x, y, cv=2, n_jobs=jobs)) == 2

    def filters():
        # threads of a forest may restore each other's copies, in which patterns are compiled
        return [tuple(getattr(part, "pattern", part) for part in one) for one in warnings.filters]

    learn(2)  # its import adds filters
    before = filters()
    with closing(load(files, PRE, batch_size=4, workers=2)) as batches:
        for _ in batches:
            learn(1)
            learn(2)
    assert filters() == before
    learn(2)


def test_filters_that_somebody_sets_meanwhile_stay_set():
    before = list(warnings.filters)
    with warnings.catch_warnings():
        with quiet():
            warnings.filterwarnings("error", message="mine")
            mine = warnings.filters[0]
        assert warnings.filters == [mine, *before]
    assert warnings.filters == before


def test_it_may_be_left_inside_of_catch_warnings_and_entered_there():
    before = list(warnings.filters)
    one, other = quiet(), quiet()
    one.__enter__()
    with warnings.catch_warnings():
        one.__exit__(None, None, None)
        other.__enter__()
    assert warnings.filters == before
    other.__exit__(None, None, None)
    assert warnings.filters == before


def test_many_threads_at_once_leave_nothing_behind(files):
    before, counts = state(), []

    def work():
        counts.extend(len(all_of_it(files)) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [3] * 20 and state() == before
