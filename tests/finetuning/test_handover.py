from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.finetuning.prepare import (
    HANDOVER_TOLERANCE,
    LEFT,
    check_handover,
    last_layer,
    softened,
)
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import log_loss, softmax

RNG = np.random.default_rng(0)
HEAD = LinearHead(
    RNG.normal(size=(3, 16)).astype(np.float32), np.array([1, 2, 3], np.float32), temperature=2.0
)
TABLE = RNG.normal(size=(20, 16)).astype(np.float32)
LOGITS = HEAD.scores(TABLE) / 2


def checked(features=TABLE, logits=LOGITS, precisions=("fp32", "fp32")):
    return check_handover(features, logits, table=TABLE, head=HEAD, precisions=precisions)


def test_equal_features_and_logits_pass_and_say_how_equal_they_are():
    found = checked()
    assert found.features == 0 and found.logits < 1e-6 and found.images == 20


def test_rounding_within_the_tolerance_passes():
    near = TABLE * (1 + 0.5 * HANDOVER_TOLERANCE["bf16"])
    assert checked(near, HEAD.scores(near) / 2, ("bf16", "fp32")).features > 0.01
    with pytest.raises(PipelineError, match="features differ"):
        checked(near, HEAD.scores(near) / 2)


def test_another_trunk_is_told_from_another_head():
    with pytest.raises(PipelineError, match="trunk, its weights or the preprocessing"):
        checked(TABLE[::-1])
    with pytest.raises(PipelineError, match="the head was not carried over"):
        checked(logits=LOGITS[:, ::-1])


def test_the_temperature_is_part_of_the_head():
    with pytest.raises(PipelineError, match="not carried over"):
        checked(logits=HEAD.scores(TABLE))


def test_a_class_that_was_never_seen_hides_no_difference():
    bias = np.array([1, 2, -1e9], np.float32)
    head = LinearHead(HEAD.weight, bias)
    wrong = head.scores(TABLE) + RNG.normal(0, 5, (20, 3)).astype(np.float32)
    with pytest.raises(PipelineError, match="not carried over"):
        check_handover(TABLE, wrong, table=TABLE, head=head, precisions=("fp32", "fp32"))


def test_features_that_are_not_finite_do_not_pass():
    with pytest.raises(PipelineError):
        checked(TABLE * np.nan)


def task_of(labels, class_weight="none", classes=3):
    table = SimpleNamespace(features=TABLE, labels=labels, classes=("a", "b", "c")[:classes])
    head = SimpleNamespace(recipe={"class_weight": class_weight})
    return SimpleNamespace(table=table, head=head)


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_a_head_that_is_sure_of_its_own_images_starts_unsure_of_them(class_weight):
    labels = HEAD.scores(TABLE).argmax(1)
    sure, every = replace(HEAD, temperature=0.01), np.arange(20)
    task = task_of(labels, class_weight)
    soft = softened(sure, task, every)
    shares = np.bincount(labels, minlength=3) / 20
    weights = 20 / (3 * 20 * shares) if class_weight == "balanced" else np.ones(3)
    guess = (shares * weights) / (shares * weights).sum()
    own = weights[labels] / weights[labels].mean()
    left = -(own * np.log(softmax(soft.scores(TABLE), soft.temperature)[every, labels])).mean()
    assert log_loss(labels, softmax(sure.scores(TABLE), 0.01)) < 0.01
    assert left == pytest.approx(LEFT * -(own * np.log(guess[labels])).mean(), rel=0.05)
    assert np.array_equal(soft.weight, sure.weight) and np.array_equal(soft.bias, sure.bias)


def test_a_head_that_is_unsure_of_its_own_images_starts_as_it_is():
    labels = RNG.integers(3, size=20)
    assert softened(HEAD, task_of(labels), np.arange(20)) is HEAD


def test_a_softened_head_still_knows_which_classes_had_no_images():
    labels = HEAD.scores(TABLE)[:, :2].argmax(1)
    bias = np.array([1, 2, -1e9], np.float32)
    sure = LinearHead(HEAD.weight, bias, temperature=1e-3)
    soft = softened(sure, task_of(labels), np.arange(20))
    layer = last_layer(torch.nn.Linear(16, 3), head=replace(soft, temperature=1e5))
    assert soft.temperature > 0.1 and -40 < float(layer.bias[2]) < -20
