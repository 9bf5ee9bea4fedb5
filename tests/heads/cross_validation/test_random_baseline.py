"""Predictions against permuted labels."""

import numpy as np
import pytest

from pipeline.heads.cross_validation.random_baseline import agreement


def test_what_follows_the_labels_is_told_from_chance_and_what_does_not_is_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    guesses = np.where(rng.random(200) < 0.3, labels, rng.integers(0, 3, 200))
    unit = np.arange(200)
    found = agreement(labels, unit, lambda y: y == guesses, seed=0)
    assert found.p == 0.001 and found.right == (labels == guesses).sum()
    assert found.chance == pytest.approx(1 / 3, abs=0.02)
    levels = [
        agreement(rng.permutation(labels), unit, lambda y: y == guesses, seed=n).p
        for n in range(60)
    ]
    assert np.mean(np.array(levels) < 0.1) < 0.25 and np.mean(levels) == pytest.approx(
        0.5, abs=0.15
    )


def test_always_guessing_the_commonest_class_is_chance():
    labels = np.array([0] * 95 + [1] * 5)
    found = agreement(labels, np.arange(100), lambda y: y == 0, seed=0)
    assert found.accuracy == found.chance == 0.95 and found.p == 1


def test_a_group_counts_once():
    """Forty pictures of two things, each neighbour to its like, say nothing about two classes."""
    unit = np.repeat([0, 1], 20)
    labels, other = unit.copy(), np.roll(np.arange(40), 1)
    alone = agreement(labels, np.arange(40), lambda y: y == y[other], seed=0)
    tied = agreement(labels, unit, lambda y: y == y[other], seed=0)
    assert alone.p < 0.01 and tied.p == 1


def test_it_is_plain_json_with_an_interval():
    values = agreement(np.array([0, 1] * 10), np.arange(20), lambda y: y == 0, seed=0).to_json()
    assert values["accuracy"] == 0.5 and values["interval"][0] < 0.5 < values["interval"][1]
