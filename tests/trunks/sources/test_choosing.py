from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet34
from weights_files import loaded, saved

from pipeline.errors import UsageError
from pipeline.trunks.registry import find
from pipeline.trunks.sources.checkpoint import Tensors
from pipeline.trunks.sources.from_torchvision import _interpolated
from pipeline.trunks.staging.architecture import Weightless


@pytest.mark.parametrize("wrapper", ["", "state_dict", "my_weights"])
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod.", "net.trunk."])
def test_wrappers_and_prefixes_of_any_name_are_taken_off_and_told(
    model: nn.Module, own_digest: str, tmp_path: Path, wrapper: str, prefix: str
) -> None:
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    held = {wrapper: state, "epoch": 3, "args": argparse.Namespace(lr=0.1)} if wrapper else state
    trunk = loaded(saved(tmp_path / "c.pt", held))
    assert (
        trunk.weights_digest == loaded(saved(tmp_path / "a.pt", model.state_dict())).weights_digest
    )
    assert bool(trunk.notes) == bool(wrapper or prefix)
    for word in filter(None, (wrapper, prefix)):
        assert f"'{word}'" in trunk.notes[0]


def others(model: nn.Module) -> dict[str, Tensor]:
    return {k: v + 1 if v.is_floating_point() else v for k, v in model.state_dict().items()}


@pytest.mark.parametrize("first", ["model", "model_ema"])
def test_of_a_model_and_its_average_the_average_is_used_as_timm_does_and_the_other_told(
    model: nn.Module,
    own_digest: str,
    tmp_path: Path,
    first: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = {"model": others(model), "model_ema": model.state_dict()}
    held = {name: sets[name] for name in sorted(sets, reverse=first != "model")}
    path = saved(tmp_path / "two.pth", held)
    trunk = loaded(path)
    assert trunk.weights_digest == own_digest
    (note,) = trunk.notes
    assert "'model_ema' is used" in note and "'model' fits too" in note
    assert note.endswith("to use it, give --weights two.pth::model.")
    other = loaded(Path(f"{path}::model"))
    assert other.weights_digest != own_digest and "'model' is used" in other.notes[0]
    assert (other.weights, other.weights_asked) == ("two.pth::model", f"{path}::model")
    assert loaded(Path(f"{path}::model_ema")).weights_digest == own_digest
    with pytest.raises(UsageError, match=r"no tensors under 'modle'; there are .*mean model\?"):
        loaded(Path(f"{path}::modle"))
    monkeypatch.chdir(tmp_path)
    assert loaded(Path("two.pth::model")).weights_digest == other.weights_digest


def test_a_key_in_a_file_takes_teacher_student_or_the_other_encoder(
    model: nn.Module, own_digest: str, tmp_path: Path
) -> None:
    def prefixed(before: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {before + name: tensor for name, tensor in state.items()}

    own, other = model.state_dict(), others(model)
    dino = {
        "teacher": prefixed("module.backbone.", own),
        "student": prefixed("module.backbone.", other),
    }
    path = saved(tmp_path / "dino.pth", dino)
    assert loaded(Path(f"{path}::teacher")).weights_digest == own_digest
    assert loaded(Path(f"{path}::student")).weights_digest != own_digest
    heads = {"head.mlp.weight": torch.ones(3), "head.mlp.bias": torch.ones(3)}
    real = {
        name: prefixed("backbone.", state) | heads
        for name, state in (("student", other), ("teacher", own))
    }
    path = saved(tmp_path / "real.pth", real)
    trunk = loaded(path)
    assert trunk.weights_digest == own_digest
    assert "'teacher' is used without 'backbone.'" in trunk.notes[0]
    assert trunk.notes[0].endswith("to use it, give --weights real.pth::student.backbone.")
    with pytest.raises(UsageError, match="several sets"):
        loaded(Path(f"{path}::backbone"))
    for key in ("teacher", "teacher.backbone"):
        assert loaded(Path(f"{path}::{key}")).weights_digest == own_digest
    assert loaded(Path(f"{path}::student.backbone")).weights_digest != own_digest
    both = prefixed("module.encoder_q.", other) | prefixed("module.encoder_k.", own)
    path = saved(tmp_path / "moco.pth", {"state_dict": both})
    assert loaded(path).weights_digest != own_digest
    assert loaded(Path(f"{path}::module.encoder_k")).weights_digest == own_digest
    averaged = saved(tmp_path / "beside.pth", other | prefixed("ema.", own))
    assert loaded(Path(f"{averaged}::ema")).weights_digest == own_digest
    assert loaded(Path(f"{averaged}::")).weights_digest != own_digest
    with pytest.raises(UsageError, match=r"dino\.pth::teacher does not fit this trunk"):
        loaded(Path(f"{tmp_path}/dino.pth::teacher"), "resnet50")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_files_in_half_precision_are_read_and_told(
    model: nn.Module, tmp_path: Path, kind: torch.dtype
) -> None:
    half = {k: v.to(kind) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    (note,) = loaded(saved(tmp_path / "half.pth", {"state_dict": half})).notes
    assert f"from {str(kind).removeprefix('torch.')} to float32" in note
    save_file(half, tmp_path / "half.safetensors")
    kept = loaded(tmp_path / "half.safetensors").module.native_state()["conv1.0.weight"]
    assert kept.equal(half["conv1.0.weight"].float())


def test_sets_under_other_names_are_listed_where_several_fit(
    model: nn.Module, tmp_path: Path
) -> None:
    held = {"one": model.state_dict(), "other": others(model)}
    with pytest.raises(
        UsageError,
        match=r"several sets .*: 'one', 'other'\. Name .*two\.pth::one",
    ):
        loaded(saved(tmp_path / "two.pth", held))
    averaged = {**model.state_dict(), **{f"ema.{n}": t for n, t in others(model).items()}}
    with pytest.raises(UsageError, match=r"several sets .*: 'ema\.…', names without it\."):
        loaded(saved(tmp_path / "beside.pth", averaged))
    neither = {name: dict(list(state.items())[1:]) for name, state in held.items()}
    with pytest.raises(UsageError, match=r"\('one' of 'one', 'other'\) .*weight missing"):
        loaded(saved(tmp_path / "neither.pth", neither))
    held["other"] = {"head.weight": torch.ones(3)}
    trunk = loaded(saved(tmp_path / "one.pth", held))
    assert "'one' is used; 'other' left out, as it does not fit" in trunk.notes[0]


@pytest.mark.parametrize("first", ["teacher", "student"])
def test_of_a_teacher_and_a_student_the_teacher_is_used_and_the_other_told(
    model: nn.Module, own_digest: str, tmp_path: Path, first: str
) -> None:
    sets = {"teacher": model.state_dict(), "student": others(model)}
    held = {name: sets[name] for name in sorted(sets, reverse=first == "teacher")}
    trunk = loaded(saved(tmp_path / "dino.pth", held))
    assert trunk.weights_digest == own_digest
    (note,) = trunk.notes
    assert "'teacher' is used" in note
    assert note.endswith("'student' fits too: to use it, give --weights dino.pth::student.")
    trunk = loaded(saved(tmp_path / "more.pth", {**held, "model": others(model)}))
    assert "'model' is used" in trunk.notes[0]  # as timm does


def test_a_usual_name_that_does_not_fit_gives_way_to_a_set_that_does(
    model: nn.Module, tmp_path: Path
) -> None:
    held = {"state_dict": {"fc.weight": torch.ones(2)}, "model": model.state_dict()}
    assert (
        "'model' is used; 'state_dict' left out" in loaded(saved(tmp_path / "w.pth", held)).notes[0]
    )


def test_what_stands_beside_the_network_in_a_set_is_left_out_and_told(
    model: nn.Module, tmp_path: Path
) -> None:
    lit = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    lit |= {"criterion.weight": torch.ones(7), "train_acc.total": torch.tensor(1)}
    (note,) = loaded(saved(tmp_path / "last.ckpt", {"state_dict": lit})).notes
    assert "2 tensors beside left out (criterion.weight, train_acc.total)" in note
    lit["model.extra.weight"] = torch.ones(1)  # of the network: it may change what is computed
    with pytest.raises(UsageError, match=r"extra\.weight left over"):
        loaded(saved(tmp_path / "last.ckpt", {"state_dict": lit}))


def test_of_two_encoders_the_trained_one_is_used(
    model: nn.Module, own_digest: str, tmp_path: Path
) -> None:
    both = {f"module.encoder_k.{name}": tensor for name, tensor in others(model).items()}
    both |= {f"module.encoder_q.{name}": tensor for name, tensor in model.state_dict().items()}
    both["module.queue"] = torch.zeros(3)
    trunk = loaded(saved(tmp_path / "moco.pth.tar", {"state_dict": both}))
    assert (
        trunk.weights_digest == loaded(saved(tmp_path / "a.pt", model.state_dict())).weights_digest
    )
    assert "'module.encoder_q.'" in trunk.notes[0] and "module.encoder_k." in trunk.notes[0]
    twins = {name.replace("encoder_q", "left"): tensor for name, tensor in both.items()}
    twins = {name.replace("encoder_k", "right"): tensor for name, tensor in twins.items()}
    with pytest.raises(UsageError, match=r"several sets .*'module\.right\.…', 'module\.left\.…'"):
        loaded(saved(tmp_path / "twins.pth", twins))


def test_weights_of_a_larger_network_of_the_same_names_are_refused(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in resnet34().state_dict().items()}
    with pytest.raises(UsageError, match=r"layer1\.2\.conv1\.weight.* left over"):
        loaded(saved(tmp_path / "r34.pth", state), "resnet18")


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "mobilenet_v3_small", "timm/test_convnext", "timm/test_efficientnet"]
)
def test_networks_of_other_families_are_found_in_their_wrapping_too(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    state = find(name).build().state_dict()
    plain = loaded(saved(tmp_path / "plain.pth", state), name)
    held = {"network": {f"module.{n}": t for n, t in state.items()}, "other": {"x": torch.ones(1)}}
    assert loaded(saved(tmp_path / "in.pth", held), name).weights_digest == plain.weights_digest


def wrapped(state: Tensors, layout: str) -> dict[str, Any]:
    """Return a ViT's tensors in the layout of a trainer's checkpoint, beside what that has."""

    def prefixed(before: str, tensors: Tensors = state) -> dict[str, Tensor]:
        return {before + name: tensor for name, tensor in tensors.items()}

    other = {name: tensor + 1 for name, tensor in state.items()}
    bare = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    text = {"logit_scale": torch.tensor(4.6), "transformer.resblocks.0.ln_1.weight": torch.ones(3)}
    return {
        "lightning": {
            "state_dict": prefixed("model.") | {"criterion.weight": torch.ones(2)},
            "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2.4",
        },
        "moco": {
            "state_dict": prefixed("module.base_encoder.")
            | prefixed("module.momentum_encoder.", other)
            | {"module.predictor.0.weight": torch.ones(3)},
        },
        "mae": {
            "model": bare | {
                "mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 2, 8),
                "decoder_blocks.0.norm1.weight": torch.ones(8),
            },
        },
        "clip": prefixed("visual.trunk.", bare) | {"visual.head.proj.weight": torch.ones(3)} | text,
        "ema": {"state_dict": other, "state_dict_ema": state, "epoch": 9},
        "compiled": {"model": prefixed("_orig_mod.module.")},
        "dinov2": {"teacher": prefixed("backbone.", bare | {"mask_token": torch.ones(1, 8)})
                   | {"dino_head.mlp.0.weight": torch.ones(2)}},
    }[layout]  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ("lightning", "without 'model.' in front of the names; 1 tensor beside left out (crit"),
        ("moco", "without 'module.base_encoder.' in front"),
        ("mae", "'model' is used; 3 tensors beside left out (mask_token, decoder_pos_embed, de"),
        ("clip", "without 'visual.trunk.' in front of the names; 3 tensors beside left out"),
        ("ema", "'state_dict_ema' is used; 'state_dict' fits too"),
        ("compiled", "without '_orig_mod.module.' in front of the names"),
        ("dinov2", "'teacher' is used without 'backbone.' in front of the names; 2 tensors beside"),
    ],
)
def test_layouts_of_trainers_are_read_and_told(tmp_path: Path, layout: str, told: str) -> None:
    torch.manual_seed(2)
    state = find("timm/test_vit").build().state_dict()
    plain = loaded(saved(tmp_path / "plain.pth", state), "timm/test_vit")
    trunk = loaded(saved(tmp_path / "w.pth", wrapped(state, layout)), "timm/test_vit")
    assert trunk.weights_digest == plain.weights_digest
    assert told in trunk.notes[0]


def test_what_only_pretraining_needs_is_no_excuse_for_what_is_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in find("timm/test_vit").build().state_dict().items() if "norm" not in k}
    with pytest.raises(UsageError, match=r"norm1\.weight.* missing"):
        loaded(saved(tmp_path / "w.pth", state | {"mask_token": torch.ones(1)}), "timm/test_vit")


@torch.no_grad()
@pytest.mark.parametrize("wrapping", ["", "model."])
def test_weights_for_another_input_are_resampled_as_the_library_does_it(
    tmp_path: Path, wrapping: str
) -> None:
    torch.manual_seed(3)
    larger = timm.create_model("test_vit", img_size=224).eval()
    state = {wrapping + name: tensor for name, tensor in larger.state_dict().items()}
    trunk = loaded(saved(tmp_path / "w.pth", {"state_dict": state}), "timm/test_vit")
    own = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"state_dict": larger.state_dict()}
    ).eval()
    x = torch.randn(1, 3, 160, 160)
    want = own.forward_head(own.forward_features(x), pre_logits=True)
    assert torch.allclose(trunk.module(x), want, atol=1e-5)
    assert "pos_embed from 1×197×64 to 1×101×64" in trunk.notes[0]
    by_key = loaded(Path(f"{tmp_path}/w.pth::state_dict"), "timm/test_vit")
    assert by_key.weights_digest == trunk.weights_digest
    other = {name: tensor + 1 for name, tensor in state.items()}
    trunk = loaded(saved(tmp_path / "w.pth", {"state_dict": other}), "timm/test_vit")
    assert trunk.weights_digest != by_key.weights_digest


def test_torchvisions_vit_is_resampled_too(tmp_path: Path) -> None:
    narrow: dict[str, Any] = {
        "patch_size": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8,
    }  # fmt: skip
    given, own = (VisionTransformer(image_size=side, **narrow) for side in (64, 32))
    made = _interpolated(given.state_dict(), own)
    own.load_state_dict(made)
    assert find("vit_b_16").convert is _interpolated and find("swin_t").convert is None


def test_a_clip_of_openais_code_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    own = find("timm/vit_base_patch16_clip_224")
    with Weightless():
        shapes = {name: t.shape for name, t in own.build().state_dict().items()}
    assert own.convert is not None and len(shapes) > 100
    clip = {
        "visual.class_embedding": torch.ones(768),
        "visual.positional_embedding": torch.ones(197, 768),
        "visual.conv1.weight": torch.ones(768, 3, 16, 16), "visual.ln_pre.weight": torch.ones(768),
        "transformer.resblocks.0.ln_1.weight": torch.ones(512),
    }  # fmt: skip
    with Weightless():
        made = own.convert(clip, own.build())
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "norm_pre.weight"} <= set(made)
