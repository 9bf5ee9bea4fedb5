import numpy as np
import pytest

from pipeline.store.table import flat_notes


def features(count=3000, dim=8):
    return np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)


def test_features_that_move_are_not_remarked_upon():
    assert flat_notes(features()) == ()
    few = features()
    few[:, 0] = 1
    assert flat_notes(few) == () and flat_notes(features(1)) == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "Every feature of every image is zero"), (3, "All 3,000 images have the same features")],
)
def test_features_that_are_all_equal_are_told(value, text):
    (note,) = flat_notes(np.full((3000, 8), value, np.float32))
    assert note.startswith(text) and "no head can tell them apart" in note


def test_many_features_that_never_move_are_counted():
    x = features()
    x[:, :5] = 0
    assert flat_notes(x) == ("5 of 8 features are the same in all 3,000 images.",)
    x[2999, 0] = 1
    assert flat_notes(x) == ("4 of 8 features are the same in all 3,000 images.",)
    assert flat_notes(x, np.arange(10)) == ("5 of 8 features are the same in all 10 images.",)
