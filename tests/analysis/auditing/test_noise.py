import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import clouds

from pipeline.analysis.auditing.noise import judge, suspects
from pipeline.heads.task import make_folds


def folds_of(labels, group_ids=None):
    rows = np.arange(len(labels))
    return make_folds(rows, labels, rows if group_ids is None else group_ids, count=5, seed=0)


def test_changed_labels_are_suspect_with_what_they_were():
    x, labels = clouds(300, 24, 3, apart=2.5)
    wrong = np.random.default_rng(1).choice(300, 12, replace=False)
    given_ = labels.copy()
    given_[wrong] = (labels[wrong] + 1) % 3
    rows, probabilities = judge(x, given_, folds_of(given_), classes=3)
    assert sorted(rows.tolist()) == list(range(300))
    places, suggested = suspects(given_[rows], probabilities)
    first = dict(zip(rows[places[:12]].tolist(), suggested[:12].tolist(), strict=True))
    assert len(set(first) & set(wrong.tolist())) >= 10
    assert all(first[row] == labels[row] for row in set(first) & set(wrong.tolist()))


def test_clean_and_separate_classes_have_no_suspects():
    x, labels = clouds(200, 24, 4, apart=6.0)
    rows, probabilities = judge(x, labels, folds_of(labels), classes=4)
    assert len(suspects(labels[rows], probabilities)[0]) == 0


def test_every_image_is_judged_by_a_head_that_has_not_seen_it_nor_its_copy():
    rng = np.random.default_rng(0)  # labels that only memory could know
    x = np.repeat(rng.normal(0, 1, (40, 60)), 2, axis=0).astype(np.float32)
    labels = np.repeat(rng.integers(0, 2, 40), 2)
    group_ids = np.repeat(np.arange(40), 2)

    def right(folds):
        rows, probabilities = judge(x, labels, folds, classes=2)
        return (probabilities.argmax(1) == labels[rows]).mean()

    assert right(folds_of(labels, group_ids)) < 0.65 < 0.75 < right(folds_of(labels))


def test_an_image_alone_in_its_class_is_not_judged():
    x, labels = clouds(61, 12, 2)
    labels = labels.copy()
    labels[60] = 2
    rows, probabilities = judge(x, labels, folds_of(labels), classes=3)
    assert 60 not in rows and len(rows) == 60 and probabilities.shape == (60, 3)


def test_the_threshold_of_a_class_is_its_mean_self_confidence():
    labels = np.array([0, 0, 0, 1, 1, 1])
    p = np.array([0.9, 0.8, 0.35, 0.6, 0.4, 0.5])  # of class 0; usual: 0.683, and 0.5 for class 1
    places, suggested = suspects(labels, np.stack([p, 1 - p], axis=1))
    assert (places.tolist(), suggested.tolist()) == ([2], [1])


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 1000))
def test_suspects_are_of_another_class_surest_first_and_each_once(count, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    p = rng.dirichlet(np.ones(classes), count)
    places, suggested = suspects(labels, p)
    assert (suggested != labels[places]).all()
    assert np.isin(suggested, labels).all()
    own = p[places, labels[places]]
    assert own.tolist() == sorted(own)
    assert len(set(places)) == len(places) == len(suggested)
