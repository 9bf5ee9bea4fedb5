import json

import numpy as np
import pytest
from fitting import fitted
from hypothesis import given
from hypothesis import strategies as st
from tables import make_table

from pipeline.errors import PipelineError
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.task import Task, _aside, find_head, fitted_on, refit
from pipeline.heads.cross_validation.search import Plan, search
from pipeline.heads.resolve import find
from pipeline.heads.task import make_folds
from pipeline.store.results import MODEL


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=2, max_size=60))
def test_the_part_set_aside_keeps_groups_whole_and_leaves_classes_to_learn(pairs):
    labels = np.array([label for label, _ in pairs])
    _, group_ids = np.unique([group for _, group in pairs], return_inverse=True)
    aside = _aside(labels, group_ids, 0)
    if aside is None:
        return
    assert aside.any() and not aside.all()
    assert not set(group_ids[aside]) & set(group_ids[~aside])
    assert len(np.unique(labels[~aside])) > 1


@given(st.integers(0, 300))
def test_a_class_of_one_image_stays_where_it_can_be_learned(seed):
    labels = np.array([0] * 12 + [1] * 12 + [2])
    aside = _aside(labels, np.arange(25), seed)
    assert aside is not None and not aside[24] and 3 <= aside.sum() <= 7


def test_two_images_of_two_classes_are_too_few():
    assert _aside(np.array([0, 1]), np.array([0, 1]), 0) is None


@pytest.fixture
def current(cache):
    """Return the current table, with heads and a newer fit on a few shots."""
    made = make_table(cache.tables / "photos--fake--0123456789ab.h5", train=60, val=24, dim=8)
    cache.set_current(made.path)
    for clf in ("logreg", "ridge"):
        fitted(made, cache, clf, grid="1")
    few = fitted(made, cache, "logreg", grid="1", shots=5).heads[0]
    path = few.folder / "head.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "created": "2999"}))
    return made


def test_fine_tuning_starts_from_the_head_that_predict_takes_and_no_few_shots(cache, current):
    for word in ("logreg", None):
        info, table = find_head(cache, word, [])
        assert info.clf == "logreg" and not info.partial, word
        assert info.id == find(cache, "logreg").folder.name
        assert table.table_id == current.table_id == info.table_id


def test_a_head_on_a_few_shots_is_taken_where_it_is_named_or_alone(cache, current):
    few = fitted(current, cache, "logreg", grid="1", shots=5).heads[0]
    for asked in (few, few.id, few.id[:6], few.folder, str(few.folder)):
        assert find_head(cache, asked, [])[0].id == few.id, asked
    fitted(current, cache, "lda", shots=5)
    assert find_head(cache, "lda", [])[0].partial


def test_what_is_no_head_is_told_as_what_it_is(cache, current):
    folder = cache.root / "models" / "feedfeedfeed"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    assert MODEL.folders(cache.root) == [folder]
    with pytest.raises(PipelineError, match=r"model feedfeedfeed is no head: fine-tuning starts"):
        find_head(cache, folder.name, [])
    with pytest.raises(PipelineError, match=r"no head or model 'logrge'.*Did you mean logreg"):
        find_head(cache, "logrge", [])
    with pytest.raises(PipelineError, match=r"no head of kind svm; it has ridge \w+, logreg"):
        find_head(cache, "svm", [])


def test_the_table_of_a_head_that_is_gone_is_told_with_its_id(cache, current):
    current.path.unlink()
    (folder, *_) = sorted((cache.root / "heads").iterdir())
    with pytest.raises(PipelineError, match=rf"\({current.table_id[:12]}\) is not in the cache"):
        find_head(cache, folder, [])


def test_it_is_said_on_how_much_a_head_was_fitted(cache, current):
    whole, table = find_head(cache, "logreg", [])
    assert fitted_on(whole, table) == "fitted on all 60 training images"
    few = fitted(current, cache, "logreg", grid="1", shots=5).heads[0].info
    assert fitted_on(few, table) == "fitted on 5 images a class (15 of 60 training images)"
    part = fitted(current, cache, "logreg", grid="1", train_fraction=0.5).heads[0].info
    assert fitted_on(part, table) == "fitted on 0.5 of each class (30 of 60 training images)"


@pytest.mark.parametrize(("rate", "next_one"), [(1e6, 3e-4), (1e-3, 1e-4), (None, 3e-5)])
def test_a_diverged_run_is_advised_a_rate_that_can_work(rate, next_one):
    assert FinetuneOptions(lr=rate).gentler_rate == pytest.approx(next_one)


def test_an_infinite_learning_rate_is_called_what_it_is():
    with pytest.raises(PipelineError, match="--lr inf is not a finite number"):
        FinetuneOptions(lr=float("inf")).check()


@pytest.mark.parametrize("clf", ["ridge", "svm", "lda", "logreg"])
def test_a_head_is_fitted_again_with_the_temperature_that_its_folds_chose(cache, monkeypatch, clf):
    made = make_table(
        cache.tables / "photos--fake--0123456789ab.h5", train=60, val=24, test=24, dim=24, apart=0.8
    )
    info = fitted(made, cache, clf, grid="0.1").heads[0].info
    every = np.arange(60)
    whole = Task(info, made, FinetuneOptions(), cache.root, every, every, "val", {}, every)
    folds = make_folds(every, made.labels[:60], every, count=3, seed=0)
    again = search(
        clf, made.features, made.labels, classes=3, train=every, folds=folds, plan=Plan(grid=(0.1,))
    ).chosen.temperature
    searched = []

    def spy(*given, **options):
        searched.append(options["folds"])
        return search(*given, **options)

    monkeypatch.setattr("pipeline.finetuning.task.search", spy)
    found = refit(whole, every)
    assert found.linear.temperature == pytest.approx(again * info.calibration_temperature, rel=1e-6)
    assert found.linear.temperature == found.chosen.temperature != 1.0
    half = refit(whole, every[::2])
    assert half.linear.temperature == found.linear.temperature and searched == [[], []]
