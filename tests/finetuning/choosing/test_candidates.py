"""Several recipes on one cache: what is tried, what is kept, and that it can be gone on with."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from photos import Heard, tune

import pipeline
from pipeline.errors import DamagedError
from pipeline.finetuning import bench
from pipeline.finetuning.choosing import budget
from pipeline.finetuning.choosing.journal import Journal
from pipeline.finetuning.choosing.recipes import RECIPES
from pipeline.finetuning.choosing.runs import Runs
from pipeline.finetuning.task import refit
from pipeline.finetuning.training import Diverged, Training
from pipeline.store.results import MODEL

SEARCH = {"epochs": None, "budget": 60.0}
COST = budget.Cost(800, 200, 1000, step=0.01, score=0.003, batch_size=32)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(budget, "EPOCHS", 2)
    monkeypatch.setattr(budget, "STEPS", 2)
    monkeypatch.setattr(budget, "SHAPES", ((3, 2, "folds"), (1, 1, "select")))


def test_recipes_are_tried_and_folds_of_train_decide(work):
    heard = Heard()
    done = tune(work, heard=heard, **SEARCH)
    info = done.info
    assert info.decision["on"] == info.selected_on == "folds"
    assert info.decision["images"] == info.metrics["folds"].model.images == 24
    assert info.metrics["folds"].selected_on and not info.metrics["val"].selected_on
    assert info.beats_head == (info.best_epoch > 0) == (info.decision["share"] > 0)
    tried = list(dict.fromkeys(epoch["candidate"] for epoch in info.history))
    assert tried[:3] == ["steady, 2 epochs", "bold, 2 epochs", "mixed, 2 epochs"]
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
    monkeypatch.setattr(budget, "MANY", 4)
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
    with pytest.raises(KeyboardInterrupt, match="same command with --resume goes on"):
        tune(work, heard=heard, **SEARCH)
    (folder,) = (work / "cache" / "models").iterdir()
    info = MODEL.read(folder)
    assert not info.finished and info.kept_recipe == "steady"
    kept = "the best whole candidate, steady"
    if not info.beats_head:
        kept = f"the head, which {kept}, did not beat"
    assert f"Kept in {folder}: {kept}." in heard.said


def test_a_search_that_starts_over_says_so_and_keeps_nothing_of_the_unfinished_one(
    work, monkeypatch
):
    heard, epoch, states = Heard(), Training.epoch, work / "cache" / "training"

    def interrupted(self):
        if len(list(states.iterdir())) > 1:  # a candidate's beside the plan
            raise KeyboardInterrupt
        return epoch(self)

    monkeypatch.setattr(Training, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(work, heard=heard, resume=True, **SEARCH)
    assert any("no unfinished run" in line for line in heard.said)
    [plan] = states.glob("*.json")
    plan.with_name(f"{plan.stem}-bold-fold-1-of-3.safetensors").write_bytes(b"of another plan")
    with pytest.raises(KeyboardInterrupt):
        tune(work, heard=heard, **SEARCH)
    assert any("--resume goes on with one" in line for line in heard.said)
    assert not list(states.glob("*fold*"))
    monkeypatch.setattr(Training, "epoch", epoch)
    assert tune(work, resume=True, **SEARCH).info.finished


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


@pytest.mark.parametrize("augment", ["auto", "shift"])
def test_a_schedule_that_is_cut_short_draws_views_only_where_they_are_named(work, augment):
    done = tune(work, **{**SEARCH, "budget": 1e-4, "augment": augment})
    drawn = done.info.settings["views"]
    assert done.info.epochs == 1
    assert (drawn == [0]) == (augment == "auto")
    assert (done.info.policy == "none") == (augment == "auto")
    assert any("evaluation views alone" in note for note in done.notes) == (augment == "auto")


def test_the_heads_class_weights_reach_the_loss_and_the_selection(work, monkeypatch):
    pipeline.fit_head(clf="linear", class_weight="balanced", cache=work / "cache")
    seen = []
    begin = Training.begin
    monkeypatch.setattr(Training, "begin", lambda self: seen.append(self) or begin(self))
    tune(work, "linear", epochs=1)
    assert np.allclose(seen[0].class_weights, seen[0].weights.numpy())


def test_a_head_that_interpolates_does_not_diverge(work):
    """Its training loss is nearly zero; the first steps may not throw it away."""
    pipeline.fit_head(clf="logreg", grid="1e4", cache=work / "cache")
    info = tune(work, epochs=3, recipe="gentle").info
    start = info.history[0]["loss"]
    assert all(epoch["loss"] < start + 0.2 for epoch in info.history)


def test_where_every_recipe_diverges_the_head_is_scored_on_all_that_could_choose(work, monkeypatch):
    def diverges(self):
        raise Diverged

    def unsure(task, rows):  # its probabilities would gain by another temperature
        found = refit(task, rows)
        assert found.linear is not None
        return replace(found, linear=replace(found.linear, temperature=50.0))

    monkeypatch.setattr(budget, "MANY", 4)
    monkeypatch.setattr(Training, "epoch", diverges)
    monkeypatch.setattr(bench, "refit", unsure)
    info = tune(work, **SEARCH).info
    assert not info.beats_head and info.selected_on == "train-part"
    assert info.metrics["train-part"].model.images == 24 - info.train_images > 2
    assert any("head stays best" in note for note in info.notes)
    assert all(scores.model == scores.start for scores in info.metrics.values())
    assert info.decided == f"No model was left to compare: the head {info.head} stays best."


def _budget_ends_after(monkeypatch, told):
    """Let the budget be spent once a run of this name has been trained."""
    train, spent = Runs.train, []

    def training(self, recipe, epochs, name, **rows):
        found = train(self, recipe, epochs, name, **rows)
        spent.extend([name] if told in name else [])
        return found

    monkeypatch.setattr(Runs, "train", training)
    monkeypatch.setattr(Journal, "left", property(lambda self: -1.0 if spent else 1e6))


def test_where_the_budget_ends_within_the_folds_those_decide_that_were_held_out(work, monkeypatch):
    _budget_ends_after(monkeypatch, "fold 2")
    info = tune(work, **SEARCH).info
    tried = {epoch["candidate"] for epoch in info.history}
    assert any("fold 2" in name for name in tried) and not any("fold 3" in name for name in tried)
    assert info.decision["on"] == "folds" and info.decision["images"] == 16  # of 24
    assert any("2 of 3 folds" in note for note in info.notes)
    if info.beats_head:  # the winner itself, which learned from the part that did not choose
        assert info.train_images < 24 and not any("all of train" in name for name in tried)
        assert any("learned from the part of train" in note for note in info.notes)


def test_where_the_budget_ends_with_the_rungs_those_decide_that_chose(work, monkeypatch):
    _budget_ends_after(monkeypatch, "4 epochs")
    heard = Heard()
    info = tune(work, heard=heard, **SEARCH).info
    assert any("; 0 s of the budget left, for what would take" in line for line in heard.said)
    assert info.decision["on"] == info.selected_on == "train-part"
    assert any("no time for folds" in note for note in info.notes)


def test_a_search_that_is_gone_on_with_has_the_time_that_was_left(tmp_path):
    journal = Journal(tmp_path / "j.json", 100.0, budget.plan_for(COST, 100.0), before=40.0)
    journal.write()
    again = Journal.open(journal.path, 500.0, resume=True, progress=Heard())
    assert (again.plan, again.budget) == (journal.plan, 100.0)
    assert 40.0 <= again.before <= again.spent < 60.0 and again.left < 60.0
    fresh = Journal.open(journal.path, 500.0, resume=False, progress=Heard())
    assert (fresh.plan, fresh.budget, fresh.before) == (None, 500.0, 0.0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": {}}', '{"plan": 3, "budget": 1}'])
def test_a_damaged_plan_is_told_and_passed_over_or_refused(tmp_path, text):
    path = tmp_path / "j.json"
    path.write_text(text)
    heard = Heard()
    assert Journal.open(path, 7.0, resume=None, progress=heard).plan is None
    assert "Starting over" in heard.said[0] and "j.json" in heard.said[0]
    with pytest.raises(DamagedError, match="without --resume"):
        Journal.open(path, 7.0, resume=True, progress=heard)


def test_auto_tries_the_last_stage_half_and_all_and_says_what_learns(work):
    heard = Heard()
    info = tune(work, heard=heard, unfreeze="auto", **SEARCH).info
    tried = list(dict.fromkeys(epoch["candidate"] for epoch in info.history))
    assert tried[:3] == [f"{depth}, bold, 2 epochs" for depth in ("layer4", "layer3,layer4", "all")]
    assert info.unfreeze in ("layer4", "layer3,layer4", "all")
    assert any(f"What learns is {info.unfreeze}" in line for line in heard.said)
    assert info.recipe["unfreeze"] == "auto"
    assert not list((work / "cache" / "training").iterdir())
    model = pipeline.Model.open(info.folder, cache=work / "cache")
    assert model.predict_proba([str(next((work / "photos").rglob("*.png")))]).shape == (1, 2)


def test_auto_tries_no_depth_that_takes_more_than_a_quarter_of_the_budget(work, monkeypatch):
    heard = Heard()
    monkeypatch.setattr(Training, "time_a_step", lambda self: (100.0, 10.0))
    info = tune(work, heard=heard, unfreeze="auto", **SEARCH).info
    assert info.unfreeze == "layer4"
    assert any("layer3,layer4 is not tried" in line for line in heard.said)


def test_where_one_recipe_was_tried_the_images_that_would_choose_decide(work, monkeypatch):
    monkeypatch.setattr(budget, "SHAPES", ((1, 2, "select"),))
    info = tune(work, **SEARCH).info
    assert info.decision["on"] == info.selected_on == "train-part"
    tried = {epoch["candidate"] for epoch in info.history}
    assert tried <= {"bold, 4 epochs", "bold, all of train"}
    if info.beats_head:  # then it learned from those that decided, too
        assert "bold, all of train" in tried and info.train_images == 24


def test_where_every_depth_diverges_the_last_stage_is_taken(work, monkeypatch):
    def diverges(self):
        raise Diverged

    monkeypatch.setattr(Training, "epoch", diverges)
    info = tune(work, unfreeze="auto", **SEARCH).info
    assert info.unfreeze == "layer4" and not info.beats_head
