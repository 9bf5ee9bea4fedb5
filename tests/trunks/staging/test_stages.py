from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.trunks.registry import find
from pipeline.trunks.staging.cutting import stage_trunk
from pipeline.trunks.staging.stages import STAGES, Piece, StagedTrunk, cut

CONV, DOWN, POOL, RELU = Piece(1, True), Piece(2, True), Piece(2, False), Piece(1, False)


def spans(*pieces: Piece) -> dict[str, tuple[int, int]]:
    return {name: (where.start, where.stop) for name, where in cut(pieces).items()}


def test_pooling_alone_closes_a_stage_and_a_learned_drop_opens_one() -> None:
    vgg = [CONV, RELU, POOL, CONV, POOL, CONV, RELU, POOL]
    assert spans(*vgg) == {"stem": (0, 3), "layer3": (3, 5), "layer4": (5, 8)}
    resnet = [DOWN, RELU, POOL, CONV, DOWN, DOWN, DOWN]
    assert list(spans(*resnet)) == list(STAGES)
    assert spans(*resnet)["stem"] == (0, 3)


def test_what_is_in_front_of_layer1_merges_into_the_stem() -> None:
    assert spans(*[DOWN] * 7) == {
        "stem": (0, 3),
        "layer1": (3, 4),
        "layer2": (4, 5),
        "layer3": (5, 6),
        "layer4": (6, 7),
    }


def test_what_learns_nothing_stays_with_what_is_before_it() -> None:
    assert spans(DOWN, RELU, POOL, RELU, CONV) == {"stem": (0, 4), "layer4": (4, 5)}
    assert spans(POOL, DOWN, DOWN) == {"stem": (0, 2), "layer4": (2, 3)}


def test_a_trunk_of_one_resolution_is_cut_behind_what_lowers_it() -> None:
    assert spans(DOWN, RELU, CONV, CONV) == {"stem": (0, 2), "layer4": (2, 4)}
    assert spans(DOWN) == {}
    assert spans(RELU, POOL) == {}


@given(st.lists(st.tuples(st.sampled_from([1, 1, 2, 4]), st.booleans()), max_size=24))
def test_stages_cover_all_pieces_once_and_learn_from_the_second_on(
    raw: list[tuple[int, bool]],
) -> None:
    pieces = [Piece(*values) for values in raw]
    stages = cut(pieces)
    if not stages:
        return
    covered = [i for where in stages.values() for i in range(len(pieces))[where]]
    assert covered == list(range(len(pieces)))
    assert next(iter(stages)) == "stem"
    assert list(stages) == ["stem", *STAGES[len(STAGES) - len(stages) + 1 :]]
    for where in list(stages.values())[1:]:
        assert pieces[where][0].has_parameters


def staged(name: str) -> StagedTrunk:
    architecture = find(name)
    return stage_trunk(architecture, architecture.build().eval())


@pytest.fixture(scope="module")
def mobilenet() -> StagedTrunk:
    return staged("mobilenet_v3_small")


def test_native_names_within_and_above_a_piece_are_understood(mobilenet: StagedTrunk) -> None:
    assert mobilenet.stage_of("layer3") == "layer3"
    assert mobilenet.stage_of("neck") == "neck"
    assert mobilenet.stage_of("features.7") == "layer3"
    assert mobilenet.stage_of("features.9.block.0") == "layer4"
    assert mobilenet.stage_of("classifier") == "neck"


def test_a_module_that_spans_stages_is_refused(mobilenet: StagedTrunk) -> None:
    with pytest.raises(UsageError, match="'features' spans stem, layer1, layer2, layer3 and lay"):
        mobilenet.stage_of("features")


def test_an_unknown_stage_lists_those_there_are(mobilenet: StagedTrunk) -> None:
    with pytest.raises(UsageError) as caught:
        mobilenet.stage_of("layer5")
    assert "stem, layer1, layer2, layer3, layer4, neck" in str(caught.value)
    assert "features.0, features.1" in str(caught.value)
    assert "Did you mean layer" in str(caught.value)
    with pytest.raises(UsageError, match=r"Did you mean features\.7, features"):
        mobilenet.stage_of("feature.7")
    with pytest.raises(UsageError, match="pooling"):
        mobilenet.stage_of("avgpool")


def test_a_trunk_without_neck_has_none_to_name() -> None:
    trunk = staged("squeezenet1_1")
    with pytest.raises(UsageError, match="stem, layer2, layer3, layer4 and the modules"):
        trunk.stage_of("neck")
    with pytest.raises(UsageError, match="no stage or module 'layer1'"):
        trunk.stage_of("layer1")


def test_parameters_are_found_by_stage_and_by_native_name(mobilenet: StagedTrunk) -> None:
    names = list(mobilenet.parameters_of("features.9.block.0"))
    assert names[0] == "stages.layer4.features.9.block.0.0.weight"
    assert set(names) < set(mobilenet.parameters_of("layer4"))
    assert list(mobilenet.parameters_of("neck")) == [
        "neck.classifier.0.weight",
        "neck.classifier.0.bias",
    ]


def test_inception_scales_its_input_in_the_stem() -> None:
    trunk = staged("inception_v3")
    x = torch.ones(1, 3, 75, 75)
    rescaled = x * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    rescaled = (rescaled + torch.tensor([0.485, 0.456, 0.406])[:, None, None] - 0.5) / 0.5
    seen: list[torch.Tensor] = []
    first = trunk.get_submodule("stages.stem.Conv2d_1a_3x3")
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trunk.stages["stem"](x)
    torch.testing.assert_close(seen[0], rescaled)
    assert not any("Aux" in name for name in trunk.state_dict())
