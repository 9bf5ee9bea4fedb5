"""Whatever stage two does, the process is afterwards as it was before."""

import sys
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
from global_state import snapshot
from joblib import parallel_config
from sklearn.exceptions import ConvergenceWarning
from tables import clouds, make_table

import pipeline
from pipeline.errors import PipelineError
from pipeline.heads import fit_head as module
from pipeline.heads import head as head_module
from pipeline.heads.cross_validation import candidates
from pipeline.heads.estimators.classifiers import ShrinkageLDA
from pipeline.heads.head import Head
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.registry import HEADS
from pipeline.store.cache import Cache


@pytest.fixture(autouse=True, scope="module")
def first_imports(tmp_path_factory):
    """Import all that is imported on first use; what an import sets stays."""
    small = make_table(train=12, val=4, classes=2)
    folder = tmp_path_factory.mktemp("first")
    for name in ("linear", "lda", "nb"):
        head = pipeline.fit_head(small, clf=name, cache=folder, folds=2, jobs=1)
        Head.open(head.folder).predict(small)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("jobs", [1, 2])
def test_fitting_and_predicting_leave_everything_as_it_was(tmp_path, two_threads, processes, jobs):
    table = make_table(train=48, val=12, test=12)
    grids = {"logreg": "0.1", "svm": "1e-4", "mlp": "1", "svm-rbf": "1"}
    for name in HEADS if jobs == 1 else ("lda", "linear"):
        for reused in (False, True):
            before = snapshot()
            recipe = FitHeadOptions(clf=name, folds=2, jobs=jobs, grid=grids.get(name))
            done = module.fit_heads(table, recipe, Cache.at(tmp_path))
            assert snapshot() == before, name
            assert bool(done.reused) == reused
        before = snapshot()
        Head.open(done.heads[0].folder).predict(table)
        assert snapshot() == before, name


def test_wide_features_leave_the_number_of_threads_as_it_was(tmp_path, two_threads):
    x, y = clouds(1500, 720, 2)  # more numbers than one thread takes alone
    table = make_table(features=x, labels=y, classes=2, splits=("train",) * 1500)
    before = snapshot()
    pipeline.fit_head(table, clf="linear", cache=tmp_path, folds=2, grid="0.001")
    assert snapshot() == before


@pytest.mark.parametrize("error", [PipelineError("no"), ValueError("bug"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["linear", "lda"])
def test_a_call_that_fails_leaves_everything_as_it_was(tmp_path, two_threads, name, error):
    class Failing:
        def __getattr__(self, _):
            return lambda *a, **k: None

        def update(self, *a, **k):
            raise error

    table = make_table(train=48)
    before = snapshot()
    with parallel_config(backend="threading", n_jobs=2), pytest.raises(type(error)) as caught:
        options = FitHeadOptions(clf=name, folds=2)
        module.fit_heads(table, options, Cache.at(tmp_path), Failing())
    assert snapshot() == before  # while the traceback still holds every frame
    assert caught.value is not None


def test_features_that_are_refused_leave_everything_as_it_was(tmp_path):
    table = make_table(train=24, val=6)
    head = pipeline.fit_head(table, clf="nb", cache=tmp_path, folds=2, jobs=1)
    before = snapshot()
    with pytest.raises(PipelineError, match="not finite"):
        head.predict(np.full((2, 24), np.nan))
    assert snapshot() == before


def test_threads_of_the_caller_share_the_warning_filters_and_tell_their_own_warnings(monkeypatch):
    """The first fit begins first and ends first: restoring one by one would end in its filters."""
    first_fits, second_fits, made = threading.Event(), threading.Event(), []

    class Meeting(ShrinkageLDA):
        def fit(self, X, y):
            if not made.index(self):
                first_fits.set()
                assert second_fits.wait(10)
                warnings.warn("not yet", ConvergenceWarning, stacklevel=1)
            else:
                second_fits.set()
                done.wait(0.3)
            return super().fit(X, y)

    def make(seed, balanced):
        estimator = Meeting()
        made.append(estimator)
        if made.index(estimator):
            assert first_fits.wait(10)
        return estimator

    done = threading.Event()
    monkeypatch.setitem(HEADS, "lda", replace(HEADS["lda"], make=make))
    x, y = clouds(30, 4, 2)
    rows = np.arange(30)
    before = snapshot()
    with parallel_config(backend="threading", n_jobs=2):
        results = list(
            candidates.out_of_fold(
                "lda", [{"shrinkage": 0.5}], x, y, [(rows[:20], rows[20:]), (rows[10:], rows[:10])],
                classes=2, balanced=False, seed=0,
                workers=candidates.Workers(None),
            )
        )  # fmt: skip
    assert snapshot() == before
    assert [converged for _, _, _, converged in results] == [False, True]


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "skops.io", raising=False)
    monkeypatch.delitem(sys.modules, "sklearn.externals.array_api_compat.torch", raising=False)


def test_the_way_to_torch_is_barred_no_longer_than_an_import_takes(monkeypatch, without_torch):
    barred = []

    def import_module(name):
        barred.append(sys.modules.get("sklearn.externals.array_api_compat.torch", "open"))
        raise ImportError(name)

    monkeypatch.setattr(head_module, "import_module", import_module)
    before = [name for name, module in sys.modules.items() if module is None]
    threads = [threading.Thread(target=pytest.raises, args=(ImportError, head_module._skops))
               for _ in range(8)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert barred == [None] * 8
    assert [name for name, module in sys.modules.items() if module is None] == before
