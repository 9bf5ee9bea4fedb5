"""What holds for transformers: tokens, their pooling, sizes, blocks; learning, and OpenVINO."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from small_transformers import TRANSFORMERS, member
from torch import nn

from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning.network import Network, cut
from pipeline.images.preprocess import Preprocess
from pipeline.trunks import registry, spec
from pipeline.trunks.engines import openvino_engine
from pipeline.trunks.feature_net import FeatureNet, own_pool
from pipeline.trunks.sources.random_weights import calibrate, noise, seeded
from pipeline.trunks.staging.cutting import stage_trunk
from pipeline.trunks.staging.stages import StagedTrunk, quarters

VIT = "timm/vit_tiny_patch16_224"
REGISTERS = "timm/vit_small_patch14_reg4_dinov2"


def made(name: str) -> tuple[StagedTrunk, Preprocess]:
    architecture, side = member(name)
    with seeded(1):
        model = architecture.build().eval()
    other = None if side == architecture.preprocess.crop else architecture.resize(model, side)
    trunk = stage_trunk(architecture, other or model, side if other else None)
    calibrate(trunk, side=side)
    return trunk, Preprocess(side, side)


def test_quarters_are_equal_and_fewer_than_four_blocks_are_stages_themselves():
    twelve = quarters(range(2, 14), 16)
    assert twelve == {
        "stem": slice(0, 2), "layer1": slice(2, 5), "layer2": slice(5, 8), "layer3": slice(8, 11),
        "layer4": slice(11, 16),
    }  # fmt: skip
    assert quarters([1, 2], 4) == {
        "stem": slice(0, 1),
        "layer3": slice(1, 2),
        "layer4": slice(2, 4),
    }
    assert [len(range(*s.indices(31))) for s in quarters(range(1, 31), 31).values()][1:] == [
        7,
        8,
        7,
        8,
    ]


@torch.no_grad()
def test_pooling_leaves_out_class_and_register_tokens():
    trunk, preprocess = made(REGISTERS)
    crops = noise(2, 56).clamp(-1, 1) * 127 + 127
    tokens = FeatureNet(trunk, preprocess, "layer4", "map")(crops)
    assert tokens.shape == (2, 1 + 4 + 16, 48) and trunk.prefix == 5
    want = {
        "avg": tokens[:, 5:].mean(1), "max": tokens[:, 5:].amax(1), "cls": tokens[:, 0],
        "cls+avg": torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1), "flat": tokens.flatten(1),
    }  # fmt: skip
    for pool, value in want.items():
        found = FeatureNet(trunk, preprocess, "layer4", pool)(crops)
        assert torch.allclose(found, value, atol=1e-5), pool
    own = FeatureNet(trunk, preprocess, "feature", "own")(crops)
    assert own_pool(trunk) == "cls" and torch.allclose(own, want["cls"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        (VIT, "cls"),
        ("timm/beit_base_patch16_224", "avg"),
        ("timm/vit_base_patch16_siglip_224", "attention"),
        ("timm/swin_tiny_patch4_window7_224", ""),
    ],
)
def test_the_pooling_of_the_librarys_own_feature_is_found(name, pool):
    assert own_pool(made(name)[0]) == pool


def test_a_class_token_that_is_not_there_is_refused():
    facts = spec.TrunkFacts(
        "timm/x", "random", "d", Preprocess(64, 64), 8, ("stem", "layer4"), True, "random", ()
    )
    with pytest.raises(UsageError, match="has no class token, so --pool cls means nothing"):
        spec.check_layer(facts, "layer4", "cls")


def test_blocks_have_numbers_and_native_names():
    trunk, _ = made(VIT)
    assert trunk.stage_of("block1") == trunk.stage_of("blocks.0") == "layer1"
    assert trunk.stage_of("block12") == "layer4"
    assert trunk.parameters_of("block12") == trunk.parameters_of("blocks.11") != {}
    assert cut(trunk, "block12", layer="feature").roots == ("stages.layer4.blocks.11",)
    with pytest.raises(UsageError, match="the blocks block1 to block12"):
        trunk.stage_of("block13")


def test_blocks_of_several_resolutions_have_native_names():
    trunk, _ = made("timm/swin_tiny_patch4_window7_224")
    assert trunk.stage_of("layers.2.blocks.1") == "layer3"
    with pytest.raises(UsageError, match=r"'block3'.*not of one resolution.*layers\.2\.blocks\.3"):
        trunk.stage_of("block3")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_unfreezing_leaves_the_frozen_part_bit_equal_and_the_head_folds_in(name):
    trunk, preprocess = made(name)
    before = copy.deepcopy(trunk.state_dict())
    what = cut(trunk, "layer4", layer="feature")
    network = Network(
        trunk, preprocess, layer="feature", pool="own", cut=what, head=nn.Linear(trunk.dim, 3)
    )
    crops = (noise(2, preprocess.crop).clamp(-1, 1) * 127 + 127).to(torch.uint8)
    with torch.no_grad():
        boundary = FeatureNet(trunk, preprocess, what.after, "map")(crops)
        if boundary.ndim == 4:
            boundary = boundary.permute(0, 3, 1, 2)
        features = FeatureNet(trunk, preprocess, "feature", "own")(crops)
        assert torch.allclose(network(boundary), network.classify(features), atol=1e-4)
    network.train()
    step = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(network(boundary), torch.tensor([0, 1])).backward()
    step.step()
    changed = {n for n, v in trunk.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and changed <= set(what.learns)


@pytest.mark.skipif(not openvino_engine.available(), reason="OpenVINO is not installed")
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_openvino_agrees(name):
    trunk, preprocess = made(name)
    net = FeatureNet(trunk, preprocess, "feature", "own").eval()
    assert all(openvino_engine._convert(net, preprocess.crop))  # it compares, and raises


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_maxvit", "timm/test_convnext"])
def test_another_size_has_the_same_weights_and_says_what_does_not_fit(tmp_path, name):
    if not timm.is_model(name.removeprefix("timm/")):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    native = registry.load(name, "random", state_dir=tmp_path)
    other = registry.load(name, "random", size=96, state_dir=tmp_path)
    assert other.weights_digest == native.weights_digest
    assert other.module(noise(1, 96)).shape == (1, native.module.dim)
    if name == "timm/test_vit":
        assert other.module.side == 96 != native.module.side
        with pytest.raises(UsageError, match=r"patches are 16 px, and 100 is no multiple.*--image"):
            registry.load(name, "random", size=100, state_dir=tmp_path)


def test_a_patch_that_is_a_plain_number_is_one_too(tmp_path):
    name = "timm/efficientvit_m0"  # whose patch_embed.patch_size is 16 and no pair
    if not hasattr(registry.find(name).build(), "set_input_size"):
        pytest.skip(f"timm {timm.__version__} has {name} for its own size alone")
    trunk = registry.load(name, "random", size=192, state_dir=tmp_path)
    assert trunk.module(noise(1, 192)).shape == (1, trunk.module.dim)
    with pytest.raises(UsageError, match=r"does not take images of 200 px: its patches are 16"):
        registry.load(name, "random", size=200, state_dir=tmp_path)


def test_position_embeddings_are_resampled_as_the_library_does_it(tmp_path):
    loaded = registry.load("timm/test_vit", "random", size=96, state_dir=tmp_path)
    native = registry.load("timm/test_vit", "random", state_dir=tmp_path).module.native_state()
    model = registry.find("timm/test_vit").build().eval()
    model.load_state_dict({**model.state_dict(), **native})
    model.set_input_size(img_size=(96, 96))
    x = noise(2, 96)
    with torch.no_grad():
        want = model.forward_head(model.forward_features(x), pre_logits=True)
        assert torch.equal(loaded.module(x), want)


def test_another_size_tells_nothing_of_the_librarys_own_code(recwarn):
    architecture, _ = member("timm/swin_tiny_patch4_window7_224")
    model = architecture.build().eval()
    registry._resized(architecture, model, stage_trunk(architecture, model), 96)
    assert [str(one.message) for one in recwarn] == []


def test_what_cannot_be_cut_says_why():
    with pytest.raises(UsageError, match="crossvit_tiny_240 cannot be cut into stages: more than"):
        registry.find("timm/crossvit_tiny_240")


def test_blocks_that_several_tensors_join_are_no_stages(monkeypatch):
    from pipeline.trunks.sources import from_timm

    monkeypatch.setattr(from_timm, "REFUSED", {})
    architecture = registry.find("timm/tnt_s_patch16_224")
    with pytest.raises(PipelineError, match="more than one tensor runs from block to block"):
        stage_trunk(architecture, architecture.build().eval())
