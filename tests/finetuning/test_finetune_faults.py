"""What can go wrong in stage three, and what stays then."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from photos import FAST, OPTIONS, Heard, paint, tune
from PIL import Image

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning import bench, boundary, training
from pipeline.finetuning import task as task_module
from pipeline.finetuning.finetune import finetune_head
from pipeline.finetuning.model import Model
from pipeline.finetuning.options import FinetuneOptions
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.results import MODEL


def test_an_interrupted_run_keeps_the_best_and_resumes_bit_identically(work, monkeypatch):
    whole = tune(work, epochs=3)
    weights = (whole.folder / "model.safetensors").read_bytes()
    shutil.rmtree(whole.folder)
    real, calls = training.Training.epoch, []

    def epoch(self):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(training.Training, "epoch", epoch)
    heard = Heard()
    with pytest.raises(KeyboardInterrupt, match="same command with --resume goes on"):
        tune(work, epochs=3, heard=heard)
    assert any("Kept epoch" in s for s in heard.said)
    kept = MODEL.read(whole.folder)
    assert kept.finished is False and kept.epochs == 2
    assert list((work / "cache" / "training").iterdir())
    monkeypatch.setattr(training.Training, "epoch", real)
    heard = Heard()
    done = tune(work, epochs=3, resume=True, heard=heard)
    assert "Going on after epoch 2." in heard.said
    assert done.folder == whole.folder and done.info.finished
    for name in ("loss", "train_loss", "accuracy"):
        assert [e[name] for e in done.info.history] == [e[name] for e in whole.info.history]
    assert done.info.metrics == whole.info.metrics
    assert done.info.handover == whole.info.handover is not None
    assert (done.folder / "model.safetensors").read_bytes() == weights
    assert not list((work / "cache" / "training").iterdir())


def test_before_the_first_step_network_and_head_are_measured_alike(work, monkeypatch):
    def unsure(task, rows):
        found = task_module.refit(task, rows)
        assert found.linear is not None
        return replace(found, linear=replace(found.linear, temperature=50.0))

    monkeypatch.setattr(bench, "refit", unsure)
    heard = Heard()
    tune(work, epochs=1, heard=heard)
    [line] = [line for line in heard.said if line.startswith("epoch 0")]
    network, head = (float(value) for value in re.findall(r"(?:selection|head) ([\d.]+)", line))
    assert network == pytest.approx(head, abs=2e-3)


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
    assert tune(work, data=str(work / "moved")).info.activations_computed


def test_a_full_disk_means_fewer_views_then_live(work, monkeypatch):
    row = 256 * 4 * 4 * 2

    def disk(free):
        usage = shutil.disk_usage(work)
        monkeypatch.setattr(
            boundary.shutil, "disk_usage", lambda path: usage._replace(free=free + boundary.SPARE)
        )

    disk((19 * 2 + 5 + 24) * row)
    heard = Heard()
    done = tune(work, heard=heard)
    assert done.info.settings["views"] == [0, 1]
    assert any("room for 1 of 2 views" in s for s in heard.said)
    shutil.rmtree(work / "cache" / "rows")
    disk(10)
    heard = Heard()
    done = tune(work, heard=heard, seed=1)
    assert done.info.live and any("--live" in s for s in heard.said)


def test_activations_that_float16_cannot_hold_are_kept_in_float32(work, monkeypatch):
    from pipeline.extraction import engines

    real = engines.make_engine

    def loud(*args):
        engine = real(*args)
        inner = engine.run
        engine.run = lambda batches: (rows * 1e6 for rows in inner(batches))
        return engine

    monkeypatch.setattr(engines, "make_engine", loud)
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
    done = finetune_head(None, FinetuneOptions(**FAST), store)
    save_file({k: v.contiguous() * 1.5 for k, v in tensors.items()}, file)
    with pytest.raises(PipelineError, match="now holds other weights"):
        finetune_head(None, FinetuneOptions(**FAST, seed=1), store)
    with pytest.raises(PipelineError, match=r"other weights .* than made the frozen part of the"):
        Model.open(done.folder, cache=store)
    file.unlink()
    with pytest.raises(PipelineError, match="does not exist"):
        finetune_head(None, FinetuneOptions(**FAST, seed=1), store)


def test_without_a_head_it_says_how_to_fit_one(tmp_path):
    paint(tmp_path / "photos", each=3)
    pipeline.extract(tmp_path / "photos", cache=tmp_path / "c", **OPTIONS)
    with pytest.raises(PipelineError, match="fit-head --clf logreg"):
        finetune_head(None, FinetuneOptions(), Cache.at(tmp_path / "c"))


def test_a_head_of_a_table_that_is_gone_or_another_is_told(work):
    [path] = (work / "cache" / "tables").glob("*.h5")
    head = pipeline.fit_head(cache=work / "cache")
    path.rename(work / "elsewhere.h5")
    head.info = replace(head.info, table=str(path))
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


def test_the_collector_spares_a_models_activations_until_they_are_given_up(work):
    done = tune(work)
    store = Cache.at(work / "cache")
    names = {store.rows(done.info.activations).path(n) for n in done.info.shards}
    assert names and not names & set(upkeep.garbage(store))
    given_up = upkeep.garbage(store, activations=True)
    assert names <= set(given_up)
    upkeep.collect(store, given_up, activations=True)
    verdict = upkeep.verify(store)
    assert not verdict.problems and len(verdict.notes) == 1
    assert tune(work, seed=3).info.activations_computed == 86


def test_a_damaged_activation_is_computed_again_alone(work):
    done = tune(work)
    store = Cache.at(work / "cache").rows(done.info.activations)
    path = store.path(done.info.shards[0])
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    again = tune(work, seed=2)
    assert 0 < again.info.activations_computed <= 86


def test_a_model_that_is_damaged_is_refused_and_runs_nothing(work):
    done = tune(work)
    path = done.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PipelineError, match="is damaged"):
        Model.open(done.folder, cache=work / "cache")
    assert not tune(work).reused  # but made again
    (done.folder / "model.json").write_text("{}")
    with pytest.raises(PipelineError, match="schema"):
        Model.open(done.folder, cache=work / "cache")
    assert not tune(work).reused  # and made again


def test_users_files_are_never_changed(work):
    def state():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (work / "photos").rglob("*.png")}

    before = state()
    tune(work)
    assert state() == before


def test_a_run_whose_room_changed_does_not_go_on_as_if_it_had_not(work, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    real = training.Training.epoch
    monkeypatch.setattr(training.Training, "epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        tune(work)
    monkeypatch.setattr(training.Training, "epoch", real)
    shutil.rmtree(work / "cache" / "rows")
    usage = shutil.disk_usage(work)._replace(free=boundary.SPARE + 48 * 256 * 4 * 4 * 2)
    monkeypatch.setattr(boundary.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PipelineError, match=r"had views \[0, 1, 2\], not .* --resume"):
        tune(work, resume=True)


def test_without_room_and_without_augmentation_the_evaluation_view_is_trained_on(work, monkeypatch):
    usage = shutil.disk_usage(work)._replace(free=0)
    monkeypatch.setattr(boundary.shutil, "disk_usage", lambda path: usage)
    info = tune(work, augment="none", views=None).info
    assert info.live and info.settings["views"] == [0]


def test_a_class_without_training_images_starts_far_below_and_learns_finitely(tmp_path):
    paint(tmp_path / "photos", each=6)
    (tmp_path / "photos" / "val" / "green").mkdir()
    Image.new("RGB", (40, 40), "green").save(tmp_path / "photos" / "val" / "green" / "0.png")
    table = pipeline.extract(tmp_path / "photos", cache=tmp_path / "c", **OPTIONS)
    for clf in ("linear", "logreg"):
        pipeline.fit_head(table, clf=clf, cache=tmp_path / "c", folds=2)
        info = finetune_head(clf, FinetuneOptions(**FAST), Cache.at(tmp_path / "c")).info
        assert info.classes == ("blue", "green", "red")
        assert info.history[-1]["train_loss"] < 10 and info.handover["logits"] < 0.005


def test_memory_for_not_even_one_image_is_a_sentence(work, monkeypatch):
    import torch

    def never(self, x, labels):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(training.Training, "_gradients", never)
    with pytest.raises(PipelineError, match="One image does not fit the memory of cpu"):
        tune(work)


def test_activations_that_a_second_run_finds_are_kept_from_the_collector(work, monkeypatch):
    done = tune(work)
    shutil.rmtree(done.folder)
    store = Cache.at(work / "cache")
    unreferenced = upkeep.garbage(store)
    assert unreferenced
    real, seen = boundary._room, []

    def room(*args):
        seen.append(upkeep.collect(store, unreferenced))
        return real(*args)

    monkeypatch.setattr(boundary, "_room", room)
    again = tune(work)
    assert seen == [{}] and again.info.activations_computed == 0
    assert not list((store.root / "runs").iterdir())
