"""The nearest other image."""

import numpy as np
from tables import clouds

from pipeline.heads.cross_validation.near_duplicates import SURE, nearest


def brute(features, group_ids):
    x = features - features.mean(0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = []
    for i in range(len(x)):
        cosines = x @ x[i]
        cosines[group_ids == group_ids[i]] = -2
        cosines[cosines >= SURE] = -2
        found.append(int(cosines.argmax()) if cosines.max() > -2 else -1)
    return found


def test_it_is_the_largest_cosine_of_centred_features_also_across_blocks(monkeypatch):
    from pipeline.heads.cross_validation import near_duplicates

    monkeypatch.setattr(near_duplicates, "_ROWS", 7)
    x, _ = clouds(60, 12, 3)
    group_ids = np.arange(60)
    group_ids[10:14] = 10
    found, duplicated = nearest(x, group_ids)
    assert found.tolist() == brute(x, group_ids)
    assert np.flatnonzero(duplicated).tolist() == [10, 11, 12, 13]


def test_a_copy_never_votes_for_itself():
    x, _ = clouds(40, 16, 2)
    near = x[:5] + 1e-3
    twice = np.concatenate([x, x[:5], near])
    group_ids = np.concatenate([np.arange(40), np.arange(5), np.arange(40, 45)])
    found, duplicated = nearest(twice, group_ids)
    of = np.concatenate([np.arange(40), np.arange(5), np.arange(5)])
    assert (of[found] != of).all() and duplicated[:5].all() and not duplicated[5:40].any()
    blind, _ = nearest(twice, group_ids, near_duplicates=False)
    assert (of[blind] == of)[:5].all()  # only equal files are known there


def test_without_another_image_there_is_no_neighbour():
    x, _ = clouds(4, 8, 2)
    assert nearest(x, np.zeros(4, int))[0].tolist() == [-1] * 4


def test_features_that_are_all_the_same_are_no_trouble():
    found, _ = nearest(np.ones((6, 4), np.float32), np.arange(6))
    assert ((found >= 0) & (found != np.arange(6))).all()
