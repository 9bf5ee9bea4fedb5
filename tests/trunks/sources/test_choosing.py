from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet34
from weights_files import loaded, saved

from pipeline.errors import UsageError
from pipeline.trunks.registry import find


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
    with pytest.raises(UsageError, match=r"--weights real\.pth::student\.backbone\."):
        loaded(path)
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
    held = {"teacher": model.state_dict(), "student": others(model)}
    with pytest.raises(
        UsageError,
        match=r"several sets .*: 'teacher', 'student'\. Name .*dino\.pth::teacher",
    ):
        loaded(saved(tmp_path / "dino.pth", held))
    averaged = {**model.state_dict(), **{f"ema.{n}": t for n, t in others(model).items()}}
    with pytest.raises(UsageError, match=r"several sets .*: 'ema\.…', names without it\."):
        loaded(saved(tmp_path / "beside.pth", averaged))
    neither = {name: dict(list(state.items())[1:]) for name, state in held.items()}
    with pytest.raises(UsageError, match=r"\('teacher' of 'teacher', 'student'\) .*weight missing"):
        loaded(saved(tmp_path / "neither.pth", neither))
    held["student"] = {"head.weight": torch.ones(3)}
    trunk = loaded(saved(tmp_path / "one.pth", held))
    assert "'teacher' is used; 'student' left out, as it does not fit" in trunk.notes[0]


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
