"""What holds for every trunk: a member of each of torchvision's families and many of timm's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_transformers import TRANSFORMERS, member
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.images.preprocess import Preprocess
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.registry import find
from pipeline.trunks.sources.from_torchvision import FAMILIES
from pipeline.trunks.sources.random_weights import (
    calibrate,
    noise,
    seeded,
    tell_images_apart,
)
from pipeline.trunks.staging.architecture import Architecture
from pipeline.trunks.staging.cutting import stage_trunk
from pipeline.trunks.staging.stages import STAGES, StagedTrunk

SIDE = 64
#: What breaks down below its own size.
LARGER = {"alexnet": 96, "inception_v3": 96, "maxvit_t": 224}


def cuts(*opens: str, neck: str | None = None) -> dict[str, str]:
    """Return place → the native module that opens it; stages are named from the end."""
    stages = ["stem", *[f"layer{i}" for i in range(6 - len(opens), 5)]]
    found = dict(zip(stages, opens, strict=True))
    return found if neck is None else {**found, "neck": neck}


RESNET = cuts("conv1", "layer1", "layer2", "layer3", "layer4")
BLOCKS = [f"trunk_output.block{i}" for i in range(1, 5)]


def numbered(prefix: str, *indices: int, neck: str | None = None) -> dict[str, str]:
    return cuts(*[f"{prefix}.{i}" for i in indices], neck=neck)


def numbered_blocks(*indices: int, neck: str | None = None) -> dict[str, str]:
    return cuts("patch_embed", *[f"blocks.{i}" for i in indices], neck=neck)


#: A member of each of torchvision's families, and where the rule of `stages.cut` cuts it.
CUTS = {
    "alexnet": numbered("features", 0, 3, 6, neck="classifier.0"),
    "vgg11": numbered("features", 0, 3, 6, 11, 16, neck="classifier.0"),
    "vgg11_bn": numbered("features", 0, 4, 8, 15, 22, neck="classifier.0"),
    "resnet18": RESNET,
    "resnext50_32x4d": RESNET,
    "wide_resnet50_2": RESNET,
    "regnet_y_400mf": cuts("stem", *BLOCKS),
    "densenet121": cuts(
        "features.conv0",
        "features.denseblock1",
        "features.transition1",
        "features.transition2",
        "features.transition3",
    ),
    "squeezenet1_1": numbered("features", 0, 3, 6, 9),
    "googlenet": cuts("conv1", "conv2", "inception3a", "inception4a", "inception5a"),
    "inception_v3": cuts("Conv2d_1a_3x3", "Conv2d_3b_1x1", "Mixed_5b", "Mixed_6a", "Mixed_7a"),
    "mobilenet_v2": numbered("features", 0, 2, 4, 7, 14),
    "mobilenet_v3_small": numbered("features", 0, 1, 2, 4, 9, neck="classifier.0"),
    "shufflenet_v2_x0_5": cuts("conv1", "stage2", "stage3", "stage4"),
    "mnasnet0_5": numbered("layers", 0, 8, 9, 10, 12),
    "efficientnet_b0": numbered("features", 0, 2, 3, 4, 6),
    "efficientnet_v2_s": numbered("features", 0, 2, 3, 4, 6),
    "convnext_tiny": numbered("features", 0, 2, 4, 6, neck="classifier.0"),
    "vit_b_16": cuts("conv_proj", *[f"encoder.layers.encoder_layer_{i}" for i in (0, 3, 6, 9)]),
    "swin_t": numbered("features", 0, 2, 4, 6),
    "swin_v2_t": numbered("features", 0, 2, 4, 6),
    "maxvit_t": cuts("stem", *[f"blocks.{i}" for i in range(4)], neck="classifier.2"),
    "timm/vit_tiny_patch16_224": numbered_blocks(0, 3, 6, 9),
    "timm/vit_base_patch16_siglip_224": numbered_blocks(0, 1, 3, 4, neck="attn_pool"),
    "timm/beit_base_patch16_224": numbered_blocks(0, 1, 2, 3, neck="fc_norm"),
    "timm/swin_tiny_patch4_window7_224": cuts("patch_embed", *[f"layers.{i}" for i in (1, 2, 3)]),
}
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
NAMES = [*dict.fromkeys([*CUTS, "efficientnet_lite0", *TIMM, *TRANSFORMERS])]


@dataclass(frozen=True)
class Case:
    """A trunk, and what it gives for `x`, computed once.

    Attributes:
        model: the library's own, of whose modules the trunk is made.
        x: normalised images [3, 3, S, S].
        activations: stage → activation at its end, one stage run after the other.
        feature: of the whole trunk [3, D].
    """

    architecture: Architecture
    model: Any
    trunk: StagedTrunk
    x: Tensor
    activations: dict[str, Tensor]
    feature: Tensor


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    side = LARGER.get(name, SIDE)
    architecture, side = member(name) if name in TRANSFORMERS else (find(name), side)
    with seeded(1):
        model = architecture.build().eval()
    native = side == architecture.preprocess.crop or name in LARGER
    resized = None if native else architecture.resize(model, side)
    trunk = stage_trunk(architecture, resized or model, side if resized else None)
    model = resized or model
    calibrate(trunk, side=side)
    x = noise(3, side) * 0.8
    activations, activation = {}, x
    with torch.no_grad():
        for name, stage in trunk.stages.items():
            activation = stage(activation.clone())  # an activation may be changed in place
            activations[name] = activation
        return Case(architecture, model, trunk, x, activations, trunk(x))


def plain(case: Case) -> Preprocess:
    """Return what maps crops of 0 to 255 to 0 to 1 and nothing more."""
    side = case.x.shape[-1]
    return Preprocess(side, side, mean=(0.0,) * 3, std=(1.0,) * 3)


def enters_last_linear(case: Case) -> list[Tensor]:
    """Return what the library's own model hands to its last Linear, and timm's pre-logits."""
    model, name = case.model, case.architecture.name
    if name.startswith("squeezenet"):  # its classifier is a convolution
        return [model.features(case.x).mean((2, 3))]
    if hasattr(model, "get_classifier"):
        last = model.get_classifier()  # in some of timm's a 1×1 convolution
    else:
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    if name.startswith("timm/"):
        features = model.forward_features(case.x)  # as timm's own `forward` begins
        seen.append(model.forward_head(features.clone(), pre_logits=True))
        model.forward_head(features)
    else:
        model(case.x)
    handle.remove()
    return seen


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def test_the_feature_is_what_enters_the_librarys_last_linear(case: Case) -> None:
    assert case.feature.shape == (3, case.trunk.dim)
    wanted = enters_last_linear(case)
    assert len(wanted) == (2 if case.architecture.name.startswith("timm/") else 1)
    for feature in wanted:
        assert relative(case.feature, feature) <= 1e-5


@torch.no_grad()
def test_until_and_after_every_boundary_make_the_whole(case: Case) -> None:
    for stage, activation in case.activations.items():
        before = activation.clone()
        channels = activation.shape[1 if case.trunk.prefix is None else 2]
        assert (len(activation), channels) == (3, case.trunk.channels[stage])
        rest = FeatureNet(case.trunk, plain(case), "feature", "own", after=stage)
        assert relative(rest(activation), case.feature) <= 1e-5
        assert torch.equal(activation, before), "what runs on a boundary must leave it alone"


@torch.no_grad()
def test_every_layer_comes_side_by_side_from_one_pass(case: Case) -> None:
    names = [*case.trunk.stages, "feature"]
    seen: list[str] = []
    hooks = [
        stage.register_forward_hook(lambda *_, name=name: seen.append(name))
        for name, stage in case.trunk.stages.items()
    ]
    net = FeatureNet(case.trunk, plain(case), "+".join(names), "avg")
    found = net(case.x * 255)
    for hook in hooks:
        hook.remove()
    assert seen == names[:-1], "each stage runs once"
    prefix = case.trunk.prefix
    want = [
        activation.mean((2, 3)) if prefix is None else activation[:, prefix:].mean(1)
        for activation in case.activations.values()
    ]
    blocks = [F.normalize(block, dim=1) for block in (*want, case.feature)]
    assert found.shape[1] == sum(case.trunk.channels.values()) + case.trunk.dim
    assert relative(found, torch.cat(blocks, 1)) <= 1e-4


def test_calibrated_random_weights_do_not_collapse(case: Case) -> None:
    assert tell_images_apart(case.feature)


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


def test_cuts_and_family_are_those_of_the_tables(case: Case) -> None:
    opens: dict[str, str] = {}
    for module, place in case.trunk.native.items():
        if place != "pool":
            opens.setdefault(place, module)
    assert opens == CUTS.get(case.architecture.name, opens)
    assert list(opens) == [*case.trunk.stages, *(["neck"] if case.trunk.neck else [])]


def test_every_family_has_a_member_here() -> None:
    ours = [find(name).family for name in CUTS if not name.startswith("timm/")]
    assert ours == list(FAMILIES.values())
