"""Predictions against permuted labels."""

import numpy as np
import pytest

from pipeline.heads.uncertainty import permutation_test


def test_what_follows_the_labels_is_told_from_chance_and_what_does_not_is_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    guesses = np.where(rng.random(200) < 0.3, labels, rng.integers(0, 3, 200))
    group_ids = np.arange(200)
    found = permutation_test(labels, group_ids, lambda y: y == guesses, seed=0)
    assert found.p == 0.001 and found.right == (labels == guesses).sum()
    assert found.random_baseline == pytest.approx(1 / 3, abs=0.02)
    levels = [
        permutation_test(rng.permutation(labels), group_ids, lambda y: y == guesses, seed=n).p
        for n in range(60)
    ]
    assert np.mean(np.array(levels) < 0.1) < 0.25 and np.mean(levels) == pytest.approx(
        0.5, abs=0.15
    )


def test_always_guessing_the_commonest_class_is_chance():
    labels = np.array([0] * 95 + [1] * 5)
    found = permutation_test(labels, np.arange(100), lambda y: y == 0, seed=0)
    assert found.accuracy == found.random_baseline == 0.95 and found.p == 1


def test_a_group_counts_once():
    """Forty pictures of two things, each neighbour to its like, say nothing about two classes."""
    group_ids = np.repeat([0, 1], 20)
    labels, other = group_ids.copy(), np.roll(np.arange(40), 1)
    alone = permutation_test(labels, np.arange(40), lambda y: y == y[other], seed=0)
    tied = permutation_test(labels, group_ids, lambda y: y == y[other], seed=0)
    assert alone.p < 0.01 and tied.p == 1


def test_it_is_plain_json_with_an_interval():
    values = permutation_test(
        np.array([0, 1] * 10), np.arange(20), lambda y: y == 0, seed=0
    ).to_json()
    assert values["accuracy"] == 0.5 and values["interval"][0] < 0.5 < values["interval"][1]
