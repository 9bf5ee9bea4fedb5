"""Stage three end to end, on small pictures and a ResNet-18 with random weights."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.tuning import training
from pipeline.tuning.model import Model
from pipeline.verbs import boundary
from pipeline.verbs.finetune import run
from pipeline.verbs.tune_recipe import TuneRecipe

OPTIONS = {"trunk": "resnet18", "weights": "random", "image_size": 64, "precision": "fp32"}
FAST = {"epochs": 2, "views": 2, "precision": "fp32"}


def paint(root: Path, splits=("train", "val"), each: int = 12) -> Path:
    """Make pictures whose classes differ in colour and pattern."""
    rng = np.random.default_rng(0)
    for split in splits:
        for k, name in enumerate(("blue", "red")):
            (root / split / name).mkdir(parents=True)
            for n in range(each):
                pixels = rng.integers(0, 160, (48, 56, 3))
                pixels[..., 2 - 2 * k] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{n:02}.png")
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return pictures and a cache with their table and head, not to be changed."""
    root = tmp_path_factory.mktemp("tune")
    paint(root / "photos")
    table = pipeline.extract(root / "photos", cache=root / "cache", **OPTIONS)
    pipeline.fit_head(table, clf="logreg", cache=root / "cache")
    return root


@pytest.fixture
def work(prepared, tmp_path):
    """Return a copy of them that a test may change; the table still names the first pictures."""
    shutil.copytree(prepared, tmp_path / "w")
    return tmp_path / "w"


class Heard:
    """A progress that remembers."""

    def __init__(self):
        self.said: list[str] = []

    def start(self, what, total): ...
    def advance(self, count, bad=0): ...
    def update(self, text): ...
    def say(self, sentence):
        self.said.append(sentence)


def tune(work: Path, asked=None, heard=None, **options):
    options = {"data": str(work / "photos"), **FAST, **options}
    return run(asked, TuneRecipe(**options), Cache.at(work / "cache"), heard)


def test_it_starts_from_the_head_and_keeps_all_that_it_found(work):
    done = tune(work)
    info, folder = done.info, done.folder
    assert {p.name for p in folder.iterdir()} == {
        "model.json", "model.safetensors", "history.csv", "curve.png",
        "predictions-train-part.csv", "predictions-val.csv",
    }  # fmt: skip
    assert info["selected_on"] == "train-part" and info["boundary"] == "layer3"
    assert info["handover"]["logits"] < 0.005 and info["handover"]["images"] == 5
    assert info["metrics"]["train-part"]["selected_on"] is True
    assert info["metrics"]["val"]["selected_on"] is False
    assert len(info["metrics"]["val"]["model"]["interval"]) == 2
    assert info["head_metrics"]["val"]["images"] == 24 and info["train_images"] == 19
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1", "2"] and rows[0]["train_loss"] == ""
    # step 0 is the head's own score
    start = info["metrics"]["train-part"]["start"]["log_loss"]
    assert float(rows[0]["loss"]) == pytest.approx(start, rel=1e-2)
    assert json.loads((folder / "model.json").read_text()) == info
    with Image.open(folder / "curve.png") as picture:
        assert picture.size[0] > 600


@pytest.mark.parametrize("options", [{}, {"standalone": True}, {"unfreeze": "all"}])
def test_the_stored_predictions_are_those_of_the_model_on_the_files(work, options):
    done = tune(work, lr=1e-3, **options)
    model = Model.open(done.folder, state_dir=work / "cache" / "weights")
    for split in ("val", "train-part"):
        with (done.folder / f"predictions-{split}.csv").open() as file:
            rows = list(csv.DictReader(file))
        files = [str(work / "photos" / row["path"]) for row in rows]
        stored = np.array([[float(row[f"p({c})"]) for c in model.classes_] for row in rows])
        assert np.abs(model.predict_proba(files) - stored).max() < 5e-3
        agree = model.predict(files) == np.array([row["prediction"] for row in rows], object)
        assert agree.mean() >= 0.95


def test_a_model_predicts_on_pictures_and_names_what_it_cannot_read(work, tmp_path):
    model = pipeline.finetune("logreg", cache=work / "cache", data=str(work / "photos"), **FAST)
    path = next((work / "photos" / "val" / "red").iterdir())
    array = np.asarray(Image.open(path))
    found = model.predict_proba([path, str(path), array, Image.open(path)])
    assert np.ptp(found, axis=0).max() < 1e-6 and np.allclose(found.sum(1), 1)
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(PipelineError, match=r"x\.png could not be decoded"):
        model.predict([tmp_path / "x.png"])
    with pytest.raises(PipelineError, match="not on one"):
        model.predict(str(path))


def test_the_same_again_is_reused_and_the_images_are_not_needed(work):
    first = tune(work)
    shutil.rmtree(work / "photos")
    again = tune(work)
    assert again.reused and again.info == first.info


def test_learning_rate_schedule_and_seed_compute_no_activation_and_more_views_only_the_new(work):
    assert tune(work).info["activations_computed"] == 19 * 2 + 5 + 24
    (work / "photos").rename(work / "gone")  # nothing below may need the images
    for options in ({"lr": 3e-4}, {"schedule": "step"}, {"seed": 5}, {"optimizer": "sgd"}):
        done = tune(work, **options, data=None)
        assert not done.reused and done.info["activations_computed"] == 0
    (work / "gone").rename(work / "photos")
    assert tune(work, views=3).info["activations_computed"] == 19
    assert tune(work, views=1).info["activations_computed"] == 0
    assert tune(work, unfreeze="layer3").info["activations_computed"] == 19 * 2 + 5 + 24


def test_nothing_unfrozen_trains_the_head_on_the_tables_own_rows(work):
    done = tune(work, unfreeze="none", augment="none", views=None)
    assert done.info["activations_computed"] == 0 and done.info["boundary"] == "feature"
    table = Cache.at(work / "cache").open_table()
    assert done.info["activations"] == table.fingerprint


@pytest.mark.parametrize(
    ("name", "unfreeze"),
    [
        ("resnet18", "layer4"),
        ("densenet121", "layer4"),
        ("mobilenet_v2", "layer4"),
        ("vgg11", "layer4"),
        ("efficientnet_lite0", "layer4"),
        ("resnet18", "all"),
    ],
)
def test_cached_and_live_training_on_the_same_views_have_the_same_losses(tmp_path, name, unfreeze):
    paint(tmp_path / "photos", each=6)
    options = OPTIONS if name != "efficientnet_lite0" else {"image_size": 64, "precision": "fp32"}
    table = pipeline.extract(
        tmp_path / "photos", cache=tmp_path / "c", **{**options, "trunk": name}
    )
    pipeline.fit_head(table, clf="linear", cache=tmp_path / "c", folds=2)
    store = Cache.at(tmp_path / "c")
    found = [
        run("linear", TuneRecipe(unfreeze=unfreeze, live=live, lr=1e-5, **FAST), store).info
        for live in (False, True)
    ]
    assert [info["live"] for info in found] == [False, True]
    for one, other in zip(*(info["history"] for info in found), strict=True):
        for value in ("train_loss", "loss"):
            if one[value] is not None:
                assert one[value] == pytest.approx(other[value], rel=0.01, abs=2e-3)


def test_an_interrupted_run_keeps_the_best_and_resumes_bit_identically(work, monkeypatch):
    whole = tune(work, epochs=3)
    shutil.rmtree(whole.folder)
    real, calls = training.Training.epoch, []

    def epoch(self):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(training.Training, "epoch", epoch)
    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        tune(work, epochs=3, heard=heard)
    assert any("--resume" in s for s in heard.said)
    kept = json.loads((whole.folder / "model.json").read_text())
    assert kept["finished"] is False and kept["epochs"] == 2
    assert list((work / "cache" / "training").iterdir())
    monkeypatch.setattr(training.Training, "epoch", real)
    heard = Heard()
    done = tune(work, epochs=3, resume=True, heard=heard)
    assert "Going on after epoch 2." in heard.said
    assert done.folder == whole.folder and done.info["finished"]
    for name in ("loss", "train_loss", "accuracy"):
        assert [e[name] for e in done.info["history"]] == [e[name] for e in whole.info["history"]]
    assert done.info["metrics"] == whole.info["metrics"]
    assert not list((work / "cache" / "training").iterdir())


def test_a_new_start_says_that_an_unfinished_run_is_there(work, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    real = training.Training.epoch
    tune(work, epochs=1, seed=9)
    heard = Heard()
    tune(work, epochs=1, seed=8, resume=True, heard=heard)
    assert any("no unfinished run" in s for s in heard.said)
    calls = []

    def second(self):
        calls.append(1)
        return real(self) if len(calls) == 1 else stop(self)

    monkeypatch.setattr(training.Training, "epoch", second)
    with pytest.raises(KeyboardInterrupt):
        tune(work, epochs=2, seed=7)
    monkeypatch.setattr(training.Training, "epoch", real)
    heard = Heard()
    tune(work, epochs=2, seed=7, heard=heard)
    assert any("--resume goes on with one" in s for s in heard.said)


def test_a_loss_that_is_not_finite_stops_says_which_rate_to_try_and_keeps_the_last_good(
    work, monkeypatch
):
    real = training.Training._gradients
    steps = []

    def diverge(self, x, labels):
        steps.append(1)
        return float("nan") if len(steps) > 1 else real(self, x, labels)

    monkeypatch.setattr(training.Training, "_gradients", diverge)
    with pytest.raises(PipelineError, match=r"epoch 2, at a learning rate of 0\.01.*--lr 0\.001"):
        tune(work, lr=0.01)
    [folder] = (work / "cache" / "models").iterdir()
    assert json.loads((folder / "model.json").read_text())["epochs"] == 1


def test_missing_and_changed_images_are_told_in_one_sentence(work):
    photos = work / "photos" / "train" / "red"
    (photos / "00.png").unlink()
    Image.new("RGB", (50, 50)).save(photos / "01.png")
    with pytest.raises(PipelineError, match=r"1 are missing .*00\.png.* 1 have changed .*01\.png"):
        tune(work)
    with pytest.raises(PipelineError, match=r"--data .*nowhere is not a folder"):
        tune(work, data=str(work / "nowhere"))


def test_moved_images_are_found_with_data(work):
    (work / "photos").rename(work / "moved")
    assert tune(work, data=str(work / "moved")).info["activations_computed"]


def test_a_full_disk_means_fewer_views_then_live(work, monkeypatch):
    row = 256 * 4 * 4 * 2

    def disk(free):
        usage = shutil.disk_usage(work)
        monkeypatch.setattr(
            boundary.shutil, "disk_usage", lambda path: usage._replace(free=free + boundary.SPARE)
        )

    disk((19 + 5 + 24) * row)
    heard = Heard()
    done = tune(work, heard=heard)
    assert done.info["settings"]["views"] == 1
    assert any("room for 1 of 2 views" in s for s in heard.said)
    shutil.rmtree(work / "cache" / "rows")
    disk(10)
    heard = Heard()
    done = tune(work, heard=heard, seed=1)
    assert done.info["live"] and any("--live" in s for s in heard.said)


def test_activations_that_float16_cannot_hold_are_kept_in_float32(work, monkeypatch):
    from pipeline.verbs import rows

    real = rows.make_engine

    def loud(*args):
        engine, size = real(*args)
        inner = engine.rows
        engine.rows = lambda crops: inner(crops) * 1e6
        return engine, size

    monkeypatch.setattr(rows, "make_engine", loud)
    heard = Heard()
    with pytest.raises(PipelineError, match="features differ"):  # as they must, a million times
        tune(work, heard=heard)
    assert any("keeping float32" in s for s in heard.said)


def test_another_weights_file_than_the_tables_is_refused_and_a_missing_one_named(tmp_path):
    from pipeline.trunks.registry import load

    paint(tmp_path / "photos", each=4)
    file = tmp_path / "w.safetensors"
    from safetensors.torch import save_file

    tensors = load("resnet18", "random", state_dir=tmp_path).module.native_state()
    save_file({k: v.contiguous() for k, v in tensors.items()}, file)
    options = {**OPTIONS, "weights": str(file)}
    table = pipeline.extract(tmp_path / "photos", cache=tmp_path / "c", **options)
    pipeline.fit_head(table, clf="logreg", cache=tmp_path / "c", folds=2)
    store = Cache.at(tmp_path / "c")
    done = run(None, TuneRecipe(**FAST), store)
    save_file({k: v.contiguous() * 1.5 for k, v in tensors.items()}, file)
    with pytest.raises(PipelineError, match="now holds other weights"):
        run(None, TuneRecipe(**FAST, seed=1), store)
    with pytest.raises(PipelineError, match="Put the file back"):
        Model.open(done.folder, state_dir=store.weights)
    file.unlink()
    with pytest.raises(PipelineError, match="does not exist"):
        run(None, TuneRecipe(**FAST, seed=1), store)


def test_from_scratch_trains_every_stage_and_norm_from_random_weights(work):
    done = tune(work, from_scratch=True)
    info = done.info
    assert info["places"] == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert info["handover"] is None and info["standalone"] and info["boundary"] == "pixels"
    assert info["settings"]["lr"] == 1e-3 and info["settings"]["head_lr_factor"] == 1


def test_a_random_last_layer_can_be_compared(work):
    head, random = tune(work).info, tune(work, start="random").info
    assert random["handover"] is None and random["id"] != head["id"]
    assert random["history"][0]["loss"] > head["history"][0]["loss"]


def test_heads_are_found_by_kind_id_folder_and_object_and_others_are_named(work):
    cache = work / "cache"
    table = Cache.at(cache).open_table()
    knn = pipeline.fit_head(table, clf="knn", cache=cache)
    ridge = pipeline.fit_head(table, clf="ridge", cache=cache)
    for asked in (ridge, ridge.id, ridge.id[:6], "ridge", ridge.folder):
        assert tune(work, asked, epochs=1).info["head"] == ridge.id
    with pytest.raises(PipelineError, match=r"kind knn, which is not linear"):
        tune(work, knn.id)
    with pytest.raises(PipelineError, match=r"no head 'logre'.*Did you mean logreg"):
        tune(work, "logre")


def test_a_head_not_fitted_by_log_loss_gets_a_temperature_and_then_hands_over(work):
    pipeline.fit_head(Cache.at(work / "cache").open_table(), clf="svm", cache=work / "cache")
    info = tune(work, "svm").info
    assert info["head_clf"] == "svm" and info["handover"]["logits"] < 0.005


def test_without_a_head_it_says_how_to_fit_one(tmp_path):
    paint(tmp_path / "photos", each=3)
    pipeline.extract(tmp_path / "photos", cache=tmp_path / "c", **OPTIONS)
    with pytest.raises(PipelineError, match="fit-head --clf logreg"):
        run(None, TuneRecipe(), Cache.at(tmp_path / "c"))


def test_a_head_of_a_table_that_is_gone_or_another_is_told(work):
    [path] = (work / "cache" / "tables").glob("*.h5")
    head = pipeline.fit_head(cache=work / "cache")
    path.rename(work / "elsewhere.h5")
    head.info["table"] = str(path)
    with pytest.raises(PipelineError, match="is not in the cache"):
        tune(work, head)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"unfreeze": "layer9"}, "stem, layer1, layer2, layer3, layer4"),
        ({"lr": -1.0}, "--lr -1 is not above 0"),
        ({"optimizer": "adam"}, "Did you mean adamw"),
        ({"epochs": 0}, "--epochs 0 is below 1"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"augment": "none"}, "drop one"),
        ({"select_on": "val"}, "needs train, val and test"),
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs a GPU"),
    ],
)
def test_options_that_cannot_be_right_are_refused(work, options, text):
    with pytest.raises(UsageError, match=text):
        tune(work, **options)


def test_val_selects_where_test_can_be_reported(tmp_path):
    paint(tmp_path / "photos", splits=("train", "val", "test"), each=6)
    table = pipeline.extract(tmp_path / "photos", cache=tmp_path / "c", **OPTIONS)
    pipeline.fit_head(table, clf="logreg", cache=tmp_path / "c", folds=2)
    store = Cache.at(tmp_path / "c")
    info = run(None, TuneRecipe(**FAST), store).info
    assert info["selected_on"] == "val" and info["train_images"] == 12
    assert info["metrics"]["val"]["selected_on"] and not info["metrics"]["test"]["selected_on"]
    part = run(None, TuneRecipe(**FAST, select_on="train-part"), store).info
    assert part["selected_on"] == "train-part" and set(part["metrics"]) == {
        "train-part", "val", "test",
    }  # fmt: skip


def test_nothing_of_the_reported_split_is_used(work):
    """Other features of val change no weight."""
    want = tune(work).info
    [path] = (work / "cache" / "tables").glob("*.h5")
    table = Cache.at(work / "cache").open_table()
    features = np.array(table.features)
    features[table.rows("val")] += 1e3
    from dataclasses import replace

    shutil.rmtree(work / "cache" / "models")
    replace(table, features=features).write(path)
    got = tune(work).info
    assert got["history"][-1]["loss"] == want["history"][-1]["loss"]
    assert got["moved"] == want["moved"]


def test_the_collector_spares_a_models_activations_until_they_are_given_up(work):
    done = tune(work)
    store = Cache.at(work / "cache")
    names = {store.rows(done.info["activations"]).folder / n for n in done.info["shards"]}
    assert names and not names & set(upkeep.garbage(store))
    given_up = upkeep.garbage(store, activations=True)
    assert names <= set(given_up)
    upkeep.remove(store, list(given_up))
    verdict = upkeep.verify(store)
    assert not verdict.problems and len(verdict.notes) == 1
    assert tune(work, seed=3).info["activations_computed"] == 67


def test_a_damaged_activation_is_computed_again_alone(work):
    done = tune(work)
    store = Cache.at(work / "cache").rows(done.info["activations"])
    path = store.folder / done.info["shards"][0]
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    again = tune(work, seed=2)
    assert 0 < again.info["activations_computed"] <= 67


def test_a_model_that_is_damaged_is_refused_and_runs_nothing(work):
    done = tune(work)
    weights = work / "cache" / "weights"
    path = done.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PipelineError, match="is damaged"):
        Model.open(done.folder, state_dir=weights)
    (done.folder / "model.json").write_text("{}")
    with pytest.raises(PipelineError, match="schema"):
        Model.open(done.folder, state_dir=weights)
    assert not tune(work).reused  # and made again


def test_users_files_are_never_changed(work):
    def state():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (work / "photos").rglob("*.png")}

    before = state()
    tune(work)
    assert state() == before
