"""Stage three end to end, on small pictures and a ResNet-18 with random weights."""

import csv
import hashlib
import shutil

import numpy as np
import pytest
from photos import FAST, OPTIONS, Heard, paint, tune
from PIL import Image

import pipeline
from pipeline.errors import PipelineError
from pipeline.finetuning.finetune import finetune_head
from pipeline.finetuning.model import Model
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.result import beats
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.store.results import MODEL
from pipeline.store.score_records import Paired


def test_it_starts_from_the_head_and_keeps_all_that_it_found(work):
    done = tune(work)
    info, folder = done.info, done.folder
    assert {p.name for p in folder.iterdir()} == {
        "model.json", "model.safetensors", "history.csv", "curve.png",
        "predictions-train-part.csv", "predictions-val.csv",
    }  # fmt: skip
    assert info.selected_on == "train-part" and info.boundary == "layer3"
    assert info.handover["logits"] < 0.005 and info.handover["images"] == 5
    assert info.metrics["train-part"].selected_on is True
    assert info.metrics["val"].selected_on is False
    assert len(info.metrics["val"].model.interval) == 2
    assert info.head_metrics["val"].images == 24 and info.train_images == 19
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1", "2"] and rows[0]["train_loss"] == ""
    # step 0 is the head's own score
    start = info.metrics["train-part"].start.log_loss
    assert float(rows[0]["loss"]) == pytest.approx(start, rel=1e-2)
    assert MODEL.read(folder) == info
    with Image.open(folder / "curve.png") as picture:
        assert picture.size[0] > 600


@pytest.mark.parametrize("options", [{}, {"standalone": True}, {"unfreeze": "all"}])
def test_the_stored_predictions_are_those_of_the_model_on_the_files(work, options):
    done = tune(work, lr=1e-3, **options)
    model = Model.open(done.folder, cache=work / "cache")
    for split in ("val", "train-part"):
        with (done.folder / f"predictions-{split}.csv").open() as file:
            rows = list(csv.DictReader(file))
        files = [str(work / "photos" / row["path"]) for row in rows]
        stored = np.array([[float(row[f"p({c})"]) for c in model.classes_] for row in rows])
        assert np.abs(model.predict_proba(files, calibrated=False) - stored).max() < 5e-3
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


def test_paths_are_taken_wherever_a_path_is_meant_and_the_result_is_kept(work):
    head = pipeline.Head.open(next((work / "cache" / "heads").iterdir()))
    options = {**FAST, "epochs": 1, "unfreeze": "none", "data": work / "photos"}
    model = pipeline.finetune(head, cache=work / "cache", **options)
    assert MODEL.read(model.folder).recipe["data"] == str(work / "photos")
    again = pipeline.finetune(head.folder, cache=str(work / "cache"), **options)
    assert again.info == model.info


def test_an_image_that_crashes_the_decoder_is_left_alone_by_models_and_exports(work, monkeypatch):
    """A run that ended within an image leaves its note; see `pipeline.extraction.crashes`."""
    from pipeline.extraction import crashes
    from pipeline.inference.exporting.export import _pictures

    model = pipeline.finetune(
        "logreg", cache=work / "cache", data=work / "photos", **{**FAST, "unfreeze": "none"}
    )
    path = next((work / "photos" / "val" / "red").iterdir())
    cache = Cache.at(work / "cache")
    cache.decoding.mkdir(exist_ok=True)
    (cache.decoding / "1").write_bytes(b"?" + hashlib.sha256(path.read_bytes()).digest())
    monkeypatch.setattr(crashes, "crashes", lambda data: True)
    with pytest.raises(PipelineError, match=r"could not be decoded: .*crash"):
        model.predict([path])
    assert _pictures([str(path)], cache, Silent()) == []


def test_the_same_again_is_reused_and_the_images_are_not_needed(work):
    first = tune(work)
    shutil.rmtree(work / "photos")
    again = tune(work)
    assert again.reused and again.info == first.info


def test_learning_rate_schedule_and_seed_compute_no_activation_and_more_views_only_the_new(work):
    assert tune(work).info.activations_computed == 19 * 3 + 5 + 24
    (work / "photos").rename(work / "gone")  # nothing below may need the images
    for options in ({"lr": 3e-4}, {"schedule": "step"}, {"seed": 5}, {"optimizer": "sgd"}):
        done = tune(work, **options, data=None)
        assert not done.reused and done.info.activations_computed == 0
    (work / "gone").rename(work / "photos")
    assert tune(work, views=3).info.activations_computed == 19
    assert tune(work, views=1).info.activations_computed == 0
    assert tune(work, unfreeze="layer3").info.activations_computed == 19 * 3 + 5 + 24


def test_nothing_unfrozen_trains_the_head_on_the_tables_own_rows(work):
    done = tune(work, unfreeze="none", augment="none", views=None)
    assert done.info.activations_computed == 0 and done.info.boundary == "feature"
    table = Cache.at(work / "cache").open_table()
    assert done.info.activations == table.fingerprint


@pytest.mark.parametrize(
    ("name", "unfreeze"),
    [
        ("resnet18", "layer4"),
        ("densenet121", "layer4"),
        ("mobilenet_v2", "layer4"),
        ("mobilenet_v3_small", "layer4"),  # with a neck
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
        finetune_head(
            "linear", FinetuneOptions(unfreeze=unfreeze, live=live, lr=1e-5, **FAST), store
        ).info
        for live in (False, True)
    ]
    assert [info.live for info in found] == [False, True]
    for one, other in zip(*(info.history for info in found), strict=True):
        for value in ("train_loss", "loss"):
            if one[value] is not None:
                assert one[value] == pytest.approx(other[value], rel=0.01, abs=2e-3)


def test_from_scratch_trains_every_stage_and_norm_from_random_weights(work):
    done = tune(work, from_scratch=True)
    info = done.info
    assert info.places == ("stem", "layer1", "layer2", "layer3", "layer4")
    assert info.handover is None and info.standalone and info.boundary == "pixels"
    assert info.settings["lr"] == 1e-3 and info.settings["head_lr_factor"] == 1


def test_a_random_last_layer_can_be_compared(work):
    head, random = tune(work).info, tune(work, start="random").info
    assert random.handover is None and random.id != head.id
    assert random.history[0]["loss"] > head.history[0]["loss"]


def test_heads_are_found_by_kind_id_folder_and_object_and_others_are_named(work):
    cache = work / "cache"
    table = Cache.at(cache).open_table()
    knn = pipeline.fit_head(table, clf="knn", cache=cache)
    ridge = pipeline.fit_head(table, clf="ridge", cache=cache)
    for asked in (ridge, ridge.id, ridge.id[:6], "ridge", ridge.folder):
        assert tune(work, asked, epochs=1).info.head == ridge.id
    with pytest.raises(PipelineError, match=r"kind knn, which is not linear"):
        tune(work, knn.id)
    with pytest.raises(PipelineError, match=r"no head or model 'logre'.*Did you mean logreg"):
        tune(work, "logre")


def test_a_head_not_fitted_by_log_loss_gets_a_temperature_and_then_hands_over(work):
    pipeline.fit_head(Cache.at(work / "cache").open_table(), clf="svm", cache=work / "cache")
    info = tune(work, "svm").info
    assert info.head_clf == "svm" and info.handover["logits"] < 0.005


def test_val_selects_where_test_can_be_reported(tmp_path):
    paint(tmp_path / "photos", splits=("train", "val", "test"), each=6)
    table = pipeline.extract(tmp_path / "photos", cache=tmp_path / "c", **OPTIONS)
    pipeline.fit_head(table, clf="logreg", cache=tmp_path / "c", folds=2)
    store = Cache.at(tmp_path / "c")
    info = finetune_head(None, FinetuneOptions(**FAST), store).info
    assert info.selected_on == "val" and info.train_images == 12
    assert info.metrics["val"].selected_on and not info.metrics["test"].selected_on
    part = finetune_head(None, FinetuneOptions(**FAST, select_on="train-part"), store).info
    assert part.selected_on == "train-part" and set(part.metrics) == {
        "train-part", "val", "test",
    }  # fmt: skip


def test_nothing_of_the_reported_split_is_used(tmp_path):
    """Other images in val change no weight of the model."""
    found = []
    for name in ("one", "other"):
        root = paint(tmp_path / name)
        if name == "other":
            for path in (root / "val").rglob("*.png"):
                Image.open(path).rotate(180).save(path)
        table = pipeline.extract(root, cache=tmp_path / "c", name=name, **OPTIONS)
        head = pipeline.fit_head(table, clf="logreg", cache=tmp_path / "c")
        found.append(finetune_head(head, FinetuneOptions(**FAST), Cache.at(tmp_path / "c")))
    one, other = ((done.folder / "model.safetensors").read_bytes() for done in found)
    assert found[0].folder != found[1].folder and one == other


@pytest.mark.parametrize(
    ("loss", "head_alone", "model_alone", "p", "better"),
    [
        (0.3, 5, 6, 1.0, True),
        (0.3, 14, 2, 0.004, False),  # less often right, by more than chance explains
        (0.3, 6, 3, 0.5, True),
        (0.3, 2, 14, 0.004, True),
        (0.5, 2, 14, 0.004, False),
    ],
)
def test_a_model_beats_its_head_by_log_loss_unless_it_is_less_often_right(
    loss, head_alone, model_alone, p, better
):
    paired = Paired(head_alone, model_alone, p, log_loss_error=0.0, groups=None)
    assert beats(0.4, loss, paired) is better


def test_where_no_epoch_is_better_the_model_is_the_head_and_does_not_beat_it(work):
    info = tune(work, lr=1.0, epochs=1, label_smoothing=0.0).info
    assert info.best_epoch == 0 and info.beats_head is False
    assert set(info.moved.values()) == {0.0}


def test_classes_of_few_training_images_are_told_before_training(tmp_path):
    paint(tmp_path / "photos", each=6)
    for extra in range(4):
        Image.new("RGB", (40, 40), (0, 40 * extra, 0)).save(
            tmp_path / "photos" / "train" / "blue" / f"x{extra}.png"
        )
    table = pipeline.extract(tmp_path / "photos", cache=tmp_path / "c", **OPTIONS)
    pipeline.fit_head(table, clf="linear", cache=tmp_path / "c", folds=2)
    heard = Heard()
    finetune_head(None, FinetuneOptions(**{**FAST, "epochs": 1}), Cache.at(tmp_path / "c"), heard)
    (line,) = [said for said in heard.said if "fewer than 5" in said]
    assert line.startswith("1 class has fewer than 5 images to learn from (red ")
    assert heard.said.index(line) < len(heard.said) - 1
