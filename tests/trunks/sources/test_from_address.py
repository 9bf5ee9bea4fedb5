"""timm's own notation: a folder, a name on the hub, the hub's cache and its offline mode."""

from __future__ import annotations

import json
import socket
import urllib.error
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from pipeline.errors import PipelineError, UsageError
from pipeline.trunks import permitted, spec
from pipeline.trunks.registry import load

CONFIG: dict[str, Any] = {
    "architecture": "test_vit",
    "num_classes": 5,
    "model_args": {"global_pool": "avg"},
    "pretrained_cfg": {
        "input_size": [3, 160, 160], "interpolation": "bilinear", "crop_pct": 1.0,
        "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "num_classes": 5,
        "first_conv": "patch_embed.proj", "classifier": "head", "license": "mit",
    },
}  # fmt: skip


def model() -> Any:
    torch.manual_seed(5)
    return timm.create_model("test_vit", num_classes=5, global_pool="avg").eval()


def filled(folder: Path, config: Any = CONFIG, *, weights: bool = True) -> Path:
    """Write what timm's `save_for_hf` does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights:
        save_file(model().state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the hub's cache, empty, where there is no network."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def snapshot(hub: Path, name: str) -> Path:
    """Return the folder of what the hub has under a name, as its cache keeps it."""
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    return repository / "snapshots" / "c0ffee"


@torch.no_grad()
@pytest.mark.parametrize("notation", ["timm/local-dir:{}", "local-dir:{}"])
def test_a_folder_gives_network_weights_and_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notation: str
) -> None:
    folder = filled(tmp_path / "saved")
    trunk = load(notation.format(folder), state_dir=tmp_path)
    x = torch.randn(1, 3, 160, 160)
    own = model()
    want = own.forward_head(own.forward_features(x), pre_logits=True)
    assert torch.allclose(trunk.module(x), want, atol=1e-5)
    assert (trunk.name, trunk.weights) == (f"timm/local-dir:{folder}", "pretrained")
    assert (trunk.preprocess.crop, trunk.preprocess.mean) == (160, (0.5, 0.5, 0.5))
    assert trunk.preprocess.interpolation == "bilinear" and not permitted.is_own(trunk.name)
    monkeypatch.chdir(tmp_path)
    again = load(notation.format("saved"), trunk.weights_asked, state_dir=tmp_path)
    assert (again.name, again.weights_digest) == (trunk.name, trunk.weights_digest)
    assert load(trunk.name, "random", state_dir=tmp_path).weights_digest != trunk.weights_digest


def test_what_is_in_a_folder_now_counts(tmp_path: Path) -> None:
    folder = filled(tmp_path / "saved")

    def digest() -> str:
        return spec.resolve(
            f"timm/local-dir:{folder}", "default", "name", memo=tmp_path / "memo",
            state_dir=tmp_path,
        )[0].weights_digest  # fmt: skip

    first = digest()
    filled(folder, {**CONFIG, "model_args": {"global_pool": "avgmax"}}, weights=False)
    other = digest()
    (folder / "model.safetensors").unlink()
    save_file({k: v + 1 for k, v in model().state_dict().items()}, folder / "model.safetensors")
    assert len({first, other, digest()}) == 3


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (None, r"there is no file .*config\.json\. Give a folder that timm's save_for_hf wrote"),
        ({"model_type": "vit"}, r"its config\.json is not as timm writes it .*transformers"),
        ({**CONFIG, "pretrained_cfg": {"colour": 3}}, "is not as timm writes it .*colour"),
        ([1], "is not as timm writes it"),
        ({**CONFIG, "architecture": "test_vitt"}, "has no network 'test_vitt'.*mean test_vit"),
        ({**CONFIG, "architecture": "volo_d1_224"}, "its class token joins late"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path, config: Any, text: str) -> None:
    folder = tmp_path / "saved"
    if config is not None:
        filled(folder, config, weights=False)
    with pytest.raises(UsageError, match=text):
        load(f"timm/local-dir:{folder}", state_dir=tmp_path)


def test_weights_that_are_missing_damaged_or_others_are_told(tmp_path: Path) -> None:
    folder = filled(tmp_path / "saved", weights=False)
    with pytest.raises(PipelineError, match=r"has no weights beside config\.json"):
        load(f"timm/local-dir:{folder}", state_dir=tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"damaged")
    with pytest.raises(PipelineError, match=r"pytorch_model\.bin is of no known kind"):
        load(f"timm/local-dir:{folder}", state_dir=tmp_path)
    torch.save({"head.weight": torch.ones(1)}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin does not fit .*cls_token"):
        load(f"timm/local-dir:{folder}", state_dir=tmp_path)


def test_a_name_on_the_hub_is_looked_for_in_its_cache_first(hub: Path, tmp_path: Path) -> None:
    filled(snapshot(hub, "me/tiny"))
    trunk = load("timm/hf-hub:me/tiny", state_dir=tmp_path)
    assert trunk.name == "timm/hf-hub:me/tiny"
    assert trunk.weights_digest == load("hf_hub:me/tiny", state_dir=tmp_path).weights_digest
    folder = filled(tmp_path / "saved")
    as_folder = load(f"timm/local-dir:{folder}", state_dir=tmp_path)
    assert trunk.weights_digest == as_folder.weights_digest
    pinned = load("timm/hf-hub:me/tiny@c0ffee", state_dir=tmp_path)
    assert pinned.weights_digest == trunk.weights_digest


@pytest.mark.parametrize("offline", [True, False])
def test_what_is_not_in_the_hubs_cache_is_told_at_once(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    why = "HF_HUB_OFFLINE is set" if offline else "Name or service not known"
    with pytest.raises(PipelineError, match=rf"config\.json of hf-hub:me/tiny .*{why}.*local-dir"):
        load("timm/hf-hub:me/tiny", state_dir=tmp_path)
    with pytest.raises(PipelineError, match=rf"r160_in1k of timm/test_vit .*{why}"):
        load("timm/test_vit", state_dir=tmp_path)
    filled(snapshot(hub, "me/tiny"), weights=False)
    with pytest.raises(PipelineError, match=rf"model\.safetensors of hf-hub:me/tiny .*{why}"):
        load("timm/hf-hub:me/tiny", state_dir=tmp_path)


def test_timms_own_weights_come_from_the_hubs_cache(hub: Path, tmp_path: Path) -> None:
    state = timm.create_model("test_vit").state_dict()
    save_file(state, snapshot(hub, "timm/test_vit.r160_in1k") / "model.safetensors")
    trunk = load("timm/test_vit", state_dir=tmp_path)
    assert trunk.weights == trunk.weights_asked == "r160_in1k"
    assert trunk.module.native_state()["cls_token"].equal(state["cls_token"])


def test_a_folder_that_the_hub_answers_for_is_downloaded(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = filled(tmp_path / "far")
    (there / "model.safetensors").unlink()
    torch.save(model().state_dict(), there / "pytorch_model.bin")
    asked = []

    def download(repository: str, file: str, revision: str | None) -> str:
        asked.append((repository, file, revision))
        if not (there / file).exists():
            raise huggingface_hub.errors.EntryNotFoundError("404 Client Error.\n\nmore")
        return str(there / file)

    monkeypatch.setattr("pipeline.trunks.sources.from_address.unreachable", lambda _: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load("timm/hf-hub:me/tiny@v2", state_dir=tmp_path).module.dim == 64
    assert asked == [("me/tiny", "config.json", "v2")]  # the weights lie beside it by then
    (there / "pytorch_model.bin").unlink()
    with pytest.raises(PipelineError, match=r"pytorch_model\.bin of .*\(404 Client Error\)\. Down"):
        load("timm/hf-hub:me/tiny@v2", state_dir=tmp_path)


def test_what_is_recorded_of_a_tag_leads_to_the_same_weights(hub: Path, tmp_path: Path) -> None:
    base, tags = "timm/mobilenetv4_conv_small", ("e2400_r224_in1k", "e3600_r256_in1k")
    state = timm.create_model("mobilenetv4_conv_small").state_dict()
    for number, tag in enumerate(tags):
        held = {k: v + number if v.is_floating_point() else v for k, v in state.items()}
        save_file(held, snapshot(hub, f"{base}.{tag}") / "model.safetensors")
    for name, weights, tag in (
        (base, "default", tags[0]),
        (f"{base}.{tags[0]}", "default", tags[0]),
        (f"{base}.{tags[1]}", "default", tags[1]),
        (base, tags[1], tags[1]),
    ):
        trunk = load(name, weights, state_dir=tmp_path)
        assert (trunk.name, trunk.weights_asked) == (base, tag)
        again = load(trunk.name, trunk.weights_asked, state_dir=tmp_path)
        assert again.weights_digest == trunk.weights_digest
        assert again.preprocess == trunk.preprocess
    trunk = load(f"{base}.{tags[1]}", "random", state_dir=tmp_path)
    assert trunk.preprocess.crop == 256
    again = load(trunk.name, trunk.weights_asked, state_dir=tmp_path)
    assert (again.weights_digest, again.preprocess) == (trunk.weights_digest, trunk.preprocess)
