"""Small and awkward tables: each works, or says in a sentence why not."""

import json

import numpy as np
import pytest
from fitting import QUICK, fitted, folders
from tables import clouds, make_table

from pipeline.errors import PipelineError
from pipeline.heads.fit_head import fit_heads
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.registry import HEADS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_class_with_fewer_images_than_folds_gets_fewer_folds_and_it_is_said(cache):
    labels = np.array([0] * 20 + [1] * 3)
    done = fitted(make_table(train=23, classes=2, labels=labels), cache, QUICK)
    assert not done.failed
    done = fit_heads(
        make_table(train=23, classes=2, labels=labels),
        FitHeadOptions(clf="lda", folds=5, jobs=1),
        cache,
    )
    assert done.heads[0].info.folds == 3
    assert done.notes == (
        "A class has too few different training images for 5 folds: 3 were used.",
    )


def test_a_class_with_one_image_works_with_every_head(cache):
    labels = np.array([0] * 15 + [1] * 15 + [2])
    done = fitted(make_table(train=31, labels=labels, apart=4), cache, "all", grid=None)
    assert not done.failed and len(done.heads) == len(HEADS)
    for head in done.heads:
        json.dumps(head.info.to_json(), allow_nan=False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_two_images_in_all_are_fitted_untried_by_every_head(cache):
    table = make_table(train=2, classes=2, apart=4)
    done = fitted(table, cache, "all")
    assert not done.failed
    assert done.notes == (
        "Too few different training images to compare anything: the middle of each grid was "
        "taken untried.",
    )
    for head in done.heads:
        assert head.info.score is None and head.info.metrics == {}
        assert head.predict(table).tolist() == ["class000", "class001"], head.info.clf


REFUSED = {
    "one class": ({"labels": np.zeros(12), "classes": 2}, "are of one class, 'class000': there is"),
    "no labels": ({"labels": -np.ones(12)}, "has no labels; a head needs images that are sorted"),
    "no train": ({"splits": ("val",) * 6 + ("test",) * 6}, "no training .*splits are val, test"),
    "one image": ({"features": np.ones((1, 4)), "labels": [0], "splits": ("train",)}, "one class"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_no_head_can_be_fitted_on_is_refused_in_a_sentence(cache, case):
    changes, message = REFUSED[case]
    with pytest.raises(PipelineError, match=message):
        fitted(make_table(**{"train": 12, **changes}), cache)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [3, 70])
def test_a_table_with_values_that_are_not_finite_is_refused_with_their_paths(
    tmp_path, cache, value, row
):
    good = make_table(train=60, val=24)
    x = good.features.copy()
    x[row, 2] = value
    bad = make_table(tmp_path / "bad.h5", features=x, splits=good.splits)
    with pytest.raises(
        PipelineError, match=rf"1 images of .*bad.h5 .*not finite \({bad.paths[row]}"
    ):
        fitted(bad, cache)
    assert folders(cache) == []


def test_a_thousand_classes_work(cache):
    table = make_table(train=2000, test=1000, dim=12, classes=1000, apart=6)
    heads = [
        fitted(table, cache, name, grid=grid).heads[0]
        for name, grid in (("ncm", None), ("lda", "0.1"), ("ridge", "1"))
    ]
    for head in heads:
        values = head.info.metrics["test"]
        assert values.top5 >= values.accuracy and len(values.classes) == 1000
    assert heads[1].info.metrics["test"].accuracy > 0.5


def test_features_that_never_change_do_no_harm(cache):
    x, _ = clouds(84, 10, 3, apart=3)
    x[:, 3], x[:60, 4] = 0, 5
    splits = ("train",) * 60 + ("val",) * 24
    done = fitted(make_table(features=x, splits=splits), cache, QUICK)
    assert not done.failed
    assert all(np.isfinite(h.info.metrics["val"].log_loss) for h in done.heads)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_feature_that_changes_works_or_is_a_sentence(cache):
    table = make_table(features=np.ones((30, 4)), splits=("train",) * 30)
    done = fitted(table, cache, "ncm,nb,lda,ridge")
    assert set(done.failed) <= {"ncm", "nb"} and {"lda", "ridge"} <= {
        h.info.clf for h in done.heads
    }
    assert all("could not be fitted: " in sentence for sentence in done.failed.values())
    assert any(note.startswith("All 30 images have the same features") for note in done.notes)
    with pytest.raises(PipelineError, match=r"nb could not be fitted: .*vary at all"):
        fitted(table, cache, "nb")


def test_rows_without_a_label_are_left_out_and_counted(cache):
    labels = np.arange(84) % 3
    labels[[3, 4, 70]] = -1
    done = fitted(make_table(train=60, val=24, labels=labels), cache)
    info = done.heads[0].info
    assert info.train_images == 58 and info.metrics["val"].images == 23
    assert done.notes == ("2 training images without a label were left out.",)


def test_severe_imbalance_is_seen_beside_the_accuracy(cache):
    labels = np.array([0] * 195 + [1] * 5 + [0] * 97 + [1] * 3)
    done = fitted(make_table(train=200, val=100, labels=labels, classes=2), cache, QUICK)
    for head in done.heads:
        values = head.info.metrics["val"]
        assert values.baseline == 0.97 and values.classes[1]["images"] == 3
        assert 0 <= values.balanced_accuracy <= 1


def test_classes_without_a_training_image_are_counted(cache):
    labels = np.array([0, 1, 2] * 20 + [3, 4] * 5)
    splits = ("train",) * 60 + ("val",) * 10
    table = make_table(train=60, val=10, classes=5, labels=labels, splits=splits)
    for clf in ("ncm", "logreg"):
        notes = fitted(table, cache, clf).notes
        assert any(
            "2 classes without a training image, which no head can predict: 'class003' and "
            "'class004'" in note
            for note in notes
        ), notes


def test_half_dead_features_are_counted(cache):
    x, _ = clouds(60, 10, 3, apart=3)
    x[:, :5] = 0
    notes = fitted(make_table(features=x, splits=("train",) * 60), cache, "ncm").notes
    assert any("5 of 10 features are the same in all 60 images" in note for note in notes)
