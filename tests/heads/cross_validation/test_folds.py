from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold
from tables import clouds, make_table

from pipeline.heads.cross_validation.near_duplicates import find_near_duplicates
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.task import (
    assign,
    entering,
    make_folds,
    make_group_ids,
    possible,
    split_rows,
    subsample,
)


@st.composite
def images(draw, *, single=False):
    """Labels and group_ids; group_ids are numbered in order of their first image."""
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=2, max_size=40)))
    if single:
        return labels, np.arange(len(labels))
    names = [draw(st.sampled_from(["", *"abcdefgh"])) for _ in labels]
    return labels, make_group_ids([str(n) for n in range(len(labels))], names)


def test_equal_files_and_equal_groups_are_one_unit_also_through_others():
    digests = ["a", "b", "a", "c", "d", "e"]
    groups = ["", "g", "h", "h", "", ""]
    assert make_group_ids(digests, None).tolist() == [0, 1, 0, 2, 3, 4]
    assert make_group_ids(digests, groups).tolist() == [0, 1, 0, 0, 2, 3]


def test_images_without_a_group_are_not_tied_to_each_other():
    assert make_group_ids(["a", "b", "c"], ["", "", ""]).tolist() == [0, 1, 2]


def test_tied_images_are_one_unit_with_all_that_they_are_tied_to():
    digests = ["a", "b", "a", "c", "d", "c"]
    assert make_group_ids(digests, None, [(4, 0), (1, 5)]).tolist() == [0, 1, 0, 1, 0, 1]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["", *"xyz"])), min_size=1))
def test_units_are_exactly_the_connected_parts(pairs):
    group_ids = make_group_ids([d for d, _ in pairs], [g for _, g in pairs])
    tied = np.array([[a == c or (b == d != "") for c, d in pairs] for a, b in pairs])
    for _ in pairs:
        tied = (tied.astype(int) @ tied) > 0
    np.testing.assert_array_equal(group_ids[:, None] == group_ids, tied)
    first = [int(np.flatnonzero(group_ids == u)[0]) for u in range(group_ids.max() + 1)]
    assert first == sorted(first)


@given(images(), st.integers(2, 6), st.integers(0, 5))
def test_every_image_is_in_one_fold_and_units_are_whole(data, count, seed):
    labels, group_ids = data
    count = min(count, group_ids.max() + 1)
    of = assign(labels, group_ids, max(count, 1), seed)
    assert len(of) == len(labels) and set(of.tolist()) == set(range(max(count, 1)))
    for number in np.unique(group_ids):
        assert len(set(of[group_ids == number])) == 1


@given(images(single=True), st.integers(2, 6), st.integers(0, 5))
def test_single_images_are_stratified_within_one(data, count, seed):
    labels, group_ids = data
    count = min(count, len(labels))
    of = assign(labels, group_ids, count, seed)
    for label in np.unique(labels):
        sizes = np.bincount(of[labels == label], minlength=count)
        assert sizes.max() - sizes.min() <= 1
    total = np.bincount(of, minlength=count)
    assert total.max() - total.min() <= len(np.unique(labels))


def test_folds_depend_on_the_seed_alone():
    labels, group_ids = np.arange(30) % 3, np.arange(30)
    one, same, other = (assign(labels, group_ids, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_there_are_as_many_folds_as_the_second_most_spread_class_has_units():
    few = np.array([0] * 10 + [1] * 3 + [2])
    assert possible(few, np.arange(14), 5) == 3
    assert possible(few, np.arange(14), 2) == 2
    assert possible(np.array([0] * 10 + [1]), np.arange(11), 5) == 0
    assert possible(np.array([0] * 10), np.arange(10), 5) == 0
    copies = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 11])
    assert possible(few, copies, 5) == 0


@settings(max_examples=300)
@given(images(), st.integers(2, 6), st.integers(0, 5))
def test_folds_part_the_rows_and_always_leave_two_classes_to_train_on(data, count, seed):
    labels, group_ids = data
    rows = np.arange(len(labels)) * 3 + 1
    folds = make_folds(rows, labels, group_ids, count=count, seed=seed)
    assert len(folds) <= count and len(folds) != 1
    if folds:
        held = np.concatenate([scored for _, scored in folds])
        assert sorted(held) == rows.tolist()
    for train, scored in folds:
        assert not set(train) & set(scored) and len(train) + len(scored) == len(rows)
        assert len(set(labels[np.isin(rows, train)])) >= 2
        assert not set(group_ids[np.isin(rows, train)]) & set(group_ids[np.isin(rows, scored)])


def test_a_few_groups_of_mixed_classes_do_not_leave_a_fold_with_one_class_to_train_on():
    # the two groups with the rare class are both lighter in the common one than the third
    labels = np.array([0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0])
    group_ids = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
    folds = make_folds(np.arange(11), labels, group_ids, count=5, seed=0)
    assert all(len(set(labels[train])) == 2 for train, _ in folds)


@given(images(), st.integers(1, 5), st.integers(0, 5))
def test_shots_are_at_most_that_many_of_each_class_and_one_of_each_unit(data, shots, seed):
    labels, group_ids = data
    rows = subsample(labels, group_ids, shots=shots, fraction=None, seed=seed)
    assert rows.tolist() == sorted(set(rows.tolist()))
    for label in np.unique(labels):
        chosen = rows[labels[rows] == label]
        distinct = len(np.unique(group_ids[labels == label]))
        assert len(chosen) == min(shots, distinct)
        assert len(np.unique(group_ids[chosen])) == len(chosen)


@given(images(), st.floats(0.01, 1), st.integers(0, 5))
def test_a_fraction_is_that_share_of_each_class_and_at_least_one_image(data, fraction, seed):
    labels, group_ids = data
    rows = subsample(labels, group_ids, shots=None, fraction=fraction, seed=seed)
    want = {k: max(1, round(fraction * n)) for k, n in Counter(labels.tolist()).items()}
    assert Counter(labels[rows].tolist()) == want
    np.testing.assert_array_equal(rows, np.unique(rows))


@pytest.mark.parametrize("part", [{"shots": 3, "fraction": None}, {"shots": None, "fraction": 0.4}])
def test_a_subsample_depends_on_its_seed(part):
    labels, group_ids = np.arange(60) % 3, np.arange(60)
    one, same, other = (subsample(labels, group_ids, seed=seed, **part) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert one.tolist() != other.tolist()


@given(images(), st.integers(0, 5))
def test_growing_parts_are_nested_keep_units_whole_and_have_every_class_that_leads_a_unit(
    data, seed
):
    labels, group_ids = data
    joins = entering(labels, group_ids, seed)
    assert ((joins >= 0) & (joins < 1)).all()
    for number in np.unique(group_ids):
        assert len(set(joins[group_ids == number])) == 1
    _, first = np.unique(group_ids, return_index=True)
    smallest = joins < 1e-9
    assert set(labels[first]) <= set(labels[smallest])


def test_growing_parts_hold_their_share_of_each_class():
    labels = np.repeat([0, 1, 2], [200, 100, 40])
    joins = entering(labels, np.arange(340), 3)
    for fraction in (0.1, 0.25, 0.5, 0.9):
        counts = np.bincount(labels[joins < fraction])
        assert np.abs(counts - fraction * np.array([200, 100, 40])).max() <= 1
    assert (entering(labels, np.arange(340), 3) == joins).all()
    assert (entering(labels, np.arange(340), 4) != joins).any()


def test_without_ties_the_folds_are_scikit_learns():
    labels = np.random.default_rng(0).integers(0, 4, 90)
    folds = make_folds(np.arange(90), labels, np.arange(90), count=5, seed=3)
    want = StratifiedKFold(5, shuffle=True, random_state=3).split(labels, labels)
    for (_, held), (_, wanted) in zip(folds, want, strict=True):
        assert held.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("labels", "group_ids"),
    [
        (np.repeat(np.arange(4), [60, 60, 2, 1]), np.arange(123)),  # a few rare classes
        (np.repeat([0, 1, 2], 30), np.r_[np.arange(60), np.full(30, 60)]),  # a class in one group
        (np.repeat(np.arange(1000), 2), np.arange(2000)),  # many classes of two images each
        (np.repeat([0, 1], [40, 3]), np.r_[np.arange(40), 40, 40, 41]),  # a fold lacks a class
    ],
)
def test_hard_cases_are_parted_into_folds_that_leave_something_to_learn(labels, group_ids):
    folds = make_folds(np.arange(len(labels)), labels, group_ids, count=5, seed=0)
    assert len(folds) >= 2
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(len(labels)))
    sizes = [len(held) for _, held in folds]
    assert max(sizes) - min(sizes) <= max(np.bincount(group_ids).max(), len(set(labels)))
    for fitted, held in folds:
        assert not set(group_ids[fitted]) & set(group_ids[held])
        assert len(set(labels[fitted])) >= 2


def test_many_images_of_a_thousand_classes_are_dealt_evenly_around_a_pair_that_is_tied():
    labels = np.arange(200_000) % 1000
    group_ids = np.arange(200_000)
    group_ids[:2] = 0
    of = assign(labels, group_ids, 5, 0)
    counts = np.bincount(of * 1000 + labels, minlength=5000).reshape(5, 1000)
    assert of[0] == of[1] and counts.max() - counts.min() <= 1


def test_near_copies_within_train_share_a_fold_and_a_scene_that_is_a_class_does_not():
    x, labels = clouds(120, 32, 3, apart=0.5)
    x[21] = x[42] * 1.0001
    scene = np.flatnonzero(labels == 2)[:12]
    # each nearest to the one before it, by more than any processor's rounding
    along = np.cumsum(0.02 * 1.2 ** np.arange(12))[:, None]
    x[scene] = x[scene[0]] + along * np.random.default_rng(0).normal(0, 1, 32)
    made = make_table(features=x, labels=labels, splits=("train",) * 120)
    found = find_near_duplicates(x, made.digests, made.splits, pairs=[("train", "train")])
    notes: list[str] = []
    task = split_rows(made, FitHeadOptions(), notes, found)
    assert any({21, 42} <= set(held.tolist()) for _, held in task.folds)
    assert not any(set(scene.tolist()) <= set(held.tolist()) for _, held in task.folds)
    assert any("1 set of near-copies in train (12 images the largest)" in note for note in notes)
