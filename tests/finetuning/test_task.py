import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.finetuning.task import _aside


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=2, max_size=60))
def test_the_part_set_aside_keeps_units_whole_and_leaves_classes_to_learn(pairs):
    labels = np.array([label for label, _ in pairs])
    _, group_ids = np.unique([group_ids for _, group_ids in pairs], return_inverse=True)
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
