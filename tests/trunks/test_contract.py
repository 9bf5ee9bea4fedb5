"""What holds for every trunk: over one member of each torchvision family and some of timm's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.images.preprocess import Preprocess
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.registry import describe, find
from pipeline.trunks.sources.families import FAMILIES, Family
from pipeline.trunks.sources.random_weights import calibrate, noise, seeded, sees
from pipeline.trunks.staging.assembly import stage_trunk
from pipeline.trunks.staging.stages import STAGES, StagedTrunk

SIDE = 64
#: What breaks down below its own size.
LARGER = {"alexnet": 96, "inception_v3": 96}
TIMM = [
    "timm/resnet10t",
    "timm/tf_efficientnet_lite0",
    "timm/mobilenetv3_small_050",
    "timm/convnext_atto",
    "timm/regnetx_002",
    "timm/test_efficientnet",
    "timm/test_nfnet",
    "timm/dla46_c",
    "timm/dpn48b",
    "timm/hrnet_w18_small",
    "timm/repvgg_a0",
    "timm/ghostnet_050",
    "timm/convnextv2_atto",
    "timm/cs3darknet_s",
    "timm/resnetv2_18",
    "timm/efficientvit_b0",
    "timm/inception_next_atto",
]
NAMES = [family.member for family in FAMILIES] + ["efficientnet_lite0", *TIMM]


@dataclass(frozen=True)
class Case:
    name: str
    model: Any
    trunk: StagedTrunk
    x: Tensor


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    architecture = find(request.param)
    with seeded(1):
        model = architecture.build().eval()
    size = architecture.preprocess.crop
    trunk = stage_trunk(request.param, model, architecture.trace(model), size)
    trunk.eval().requires_grad_(False)
    side = LARGER.get(request.param, SIDE)
    calibrate(trunk, side=side)
    return Case(request.param, model, trunk, noise(3, side) * 0.8)


def enters_last_linear(case: Case) -> Tensor:
    """Return what the library's own model hands to its last Linear."""
    if case.name.startswith("squeezenet"):  # its classifier is a convolution
        return case.model.features(case.x).mean((2, 3))
    model = case.model
    if hasattr(model, "get_classifier"):
        last = model.get_classifier()  # in some of timm's a 1×1 convolution
    else:
        linear = [m for name, m in model.named_modules() if isinstance(m, nn.Linear)]
        last = linear[-1]
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(case.x)
    handle.remove()
    return seen[0].flatten(1)


def pre_logits(case: Case) -> Tensor:
    features = case.model.forward_features(case.x)
    feature: Tensor = case.model.forward_head(features, pre_logits=True)
    return feature


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def test_the_feature_is_what_enters_the_librarys_last_linear(case: Case) -> None:
    feature = case.trunk(case.x)
    assert feature.shape == (3, case.trunk.dim)
    assert relative(feature, enters_last_linear(case)) <= 1e-5
    if case.name.startswith("timm/"):
        assert relative(feature, pre_logits(case)) <= 1e-5


@torch.no_grad()
def test_until_and_after_every_boundary_make_the_whole(case: Case) -> None:
    whole = case.trunk(case.x)
    for stage in case.trunk.stages:
        activation = case.trunk.forward_until(case.x, stage)
        before = activation.clone()
        assert activation.shape[:2] == (3, case.trunk.channels[stage])
        assert relative(case.trunk.forward_after(activation, stage), whole) <= 1e-5
        assert torch.equal(activation, before), "what runs on a boundary must leave it alone"


@torch.no_grad()
def test_every_layer_comes_side_by_side_from_one_pass(case: Case) -> None:
    names = [*case.trunk.stages, "feature"]
    seen: list[str] = []
    hooks = [
        stage.register_forward_hook(lambda *_, name=name: seen.append(name))
        for name, stage in case.trunk.stages.items()
    ]
    plain = Preprocess(case.x.shape[-1], case.x.shape[-1], mean=(0.0,) * 3, std=(1.0,) * 3)
    net = FeatureNet(case.trunk, plain, "+".join(names), "avg")
    found = net(case.x * 255)
    for hook in hooks:
        hook.remove()
    assert seen == names[:-1], "each stage runs once"
    want = [case.trunk.forward_until(case.x, name).mean((2, 3)) for name in names[:-1]]
    blocks = [F.normalize(block, dim=1) for block in (*want, case.trunk(case.x))]
    assert found.shape[1] == sum(case.trunk.channels.values()) + case.trunk.dim
    assert relative(found, torch.cat(blocks, 1)) <= 1e-4


def test_calibrated_random_weights_do_not_collapse(case: Case) -> None:
    assert sees(case.trunk, side=case.x.shape[-1])


def test_stages_are_named_in_order_and_learn_from_the_second_on(case: Case) -> None:
    stages = list(case.trunk.stages)
    assert stages[0] == "stem"
    assert stages[-1] == "layer4"
    assert stages == [stage for stage in STAGES if stage in stages]
    for stage in stages[1:]:
        assert any(True for _ in case.trunk.stages[stage].parameters())
    assert list(case.trunk.strides.values()) == sorted(case.trunk.strides.values())


def test_the_trunk_holds_the_librarys_own_tensors(case: Case) -> None:
    theirs = case.model.state_dict(keep_vars=True)
    for name, tensor in case.trunk.state_dict(keep_vars=True).items():
        native = name.split(".", 2 if name.startswith("stages.") else 1)[-1]
        assert theirs[native] is tensor


def test_native_names_resolve_to_their_stage(case: Case) -> None:
    for module, place in case.trunk.native.items():
        if place != "pool":
            assert case.trunk.stage_of(module) == place


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.member)
def test_the_table_of_families_tells_the_cuts(family: Family) -> None:
    info = describe(family.member)
    opens = {stage: modules[0] for stage, modules in info.stages.items()}
    if info.neck:
        opens["neck"] = info.neck[0]
    assert opens == family.cuts
    assert info.family == family.title
