"""The trunk that runs is the one that the fingerprint names."""

import shutil

import pytest
from photos import OPTIONS, paint
from safetensors.torch import load_file, save_file

from pipeline.errors import PipelineError
from pipeline.extraction import extract
from pipeline.extraction.engines import make_engine
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.scan import gather
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.trunks import registry, spec
from pipeline.trunks.engines import openvino_engine
from pipeline.trunks.sources.weights import digest
from pipeline.trunks.spec import FeatureKey

RECIPE = ExtractOptions(**OPTIONS, device="cpu")


@pytest.fixture
def changed(tmp_path):
    """Return photos and a cache whose random weights were made anew, with other numbers."""
    photos, cache = paint(tmp_path / "photos", each=3), Cache.at(tmp_path / "c")
    extract.extract_table(photos, RECIPE, cache)
    (file,) = cache.weights.glob("*.safetensors")
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    tensors[next(name for name in tensors if name.endswith("conv1.weight"))] *= 1.5
    save_file(tensors, file, metadata={"digest": digest(tensors)})
    return photos, cache


def add_image(photos):
    path = photos / "train" / "red" / "more.png"
    shutil.copy(photos / "train" / "red" / "00.png", path)
    with path.open("ab") as file:
        file.write(b"another digest")


def test_rows_of_other_weights_are_refused_and_the_same_command_makes_rows_of_its_own(changed):
    photos, cache = changed
    (before,) = cache.stores()
    shards = before.names()
    warm = extract.extract_table(photos, RECIPE, cache)  # what is there needs no trunk
    assert warm.extracted == 0
    add_image(photos)
    with pytest.raises(PipelineError, match=r"random of resnet18 now holds other weights .* again"):
        extract.extract_table(photos, RECIPE, cache)
    assert before.names() == shards
    done = extract.extract_table(photos, RECIPE, cache)
    assert done.extracted == 13 and done.table.fingerprint != before.fingerprint


def test_several_features_of_other_weights_are_refused_too(changed):
    photos, cache = changed
    facts, trunk = spec.resolve(
        RECIPE.trunk, RECIPE.weights, "name", size=RECIPE.image_size, memo=cache.memo,
        state_dir=cache.weights,
    )  # fmt: skip
    recipes = [
        ExtractOptions(**OPTIONS, device="cpu", layer=layer) for layer in ("layer2", "layer3")
    ]
    gathered = gather(photos, RECIPE, cache, Silent())
    with pytest.raises(PipelineError, match="now holds other weights"):
        extract.extract_tables(
            photos, recipes, cache, Silent(), gathered=gathered, facts=facts, trunk=trunk
        )
    assert len([store for store in cache.stores() if store.names()]) == 1


@pytest.mark.parametrize("loaded", [True, False])
def test_a_network_of_other_weights_is_not_converted(tmp_path, monkeypatch, loaded):
    monkeypatch.setattr(openvino_engine, "available", lambda: True)
    monkeypatch.setattr(openvino_engine, "converted", lambda net, *args, **options: net())
    cache = Cache.at(tmp_path)
    trunk = registry.load("resnet18", "random", state_dir=cache.weights)
    key = FeatureKey("resnet18", "d" * 64, "feature", "own", trunk.preprocess, "fp32")
    with pytest.raises(PipelineError, match="now holds other weights"):
        make_engine(
            trunk if loaded else None, key, ExtractOptions(**OPTIONS | {"engine": "auto"}), cache
        )
