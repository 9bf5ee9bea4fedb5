"""A person's own network, as `module:function` and as an object."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.trunks import permitted
from pipeline.trunks.registry import load
from pipeline.trunks.sources import own

PREPROCESS = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(),
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

def make():
    return Net()

make.preprocess = {preprocess!r}

def silent():
    return Net()

def number():
    return 3

def broken():
    raise RuntimeError("no such checkpoint")
"""


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.inner, self.last = inner, last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.inner(x))
        return found


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module in the working folder, nothing of which is permitted yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(permitted, "_PERMITTED", set())
    name = f"mine_{tmp_path.name}"
    code = CODE.replace("{preprocess!r}", repr(PREPROCESS))
    (tmp_path / f"{name}.py").write_text(code)
    return name


def test_a_function_makes_the_network_where_a_person_names_it(mine: str, tmp_path: Path) -> None:
    name = f"{mine}:make"
    with pytest.raises(PipelineError, match=f"no file may ask for that.*PIPELINE_TRUNKS={name}"):
        load(name, state_dir=tmp_path)
    permitted.permit(name)
    trunk = load(name, state_dir=tmp_path)
    assert trunk.preprocess.crop == 32 and trunk.module.dim == 24
    assert list(trunk.module.stages) == ["stem", "layer3", "layer4"]
    assert load(name, state_dir=tmp_path).weights_digest == trunk.weights_digest
    assert load(name, "random", state_dir=tmp_path).weights_digest != trunk.weights_digest


def test_the_environment_permits_too(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_TRUNKS", f"other:make, {mine}:make")
    assert load(f"{mine}:make", state_dir=tmp_path).module.dim == 24


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("silent", "does not say how images are prepared"),
        ("number", "returns int and no nn.Module"),
        ("broken", "fails: RuntimeError: no such checkpoint"),
        ("missing", "has no attribute 'missing'"),
    ],
)
def test_what_is_wrong_is_told(mine: str, tmp_path: Path, function: str, text: str) -> None:
    permitted.permit(f"{mine}:{function}")
    with pytest.raises(PipelineError, match=text):
        load(f"{mine}:{function}", state_dir=tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["resnet", "wrapped", "identity", "vit"])
def test_networks_of_every_shape_end_in_their_feature(tmp_path: Path, kind: str) -> None:
    resnet = torchvision.models.resnet18().eval()
    bare = torchvision.models.resnet18()
    bare.fc = nn.Identity()
    module = {
        "resnet": resnet,
        "wrapped": Wrapped(bare, nn.Linear(512, 7)),
        "identity": Wrapped(bare, nn.Identity()),
        "vit": timm.create_model("test_vit", dynamic_img_size=False),
    }[kind].eval()
    name = own.own_trunk(
        module, name=f"mine-{kind}", preprocess={**PREPROCESS, "size": 160 if kind == "vit" else 64}
    )
    trunk = load(name, state_dir=tmp_path)
    x = torch.randn(2, 3, trunk.preprocess.crop, trunk.preprocess.crop)
    seen: list[torch.Tensor] = []
    last = {"resnet": "fc", "wrapped": "last", "identity": "last", "vit": "head"}[kind]
    handle = module.get_submodule(last).register_forward_pre_hook(lambda _, i: seen.append(i[0]))
    module(x)
    handle.remove()
    assert torch.allclose(trunk.module(x), seen[0], atol=1e-5)
    assert "layer4" in trunk.module.stages and trunk.name == f"own/mine-{kind}"
    says = "is what it gives" if kind == "identity" else f"is what enters {last}"
    assert [note for note in trunk.notes if f"the feature {says}" in note]


def test_structure_counts_as_well_as_tensors(tmp_path: Path) -> None:
    first, second = (
        nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), kind(), nn.Conv2d(4, 4, 3, 2, 1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )
        for kind in (nn.ReLU, nn.GELU)
    )  # fmt: skip
    second.load_state_dict(first.state_dict())
    digests = {
        load(
            own.own_trunk(one, name="same", preprocess=PREPROCESS), state_dir=tmp_path
        ).weights_digest
        for one in (first, second)
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("name", "preprocess", "text"),
    [
        (None, PREPROCESS, "needs a name"),
        ("a/b", PREPROCESS, "needs a name"),
        ("mine", None, "says how images are prepared, such as"),
        ("mine", {"size": 32}, "says how images are prepared, such as"),
        ("mine", {**PREPROCESS, "std": (0.0, 1.0, 1.0)}, "three positive stds"),
        ("mine", {**PREPROCESS, "interpolation": "nearest"}, "bilinear or bicubic"),
        ("mine", {**PREPROCESS, "mean": "grey"}, "cannot be read"),
        ("mine", {**PREPROCESS, "size": float("inf")}, "cannot be read"),
        (True, PREPROCESS, "needs a name"),
    ],
)
def test_a_name_and_the_preprocessing_must_be_given(name, preprocess, text) -> None:
    with pytest.raises(UsageError, match=text):
        own.own_trunk(nn.Linear(2, 2), name=name, preprocess=preprocess)


def test_an_object_goes_through_all_stages_and_stays_as_it_was(tmp_path: Path) -> None:
    module = torchvision.models.resnet18()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    table = pipeline.extract(
        "digits", trunk=module, name="mine", preprocess=PREPROCESS, cache=tmp_path / "c",
        engine="torch", device="cpu",
    )  # fmt: skip
    assert (table.provenance.trunk, table.features.shape[1]) == ("own/mine", 512)
    head = pipeline.fit_head(table, "linear", cache=tmp_path / "c")
    model = pipeline.finetune(head, unfreeze="layer4", epochs=1, views=1, cache=tmp_path / "c")
    assert {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])} == set()
    folder = pipeline.export(model, "safetensors", output=tmp_path / "out", cache=tmp_path / "c")
    assert (folder / "model.safetensors").is_file()
    with pytest.raises(UsageError, match="a library's has its own"):
        pipeline.extract("digits", preprocess=PREPROCESS, cache=tmp_path / "c")


def test_a_network_may_be_named_apart_from_its_tables(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    with pytest.raises(UsageError, match="says how images are prepared"):
        pipeline.own_trunk(net, name="apart")
    setattr(net, "preprocess", PREPROCESS)  # noqa: B010  as what module:function makes has it
    trunk = pipeline.own_trunk(net, name="apart")
    table = pipeline.extract("digits", trunk=trunk, name="first", cache=tmp_path, engine="torch")
    assert table.path is not None
    assert table.path.name.startswith("first--own-apart--")
    assert table.provenance.trunk == "own/apart"
    features = pipeline.TrunkFeatures(trunk, cache=tmp_path)
    assert features.get_params()["trunk"] == "own/apart"


def test_the_code_of_its_classes_counts_and_addresses_in_memory_do_not(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    first = tmp_path / f"{mine}.py"
    other = tmp_path / f"{mine}_other.py"
    other.write_text(first.read_text().replace("self.head(self.body(x)", "self.head(-self.body(x)"))
    # equal tensors: only the code differs
    torch.manual_seed(0)
    made = [import_module(module).make() for module in (mine, other.stem)]
    made[1].load_state_dict(made[0].state_dict())
    digests = []
    for one in made:
        own.own_trunk(one, name="one", preprocess=PREPROCESS)
        digests.append(load("own/one", state_dir=tmp_path).weights_digest)
    assert digests[0] != digests[1]

    class Printed(nn.Identity):
        def extra_repr(self) -> str:
            return repr(object())

    assert own._structure(Printed()) == own._structure(Printed())


def test_random_weights_are_those_of_the_network_that_has_the_name_now(tmp_path: Path) -> None:
    for width in (8, 12):
        module = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 16, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        name = own.own_trunk(module, name="grown", preprocess=PREPROCESS)
        trunk = load(name, "random", state_dir=tmp_path)
        assert {p.shape[0] for p in trunk.module.parameters()} == {width, 16}


def test_what_fails_within_a_persons_function_is_no_wrong_name(mine: str, tmp_path: Path) -> None:
    with (tmp_path / f"{mine}.py").open("a") as file:
        file.write("\ndef typo():\n    return nn.Linar(3, 4)\n")
    permitted.permit(f"{mine}:typo")
    with pytest.raises(PipelineError, match=r"fails: AttributeError.*Linar") as caught:
        load(f"{mine}:typo", state_dir=tmp_path)
    assert not isinstance(caught.value, UsageError)
