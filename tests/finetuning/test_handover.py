import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.finetuning.prepare import HANDOVER_TOLERANCE, check_handover
from pipeline.heads.linear import LinearHead

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
