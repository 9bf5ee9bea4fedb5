"""What decides between a model and its head."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.finetuning.choosing.decision import decide


def logits(rng, labels, strength, classes=3):
    """Return noisy logits [n, K] that say so much of the labels."""
    return rng.normal(size=(len(labels), classes)) + strength * np.eye(classes)[labels]


def test_a_model_that_is_clearly_better_is_kept_and_the_better_share_of_the_way():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    head, half, model = (logits(rng, labels, s) for s in (1.0, 2.0, 3.0))
    found = decide("folds", labels, head, {0.5: half, 1.0: model})
    assert found.kept and found.share == 1.0
    assert found.gain > 1.65 * found.error and found.model_alone > found.head_alone
    assert decide("folds", labels, head, {0.5: model, 1.0: half}).share == 0.5


def test_where_nothing_is_gained_false_keeps_are_rare():
    kept = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, 60)
        shared = logits(rng, labels, 1.5)
        own = [shared + 0.5 * rng.normal(size=shared.shape) for _ in range(3)]
        kept += decide("folds", labels, own[0], {0.5: own[1], 1.0: own[2]}).kept
    assert kept <= 20


def test_a_lower_log_loss_is_not_enough_where_more_images_are_wrong():
    labels = np.zeros(300, int)
    head, model = np.tile([1.0, 0.0], (300, 1)), np.tile([3.0, 0.0], (300, 1))
    head[:2] = model[:3] = [-0.01, 0.0]  # one more is wrong
    assert not decide("folds", labels, head, {1.0: model}).kept
    model[2] = [3.0, 0.0]
    assert decide("folds", labels, head, {1.0: model}).kept


def test_groups_count_as_one_draw_each():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    head = logits(rng, labels, 1.0)
    model = head.copy()
    model[:100] = logits(rng, labels[:100], 4.0)  # better on the images of one person
    groups = np.arange(300) // 100
    assert decide("folds", labels, head, {1.0: model}).kept
    assert not decide("folds", labels, head, {1.0: model}, groups=groups).kept


def test_class_weights_weigh_in_what_decides():
    labels = np.array([0] * 270 + [1] * 30)
    rng = np.random.default_rng(2)
    head, model = logits(rng, labels, 2.0, 2), logits(rng, labels, 2.0, 2)
    head[labels == 0] += [1.0, -1.0]
    model[labels == 1] += [-3.0, 3.0]
    plain = decide("folds", labels, head, {1.0: model})
    weighed = decide("folds", labels, head, {1.0: model}, weights=np.array([300 / 540, 5.0]))
    assert weighed.gain > plain.gain


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(10, 80))
def test_a_model_that_is_its_head_is_never_kept(seed, count):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    head = logits(rng, labels, 1.0)
    found = decide("folds", labels, head, {0.5: head, 1.0: head})
    assert not found.kept and found.gain == pytest.approx(0.0)


def test_a_model_that_is_right_more_often_is_kept_where_its_log_loss_is_no_worse():
    labels = np.zeros(600, int)
    head = np.tile([0.4, 0.0], (600, 1))
    head[:120] = [-0.4, 0.0]
    model = head.copy()
    model[:40] = [0.4, 0.0]  # right now
    model[100:120] = [-1.2, 0.0]  # sure of what is wrong
    found = decide("folds", labels, head, {1.0: model})
    assert 0 < found.gain < 1.65 * found.error and found.model_alone == 40
    assert found.kept
    model[100:120] = [-6.0, 0.0]
    assert not decide("folds", labels, head, {1.0: model}).kept  # its log-loss is worse
