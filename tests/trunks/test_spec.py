import json
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks import spec
from pipeline.trunks.spec import FeatureKey, TrunkFacts, check_layer

FACTS = TrunkFacts(
    "vgg11",
    "random",
    "d" * 64,
    Preprocess(256, 224),
    4096,
    ("stem", "layer1", "layer2", "layer3", "layer4"),
    True,
    "random",
    (),
)
KEY = FeatureKey("vgg11", "d" * 64, "feature", "own", Preprocess(256, 224), "fp32")


@pytest.mark.parametrize(
    "change",
    [
        {"trunk": "vgg13"},
        {"weights_digest": "e" * 64},
        {"layer": "layer3"},
        {"pool": "max"},
        {"preprocess": Preprocess(256, 192)},
        {"preprocess": Preprocess(256, 224, interpolation="bicubic")},
        {"preprocess": Preprocess(256, 224, mean=(0.5, 0.5, 0.5))},
        {"precision": "bf16"},
        {"decoder": "nvjpeg"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_changes_with_everything_that_changes_a_number(change):
    assert FeatureKey(**{**vars(KEY), **change}).fingerprint != KEY.fingerprint


@pytest.mark.parametrize("name", ["SCHEMA", "DECODE_POLICY", "VIEW_POLICY"])
def test_the_fingerprint_changes_with_the_policies_and_the_schema(monkeypatch, name):
    before = KEY.fingerprint
    monkeypatch.setattr(spec, name, "another")
    assert KEY.fingerprint != before


def test_the_fingerprint_is_the_same_on_every_machine():
    assert KEY.fingerprint == "703a5602c4225f92e57dd5891929ba9e8cbe7d1a8936dd7de4f13612b96deb3a"


def test_facts_make_the_round_trip_through_json():
    assert TrunkFacts.from_json(FACTS.to_json()) == FACTS


@pytest.mark.parametrize(
    ("layer", "pool", "want"),
    [
        (None, None, ("feature", "own")),
        ("neck", None, ("feature", "own")),
        (None, "max", ("layer4", "max")),
        ("layer3", None, ("layer3", "avg")),
        ("layer2", "gem", ("layer2", "gem")),
        ("layer4,layer2", None, ("layer2+layer4", "avg")),
        ("layer2+layer4", "max", ("layer2+layer4", "max")),
        ("neck, layer3", "max", ("layer3+feature", "max")),
        ("layer3,layer3", None, ("layer3", "avg")),
        ("neck,neck", None, ("feature", "own")),
    ],
)
def test_layer_and_pool_mean_what_the_help_says(layer, pool, want):
    assert check_layer(FACTS, layer, pool) == want


def test_a_layer_that_the_trunk_has_not_is_refused_with_those_it_has():
    with pytest.raises(UsageError, match="no layer 'layer1'; it has stem, layer3, layer4"):
        check_layer(
            TrunkFacts(**{**vars(FACTS), "stages": ("stem", "layer3", "layer4"), "neck": False}),
            "layer1",
            None,
        )
    with pytest.raises(UsageError, match="leave --pool out with --layer neck"):
        check_layer(FACTS, "neck", "max")
    for layer in ("layer2,layer9", "layer2,", ""):
        with pytest.raises(UsageError, match=r"has no layer '(layer9)?'; it has stem, layer1"):
            check_layer(FACTS, layer, None)


def test_a_trunk_is_loaded_once_and_remembered_until_its_file_changes(tmp_path, monkeypatch):
    from pipeline.trunks import registry

    loads = []
    real = registry.load

    def counted(*args, **kwargs):
        loads.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(registry, "load", counted)
    import torch

    path = tmp_path / "w.pth"
    trunk = real("timm/test_resnet", "random", state_dir=tmp_path)
    torch.save(trunk.module.native_state(), path)

    def resolve():
        facts, _ = spec.resolve(
            "timm/test_resnet", str(path), "name", memo=tmp_path / "memo", state_dir=tmp_path
        )
        return facts

    first = resolve()
    assert resolve() == first and len(loads) == 1
    assert first.weights_digest == trunk.weights_digest
    state = trunk.module.native_state()
    name = next(iter(state))
    state[name] = state[name] + 1
    torch.save(state, path)
    assert resolve().weights_digest != first.weights_digest and len(loads) == 2
    (tmp_path / "memo").write_bytes(b"damaged" * 999)
    assert resolve().weights == "w.pth"


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    """Return a weights file in the home folder, which is the current one too."""
    import torch

    from pipeline.trunks.registry import find

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.save(find("timm/test_resnet").build().state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_a_weights_file_may_be_a_path_or_text_in_every_spelling(weights_file):
    def resolve(weights):
        memo = weights_file.with_name("memo")
        found = spec.resolve("timm/test_resnet", weights, "name", memo=memo, state_dir=memo)[0]
        assert TrunkFacts.from_json(json.loads(json.dumps(found.to_json()))) == found
        return found

    spellings = [str(weights_file), "~/w.pth", "w.pth", Path("~/w.pth"), Path("w.pth")]
    assert {resolve(weights) for weights in spellings} == {resolve(weights_file)}


def test_a_path_is_never_taken_for_a_name(weights_file):
    from pipeline.trunks.registry import load

    memo = weights_file.with_name("memo")
    for name in ("random", "default"):
        with pytest.raises(UsageError, match=rf"/{name} does not exist"):
            spec.resolve("timm/test_resnet", Path(name), "name", memo=memo, state_dir=memo)
        with pytest.raises(UsageError, match=rf"Weights file {name} does not exist"):
            load("timm/test_resnet", Path(name), state_dir=memo)
