"""Several recipes on one cache: what is tried, what is kept, and that it can be gone on with."""

import csv

import numpy as np
import pytest
from photos import Heard, tune

from pipeline.finetuning.choosing import budget, candidates
from pipeline.finetuning.choosing.recipes import RECIPES
from pipeline.finetuning.training import Diverged, Training
from pipeline.store.results import MODEL

SEARCH = {"epochs": None, "budget": 60.0}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(budget, "EPOCHS", 2)
    monkeypatch.setattr(budget, "STEPS", 2)
    monkeypatch.setattr(budget, "SHAPES", ((3, 2), (1, 1)))


def test_recipes_are_tried_and_folds_of_train_decide(work):
    heard = Heard()
    done = tune(work, heard=heard, **SEARCH)
    info = done.info
    assert info.decision["on"] == info.selected_on == "folds"
    assert info.decision["images"] == info.metrics["folds"].model.images == 24
    assert info.metrics["folds"].selected_on and not info.metrics["val"].selected_on
    assert info.beats_head == (info.best_epoch > 0) == (info.decision["share"] > 0)
    tried = list(dict.fromkeys(epoch["candidate"] for epoch in info.history))
    assert tried[:3] == ["steady, 2 epochs", "bold, 2 epochs", "fresh, 2 epochs"]
    assert len([name for name in tried if name.endswith("4 epochs")]) == 2
    assert len([name for name in tried if "fold" in name]) == 3
    with (done.folder / "history.csv").open() as file:
        assert {row["candidate"] for row in csv.DictReader(file)} == set(tried)
    assert any("budget" in line for line in heard.said)
    assert not list((work / "cache" / "training").iterdir())


def test_a_second_call_with_another_recipe_computes_no_activation(work):
    tune(work, **SEARCH)
    (work / "photos").rename(work / "gone")
    for options in ({"recipe": "gentle", "epochs": None}, {"seed": 3, **SEARCH}):
        assert tune(work, data=None, **options).info.activations_computed == 0


def test_where_many_choose_half_of_them_decide(work, monkeypatch):
    monkeypatch.setattr(candidates, "MANY", 4)
    info = tune(work, **SEARCH).info
    assert info.decision["on"] == info.selected_on == "train-part-half"
    assert 1 <= info.decision["images"] <= 4
    assert not [e for e in info.history if "fold" in e["candidate"]]


def _plain(info):
    """Return a run's history without what time it took."""
    return str([{**epoch, "seconds": 0.0} for epoch in info.history])


@pytest.mark.parametrize("stop", [1, 5, 9, 14, 20])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(work, tmp_path, monkeypatch, stop):
    import shutil

    shutil.copytree(work, tmp_path / "whole")
    whole = tune(tmp_path / "whole", data=str(work / "photos"), **SEARCH).info
    epoch, count = Training.epoch, 0

    def stopped(self):
        nonlocal count
        count += 1
        if count > stop:
            raise RuntimeError("killed")
        return epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "epoch", stopped)
        with pytest.raises(RuntimeError, match="killed"):
            tune(work, **SEARCH)
    count = -1000
    monkeypatch.setattr(Training, "epoch", stopped)
    info = tune(work, resume=True, **SEARCH).info
    assert info.files["model.safetensors"] == whole.files["model.safetensors"]
    assert _plain(info) == _plain(whole)
    assert info.decision == whole.decision and info.metrics == whole.metrics


def test_ctrl_c_keeps_the_best_whole_candidate(work, monkeypatch):
    epoch, count = Training.epoch, 0

    def interrupted(self):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return epoch(self)

    monkeypatch.setattr(Training, "epoch", interrupted)
    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        tune(work, heard=heard, **SEARCH)
    (folder,) = (work / "cache" / "models").iterdir()
    info = MODEL.read(folder)
    assert not info.finished and info.kept_recipe == "steady"
    assert any("best whole candidate" in line for line in heard.said)


def test_a_recipe_whose_loss_is_not_finite_ends_at_once_and_is_told(work, monkeypatch):
    epoch = Training.epoch

    def diverges(self):
        if self.settings.lr == RECIPES["bold"].lr:
            raise Diverged
        return epoch(self)

    monkeypatch.setattr(Training, "epoch", diverges)
    info = tune(work, **SEARCH).info
    assert any("bold was given up" in note for note in info.notes)
    assert info.kept_recipe == "steady"


def test_with_no_time_the_least_is_tried_and_told(work):
    heard = Heard()
    info = tune(work, heard=heard, **{**SEARCH, "budget": 1e-4}).info
    assert {epoch["candidate"].split(",")[0] for epoch in info.history} <= {"bold"}
    assert any("the least there is" in line for line in heard.said)


def test_the_heads_class_weights_reach_the_loss_and_the_selection(work, monkeypatch):
    import pipeline

    pipeline.fit_head(clf="linear", class_weight="balanced", cache=work / "cache")
    seen = []
    begin = Training.begin
    monkeypatch.setattr(Training, "begin", lambda self: seen.append(self) or begin(self))
    tune(work, "linear", epochs=1)
    assert np.allclose(seen[0].class_weights, seen[0].weights.numpy())


def test_a_head_that_interpolates_does_not_diverge(work):
    """Its training loss is nearly zero; the first steps may not throw it away."""
    import pipeline

    pipeline.fit_head(clf="logreg", grid="1e4", cache=work / "cache")
    info = tune(work, epochs=3, recipe="gentle").info
    start = info.history[0]["loss"]
    assert all(epoch["loss"] < start + 0.2 for epoch in info.history)
