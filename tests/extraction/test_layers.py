"""Several layers side by side, and several features from one pass, end to end."""

import csv
import json

import numpy as np
import pytest
from photos import OPTIONS, paint, stored, tune

import pipeline
from pipeline.errors import UsageError
from pipeline.extraction import engines, extract, plan
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.scan import gather
from pipeline.extraction.writer import ShardWriter
from pipeline.finetuning.model import Model, open_predictor
from pipeline.heads.resolve import find
from pipeline.inference import evaluate
from pipeline.inference.exporting.export import export_predictor as export
from pipeline.inference.options import EvaluateOptions, ExportOptions, PredictOptions
from pipeline.inference.predict import start as predict
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD
from pipeline.trunks import spec
from pipeline.trunks.engines import openvino_engine
from pipeline.trunks.engines.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    """Return photos and a cache with a table of three layers and its head; not to be changed."""
    root = tmp_path_factory.mktemp("layers")
    paint(root / "photos")
    table = pipeline.extract(
        root / "photos", cache=root / "cache", layer="layer4,layer2,layer3", **OPTIONS
    )
    pipeline.fit_head(table, clf="logreg", cache=root / "cache")
    return root


@pytest.fixture
def passes(monkeypatch):
    """Return the number of crops in each batch that an engine ran."""
    counts = []
    real = TorchEngine._launch

    def counted(self, crops):
        counts.append(len(crops))
        return real(self, crops)

    monkeypatch.setattr(TorchEngine, "_launch", counted)
    return counts


def several(data, layers, cache, progress=None, **options):
    """Return the extractions of several layers, as `compare` makes them."""
    recipes = [
        ExtractOptions(**{**OPTIONS, **options}, layer=layer, pool=pool) for layer, pool in layers
    ]
    progress = progress or Silent()
    facts, trunk = spec.resolve(
        recipes[0].trunk, recipes[0].weights, "name", memo=cache.memo, state_dir=cache.weights
    )
    gathered = gather(data, recipes[0], cache, progress)
    return extract.extract_tables(
        data, recipes, cache, progress, gathered=gathered, facts=facts, trunk=trunk
    )


LAYERS = [("layer2", "avg"), ("layer3", "max"), (None, None), ("layer2,layer4", "avg")]


def test_a_table_of_several_layers_has_blocks_of_length_one_and_says_which(layered):
    table = Cache.at(layered / "cache").open_table()
    assert table.features.shape == (48, 128 + 256 + 512)
    assert (table.provenance.layer, table.provenance.pool) == ("layer2+layer3+layer4", "avg")
    for block in np.split(np.asarray(table.features), [128, 384], 1):
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, rtol=1e-5)


def test_the_order_in_which_layers_are_named_changes_nothing(layered):
    cache = Cache.at(layered / "cache")
    table = cache.open_table()
    (done,) = several(layered / "photos", [("layer2+layer3,layer4", "avg")], cache)
    assert done.extracted == 0 and done.table.fingerprint == table.fingerprint


def test_predictions_from_files_are_those_that_were_stored(layered):
    cache = Cache.at(layered / "cache")
    folder = HEAD.folders(cache.root)[0]
    paths, named, chances = stored(folder)
    files = [str(layered / "photos" / path) for path in paths]
    for use_cache in (False, True):
        asked = PredictOptions(calibration=False, use_cache=use_cache)
        found = list(predict([str(folder), *files], asked, cache))
        p = np.array([[dict(one.top)[name] for name in ("blue", "red")] for one in found])
        assert np.abs(p - chances).max() < 1e-4
        assert [one.prediction for one in found] == named


def test_evaluating_on_files_gives_the_figures_of_the_table(layered):
    cache = Cache.at(layered / "cache")
    words = [HEAD.folders(cache.root)[0].name, str(layered / "photos")]
    asked = evaluate.understand(words, cache, None)
    done = evaluate.evaluate_predictor(*asked, EvaluateOptions(split="val"), cache)
    info = json.loads((HEAD.folders(cache.root)[0] / "head.json").read_text())
    assert done.metrics["val"].accuracy == info["metrics"]["val"]["accuracy"]


@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_an_export_holds_all_layers_and_their_lengths(layered, tmp_path, format):
    cache = Cache.at(layered / "cache")
    artefact = find(cache, HEAD.folders(cache.root)[0])
    done = export(artefact, ExportOptions(format=format, output=str(tmp_path / "out")), cache)
    assert done.info["dim"] == 896 and done.info["checked"]["difference"] < 1e-3


@pytest.mark.parametrize(
    ("unfreeze", "boundary"), [("layer4", "layer2"), ("layer3", "layer2"), ("all", "pixels")]
)
def test_fine_tuning_runs_from_the_first_layer_on_and_predicts_as_it_was_stored(
    layered, tmp_path, unfreeze, boundary
):
    import shutil

    work = shutil.copytree(layered, tmp_path / "w")
    done = tune(work, unfreeze=unfreeze, epochs=1, views=1, lr=1e-3)
    assert done.info.boundary == boundary and done.info.handover["logits"] < 0.005
    model = Model.open(done.folder, cache=work / "cache")
    with (done.folder / "predictions-val.csv").open() as file:
        listed = list(csv.DictReader(file))
    kept = np.array([[float(row[f"p({c})"]) for c in model.classes_] for row in listed])
    files = [str(work / "photos" / row["path"]) for row in listed]
    assert np.abs(model.predict_proba(files, calibrated=False) - kept).max() < 5e-3
    opened = open_predictor(find(Cache.at(work / "cache"), done.folder), Cache.at(work / "cache"))
    assert opened.linear.weight.shape == (2, 896)


def test_several_features_of_a_trunk_come_from_one_pass_with_the_bits_of_their_own(
    tmp_path, passes
):
    photos = paint(tmp_path / "photos")
    together = several(photos, LAYERS, Cache.at(tmp_path / "a"))
    assert sum(passes) == 2 + 64, "a canary, and 48 images in two batches of 32"
    assert [done.extracted for done in together] == [48] * 4
    passes.clear()
    for layer, done in zip(LAYERS, together, strict=True):
        (alone,) = several(photos, [layer], Cache.at(tmp_path / "b"))
        assert done.table.table_id == alone.table.table_id
        assert done.table.features.tobytes() == alone.table.features.tobytes()
    assert sum(passes) == 4 * (2 + 64)
    passes.clear()
    assert [done.extracted for done in several(photos, LAYERS, Cache.at(tmp_path / "a"))] == [0] * 4
    assert not passes and not list((tmp_path / "a" / "runs").glob("*.h5"))


def test_a_feature_that_is_asked_for_twice_is_computed_once(tmp_path, passes):
    photos = paint(tmp_path / "photos", each=4)
    layers = [("layer2,layer3", "avg"), ("layer3+layer2", None)]
    one, other = several(photos, layers, Cache.at(tmp_path / "c"))
    assert one.table.path == other.table.path and sum(passes) == 2 + 32


def test_only_what_a_feature_lacks_is_computed_and_committed(tmp_path, passes):
    cache, photos = Cache.at(tmp_path / "c"), paint(tmp_path / "photos")
    (first,) = several(photos, LAYERS[:1], cache)
    shards = cache.rows(first.table.fingerprint).names()
    passes.clear()
    for path in sorted((photos / "train" / "red").iterdir())[:3]:
        path.write_bytes(path.read_bytes() + b"another")
    done = several(photos, LAYERS, cache)
    assert [one.extracted for one in done] == [3, 48, 48, 48]
    assert sum(passes) == 2 + 64 and len(cache.rows(first.table.fingerprint).names()) > len(shards)
    assert sum(map(len, (one.bad for one in done))) == 0


def test_a_bad_image_is_bad_in_every_feature_and_moves_no_row(tmp_path):
    photos = paint(tmp_path / "photos")
    want = several(photos, LAYERS, Cache.at(tmp_path / "a"))
    path = photos / "train" / "blue" / "05.png"
    path.write_bytes(path.read_bytes()[:300])
    found = several(photos, LAYERS, Cache.at(tmp_path / "b"))
    for one, whole in zip(found, want, strict=True):
        assert [name for name, _ in one.bad] == ["train/blue/05.png"]
        kept = [r for r in range(48) if whole.table.paths[r] != "train/blue/05.png"]
        assert one.table.features.tobytes() == whole.table.features[kept].tobytes()


class Stopping(Silent):
    """Stops a run after so many batches."""

    def __init__(self, batches):
        self.left = batches
        self.counts = False

    def start(self, what, total):
        self.counts = what == "extracting"

    def advance(self, count, bad=0):
        self.left -= self.counts
        if self.counts and not self.left:
            raise KeyboardInterrupt


def test_a_pass_that_was_stopped_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_ROWS", 8)
    photos = paint(tmp_path / "photos")
    want = several(photos, LAYERS, Cache.at(tmp_path / "a"), batch_size=4)
    cache = Cache.at(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        several(photos, LAYERS, cache, Stopping(5), batch_size=4)
    # a kill between the commits of one shard: one feature has it, the others have not
    index = cache.rows(want[0].table.fingerprint)
    index.path(sorted(index.names())[0]).unlink()
    found = several(photos, LAYERS, cache, batch_size=4)
    for one, whole in zip(found, want, strict=True):
        assert 0 < one.extracted < 48
        assert one.table.features.tobytes() == whole.table.features.tobytes()
    assert not list((cache.root / "runs").glob("*.h5"))


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_pass_killed_at_its_last_commits_goes_on_with_the_network_of_them_all(
    tmp_path, monkeypatch, engine
):
    if engine == "openvino":
        pytest.importorskip("openvino")
        monkeypatch.setattr(openvino_engine, "available", lambda: True)
    made, real = [], engines.make_joint_engine

    def spy(trunk, keys, *args):
        made.append([key.layer for key in keys])
        return real(trunk, keys, *args)

    monkeypatch.setattr(engines, "make_joint_engine", spy)
    monkeypatch.setattr(plan, "SHARD_ROWS", 16)
    photos = paint(tmp_path / "photos")
    options = {"batch_size": 4, "engine": engine}
    want = several(photos, LAYERS, Cache.at(tmp_path / "a"), **options)
    cache, commits, commit = Cache.at(tmp_path / "b"), [], ShardWriter.commit

    def killed(sink):
        if len(commits) == 3 * len(LAYERS) - 2:  # the last shard of the last two
            raise KeyboardInterrupt
        commits.append(sink)
        commit(sink)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            several(photos, LAYERS, cache, **options)
    found = several(photos, LAYERS, cache, **options)
    assert [one.extracted for one in found] == [0, 0, 16, 16]
    assert made[0] == made[1] == made[2]
    for one, whole in zip(found, want, strict=True):
        assert one.table.features.tobytes() == whole.table.features.tobytes()
    made.clear()  # and nothing is left of it
    several(photos, [*LAYERS, ("layer1", "max")], cache, **options)
    assert not made and not list((cache.root / "runs").glob("*.h5"))


def test_a_layer_that_is_not_there_is_told_before_a_file_is_read(tmp_path):
    for layer, said in (
        ("layer2,layr3", r"--layer 'layr3' is not one of stem, .*Did you mean layer3"),
        ("layer2,", "--layer '' is not one of"),
        ("layer2,neck", "resnet18 has no layer 'neck'; it has stem, layer1"),
    ):
        with pytest.raises(UsageError, match=said):
            pipeline.extract(tmp_path / "none", cache=tmp_path / "c", layer=layer, **OPTIONS)


def test_layers_of_a_trunk_in_half_precision_are_normalised_in_float32(layered, tmp_path):
    options = {**OPTIONS, "precision": "bf16", "layer": "layer2,layer4"}
    table = pipeline.extract(layered / "photos", cache=tmp_path / "c", **options)
    for block in np.split(np.asarray(table.features), [128], 1):
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, rtol=1e-5)
