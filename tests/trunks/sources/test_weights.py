from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import densenet121, mobilenet_v3_small
from weights_files import NAME, loaded, saved

from pipeline.errors import PipelineError, UsageError
from pipeline.trunks.registry import find, load
from pipeline.trunks.sources.checkpoint import _refusal, read_sets
from pipeline.trunks.sources.weights import digest


def test_a_models_own_state_dict_loads_from_either_format(model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    pth = loaded(saved(tmp_path / "a.pth", state))
    save_file(state, tmp_path / "b.safetensors")
    safe = loaded(tmp_path / "b.safetensors")
    assert pth.weights_digest == safe.weights_digest
    assert (pth.weights, safe.weights) == ("a.pth", "b.safetensors")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.fc = nn.Identity()
        torch.testing.assert_close(pth.module(x), model(x))
    assert not any(p.requires_grad for p in pth.module.parameters())
    assert not pth.module.training


def test_the_classifier_may_have_any_number_of_classes_or_layers(tmp_path: Path) -> None:
    torch.manual_seed(4)
    state = mobilenet_v3_small(num_classes=7).state_dict()
    first = loaded(saved(tmp_path / "seven.pth", state), "mobilenet_v3_small")
    head = {f"classifier.3.{i}.weight": torch.zeros(2, 2) for i in range(2)}
    trunk = {k: v for k, v in state.items() if not k.startswith("classifier.3")}
    second = loaded(saved(tmp_path / "deep.pth", {**trunk, **head}), "mobilenet_v3_small")
    third = loaded(saved(tmp_path / "none.pth", trunk), "mobilenet_v3_small")
    assert first.weights_digest == second.weights_digest == third.weights_digest


@pytest.mark.parametrize(
    "name", ["x.bin", "x.ckpt", "x.pth.tar", "X.PTH", "x.model", "x", "x.safetensors", "x.Pt"]
)
def test_any_ending_is_read_as_what_it_holds(tmp_path: Path, name: str) -> None:
    state = {"a": torch.ones(2)}
    for new in (True, False):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=new)
        assert read_sets(tmp_path / name)[""]["a"].tolist() == [1, 1]
    save_file(state, tmp_path / name)
    assert read_sets(tmp_path / name)[""]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["x.bin", "x.ckpt", "x.pth.tar", "X.PTH", "x.model"])
def test_a_name_with_any_usual_ending_is_taken_for_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"Weights file {name} does not exist"):
        load(NAME, name, state_dir=tmp_path)


def test_a_file_that_is_called_as_weights_are_is_taken_only_by_its_path(
    model: nn.Module, own_digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(model.state_dict(), "random")
    by_name = load(NAME, "random", state_dir=tmp_path)
    by_path = load(NAME, "./random", state_dir=tmp_path)
    assert (by_name.weights, by_name.weights_asked) == ("random", "random")
    assert by_name.weights_digest != own_digest == by_path.weights_digest
    assert by_path.weights_asked == str(tmp_path / "random")


def test_stages_that_are_zero_throughout_are_told(model: nn.Module, tmp_path: Path) -> None:
    def zeroed(part: str) -> dict[str, Tensor]:
        return {k: v * 0 if k.startswith(part) else v for k, v in model.state_dict().items()}

    assert loaded(saved(tmp_path / "w.pth", zeroed("none"))).notes == ()
    (note,) = loaded(saved(tmp_path / "w.pth", zeroed(""))).notes
    assert "all weights are zero" in note
    (note,) = loaded(saved(tmp_path / "w.pth", zeroed("stage3"))).notes
    assert "all weights in layer3 are zero" in note


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_tensors_are_told_as_such(model: nn.Module, tmp_path: Path) -> None:
    name = "conv1.0.weight"
    own = torch.quantize_per_tensor(model.state_dict()[name], 0.1, 0, torch.qint8)
    with pytest.raises(PipelineError, match="quantised"):
        loaded(saved(tmp_path / "w.pth", {**model.state_dict(), name: own}))
    # pickle names the first module that it finds an object in, which need not be torch
    error = "Unsupported global: GLOBAL sklearn.externals.torch.per_tensor_affine was not"
    assert "quantised" in _refusal(tmp_path / "w.pth", error)


def test_tensors_that_are_no_plain_numbers_are_refused(model: nn.Module, tmp_path: Path) -> None:
    name = "conv1.0.weight"
    own = model.state_dict()[name]
    for tensor, why in (
        (own.to(torch.int8), "is int8: give the weights from before they were quantised"),
        (own.to("meta"), "is without its values"),
        (own.to_sparse(), "is sparse"),
        (own * float("nan"), "holds NaN"),
    ):
        held = {**model.state_dict(), name: tensor}
        with pytest.raises(UsageError, match=rf"{name} {why}"):
            loaded(saved(tmp_path / "w.pth", held))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_are_computed_in_float32_and_told(
    model: nn.Module, tmp_path: Path, dtype: torch.dtype
) -> None:
    held = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    trunk = loaded(saved(tmp_path / "v.pth", held))
    assert {p.dtype for p in trunk.module.parameters()} == {torch.float32}
    assert f"from {str(dtype).split('.')[1]} to float32" in trunk.notes[0]


def test_a_part_of_a_sharded_checkpoint_says_so(model: nn.Module, tmp_path: Path) -> None:
    half = dict(list(model.state_dict().items())[:50])
    with pytest.raises(UsageError, match="the file is part 1 of 2: give one file"):
        loaded(saved(tmp_path / "pytorch_model-00001-of-00002.bin", half))


def test_what_is_missing_left_over_and_misshapen_is_told_in_one_message(
    model: nn.Module, tmp_path: Path
) -> None:
    state: dict[str, Tensor] = dict(model.state_dict())
    for name in ["conv1.0.weight", "conv5.0.weight"]:
        state[name.replace("conv", "cov")] = state.pop(name)
    state["stage2.0.branch1.0.weight"] = torch.zeros(5, 1, 3, 3)
    with pytest.raises(UsageError) as caught:
        loaded(saved(tmp_path / "d.pth", state))
    text = str(caught.value)
    assert "conv1.0.weight, conv5.0.weight missing" in text
    assert "cov1.0.weight, cov5.0.weight left over" in text
    assert "stage2.0.branch1.0.weight is 5×1×3×3 instead of 24×1×3×3" in text
    assert "--keys order" not in text, "it would not help"


def test_another_models_weights_show_the_first_few_and_the_count(tmp_path: Path) -> None:
    path = saved(tmp_path / "e.pth", mobilenet_v3_small().state_dict())
    with pytest.raises(UsageError, match=r"and \d+ more missing.*and \d+ more left over"):
        loaded(path)


def test_keys_order_matches_whatever_the_names(model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    by_name = loaded(saved(tmp_path / "f.pth", state))
    kept = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    plain = {f"t{i}": tensor for i, tensor in enumerate(kept.values())}
    with pytest.raises(UsageError, match=r"missing.*\(--keys order matches by order\)"):
        loaded(saved(tmp_path / "g.pth", plain))
    by_order = loaded(saved(tmp_path / "h.pth", plain), keys="order")
    headless = {f"t{i}": t for i, (n, t) in enumerate(kept.items()) if not n.startswith("fc")}
    without = loaded(saved(tmp_path / "i.pth", headless), keys="order")
    assert by_name.weights_digest == by_order.weights_digest == without.weights_digest


def test_keys_order_refuses_what_does_not_fit(model: nn.Module, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    short = dict(list(state.items())[:-9])
    with pytest.raises(UsageError, match=r"by order: it holds \d+ tensors, the trunk \d+"):
        loaded(saved(tmp_path / "j.pth", short), keys="order")
    names = list(state)
    state[names[0]] = torch.zeros(1, 2)
    with pytest.raises(UsageError, match=r"by order: conv1\.0\.weight is 1×2, conv1"):
        loaded(saved(tmp_path / "k.pth", state), keys="order")
    save_file(model.state_dict(), tmp_path / "l.safetensors")
    with pytest.raises(UsageError, match="sorted by name"):
        loaded((tmp_path / "l.safetensors").rename(tmp_path / "l.pth"), keys="order")
    with pytest.raises(UsageError, match=r"name or order, not 'ordr'\. Did you mean order"):
        loaded(tmp_path / "k.pth", keys="ordr")


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_a_file_that_wants_to_run_code_is_refused_and_runs_none(
    model: nn.Module, tmp_path: Path, plain_pickle: bool
) -> None:
    trace = tmp_path / "it-ran"
    held = {"state_dict": model.state_dict(), "extra": Payload(trace)}
    path = tmp_path / "m.pth"
    if plain_pickle:
        path.write_bytes(pickle.dumps(held["extra"]))
    else:
        saved(path, held)
    with pytest.raises(PipelineError, match="nothing in it was run"):
        loaded(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload would have shown"


def test_a_whole_pickled_model_is_refused_with_what_to_save(
    model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(
        PipelineError,
        match=r"whole pickled network.*torchvision.*torch\.save\(model\.state_dict\(\)",
    ):
        loaded(saved(tmp_path / "n.pth", model))


def test_files_that_are_no_weights_are_told(tmp_path: Path) -> None:
    for name in ("o.pth", "p.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(PipelineError, match=f"{name} "):
            loaded(tmp_path / name)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(PipelineError, match="cannot be read"):
        loaded(tmp_path / "empty.pth")
    with pytest.raises(PipelineError, match="holds a list"):
        loaded(saved(tmp_path / "q.pth", [torch.zeros(1)]))
    with pytest.raises(PipelineError, match=r"holds no tensors by name; .* Keys: epoch\."):
        loaded(saved(tmp_path / "r.pth", {"epoch": 1}))


def test_a_truncated_file_is_told(model: nn.Module, tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pth", model.state_dict())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(PipelineError, match=r"t\.pth cannot be read"):
        loaded(path)
    save_file(model.state_dict(), tmp_path / "u.safetensors")
    whole = (tmp_path / "u.safetensors").read_bytes()
    (tmp_path / "u.safetensors").write_bytes(whole[:-1000])
    with pytest.raises(PipelineError, match="no safetensors file"):
        loaded(tmp_path / "u.safetensors")


def test_a_file_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.pth does not exist"):
        loaded(tmp_path / "nowhere.pth")
    with pytest.raises(UsageError, match=r"is a folder; give a file in \.pth"):
        loaded(tmp_path)
    (tmp_path / "model.bin").touch()
    with pytest.raises(UsageError, match=r"is a folder; give one of it: model\.bin\."):
        loaded(tmp_path)
    with pytest.raises(UsageError, match=r"mdoel\.bin does not exist.* Did you mean model\.bin"):
        loaded(tmp_path / "mdoel.bin")


def test_densenets_old_names_are_known(tmp_path: Path) -> None:
    state = densenet121().state_dict()
    family = find("densenet121")
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")
        if "denselayer" in name
        else name: tensor
        for name, tensor in state.items()
    }
    assert old.keys() != state.keys()
    assert {family.rename(name) for name in old} == state.keys()


def test_the_digest_is_of_names_dtypes_shapes_and_bytes_in_any_order() -> None:
    a, b = torch.arange(6.0), torch.ones(2, 3)
    base = digest({"a": a, "b": b})
    assert digest({"b": b, "a": a}) == base
    assert digest({"a": a, "b": b, "bn.num_batches_tracked": torch.tensor(3)}) == base
    assert digest({"a": a, "b": b.T.contiguous().T}) == base
    for other in (
        {"a": a, "c": b},
        {"a": a.double(), "b": b},
        {"a": a.reshape(2, 3), "b": b},
        {"a": a + 1, "b": b},
        {"a": b, "b": a},
    ):
        assert digest(other) != base
