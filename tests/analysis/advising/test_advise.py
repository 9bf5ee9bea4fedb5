"""`advise` on tables of clouds, and with random weights on small photos."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from photos import Heard, tune
from PIL import Image
from tables import digest, make_table

import pipeline
from pipeline.analysis.advising import advise as module
from pipeline.analysis.advising import learning_curve, trial
from pipeline.analysis.advising.advise import advise_on_table
from pipeline.analysis.advising.learning_curve import sizes
from pipeline.analysis.options import AdviseOptions
from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning.choosing import budget
from pipeline.store import advice as kept
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

pytestmark = pytest.mark.usefixtures("one_thread")


def ask(table, cache, **options):
    return advise_on_table(table, AdviseOptions(**{"trial": 0, **options}), cache)


@pytest.fixture(autouse=True, scope="module")
def few_penalties():
    """Thirteen penalties take four times as long and change nothing that is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curve, "GRID", (1e-3, 1e-2, 1e-1))
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("advice")
    table = make_table(root / "t.h5", train=120, val=60, test=60, dim=16, apart=0.9)
    return ask(table, Cache.at(root / "cache"))


def test_every_figure_is_there_and_plain_json(found):
    values = found.to_json()
    assert json.loads(json.dumps(values)) == values
    assert values["size"] == {
        "images": 120, "classes": 3, "smallest": 40, "median": 40.0, "largest": 40,
        "looked_at": 120,
    }  # fmt: skip
    assert values["linear"]["accuracy"] > 0.7 and values["linear"]["p"] == 0.001
    assert values["neighbours"]["random_baseline"] == pytest.approx(1 / 3, abs=0.02)
    assert [point["images"] for point in values["curve"]["points"]] == [15, 30, 60, 120]
    counts = [len(point["accuracies"]) for point in values["curve"]["points"]]
    assert counts == [5, 5, 5, 1]
    assert values["curve"]["measured_on"] == "val and test"
    assert values["curve"]["held_images"] == 120
    assert [one["images"] for one in values["curve"]["forecasts"]] == [240]
    assert values["curve"]["check"]["images"] == 120
    assert values["recommendation"]["action"] == "head"
    assert values["gains"] == [] and values["reference"] is None
    assert any("random weights itself" in note for note in values["notes"])


def test_what_was_found_is_kept_with_its_time_and_its_recipe(found, tmp_path):
    cache = Cache.at(tmp_path)
    advice = ask(found.table, cache, seed=3, sample=0, data=tmp_path)
    values = kept.read(cache, found.table.table_id)
    assert {name: values[name] for name in advice.to_json()} == advice.to_json()
    asked = {**vars(AdviseOptions(seed=3, sample=0, trial=0)), "data": str(tmp_path)}
    assert values["recipe"] == {name: asked[name] for name in asked if name != "output"}
    assert values["created"].endswith("Z")
    ask(found.table, cache)
    assert kept.read(cache, found.table.table_id)["recipe"]["seed"] == 0


def test_advice_that_cannot_be_kept_is_told_all_the_same(found, tmp_path):
    cache = Cache.at(tmp_path)
    cache.advice.write_text("in the way")
    advice = ask(found.table, cache)
    assert advice.recommendation == found.recommendation
    assert advice.notes[-1].startswith("Not kept for the report: Cannot create the folder")


def test_the_same_again_says_the_same(found, tmp_path):
    again = ask(found.table, Cache.at(tmp_path / "other"))
    assert {**again.to_json(), "seconds": 0} == {**found.to_json(), "seconds": 0}


def test_the_last_point_is_the_head_of_all_training_images(found):
    from pipeline.heads.cross_validation.search import Plan, search
    from pipeline.heads.task import group_ids_of, make_folds

    table = found.table
    train = table.rows("train")
    held = np.concatenate([table.rows("val"), table.rows("test")])
    folds = make_folds(train, table.labels[train], group_ids_of(table)[train], count=5, seed=0)
    head = search(
        "linear", table.features, table.labels, classes=3, train=train, folds=folds,
        plan=Plan(select="log-loss", grid=learning_curve.GRID),
    )  # fmt: skip
    guesses = head.probabilities(np.asarray(table.features[held]), 3).argmax(1)
    assert found.curve.points[-1].error == (guesses != table.labels[held]).mean()
    right = (head.held[0].argmax(1) == head.held[1]).sum()
    assert found.linear.right == right


def test_val_and_test_choose_nothing_but_are_measured_on(found, tmp_path):
    table = found.table
    features = np.array(table.features)
    features[120:] = np.random.default_rng(0).normal(0, 100, features[120:].shape)
    other = ask(replace(table, features=features), Cache.at(tmp_path))
    for name in ("size", "neighbours", "linear", "similarity", "recommendation"):
        assert getattr(other, name) == getattr(found, name), name
    assert other.curve.points[-1].error > found.curve.points[-1].error


@pytest.mark.parametrize("seed", range(3))
def test_permuted_labels_have_nothing_to_do_with_the_features(found, cache, seed):
    labels = np.random.default_rng(seed).permutation(found.table.labels)
    advice = ask(replace(found.table, labels=labels), cache)
    assert advice.recommendation.similarity == "nothing"
    assert advice.recommendation.action == "labels"
    assert "carry nothing" in advice.recommendation.title


def test_without_val_and_test_folds_of_train_give_the_curve(cache):
    advice = ask(make_table(train=120, dim=16, apart=0.9), cache)
    assert advice.curve.measured_on == "train, by folds" and advice.curve.held == 120
    assert [len(point.errors) for point in advice.curve.points] == [5, 5, 5, 5]
    assert round(advice.curve.points[-1].images) == 96 and advice.curve.forecasts[0].images == 240


def test_images_of_val_that_stand_in_train_are_left_out_of_the_curve(cache):
    names = [digest(str(n)) for n in range(150)]
    names[120:130] = names[:10]
    advice = ask(make_table(train=120, val=30, digests=tuple(names)), cache)
    assert advice.curve.held == 20
    assert any("10 images of val or test stand in train too" in note for note in advice.notes)


def test_copies_in_train_are_told_and_do_not_vote_for_themselves(cache):
    x = np.random.default_rng(0).normal(size=(120, 24))
    x[60:] = x[:60]
    labels = np.tile(np.random.default_rng(1).permutation(np.arange(60) % 2), 2)
    names = tuple(digest(str(n % 60)) for n in range(120))
    table = make_table(features=x, labels=labels, classes=2, splits=("train",) * 120, digests=names)
    advice = ask(table, cache)
    assert advice.neighbours.accuracy < 0.7 and advice.linear.accuracy < 0.7  # not 1
    assert any("120 training images have a duplicate" in note for note in advice.notes)


FEW = [
    ({"train": 2, "classes": 2}, "No forecast"),
    ({"train": 2, "val": 4, "classes": 2}, "No forecast: 2 training images give 1 point"),
    ({"train": 12, "val": 6}, "No forecast: 12 training images give 1 point"),
]


@pytest.mark.parametrize(("shape", "note"), FEW)
def test_too_few_images_are_told_and_still_get_advice(cache, shape, note):
    advice = ask(make_table(**shape), cache)
    assert kept.read(cache, advice.table.table_id)["size"] == vars(advice.size)
    assert advice.recommendation.size == "small"
    assert any("No forecast" in text or "No learning curve" in text for text in advice.notes)
    json.dumps(advice.to_json())


def test_a_large_table_is_measured_on_a_part_and_forecast_for_all(monkeypatch, cache):
    monkeypatch.setattr(module, "MOST", 60)
    advice = ask(make_table(train=240, val=60, dim=16), cache)
    assert advice.size.images == 240 and advice.size.looked_at == 60
    assert [one.images for one in advice.curve.forecasts] == [240, 480]
    assert any("60 of the 240 training images" in note for note in advice.notes)


def test_sizes_halve_down_to_four_images_a_class():
    assert sizes(3000, 5) == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    assert sizes(100, 3) == [1 / 8, 1 / 4, 1 / 2, 1]
    assert sizes(5, 2) == [1]


def test_the_picture_shows_the_curve(found, tmp_path):
    found.draw(tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > 600
    with pytest.raises(PipelineError, match="no learning curve"):
        replace(found, curve=None).draw(tmp_path / "d.png")


def test_options_that_cannot_be_right_are_refused(cache):
    with pytest.raises(UsageError, match=r"--sample -1 is below 0.*--device 'gpu' is not one of"):
        ask(None, cache, sample=-1, device="gpu")
    with pytest.raises(TypeError, match="smple"):
        pipeline.advise(cache=cache.root, smple=3)
    with pytest.raises(PipelineError, match="has no current table"):
        pipeline.advise(cache=cache.root)


@pytest.fixture(scope="module")
def pretrained(prepared, tmp_path_factory):
    """Return a table of the photos whose trunk has a file's weights, not random ones."""
    from safetensors.torch import load_file, save_file

    root = tmp_path_factory.mktemp("pretrained") / "w"
    shutil.copytree(prepared, root)
    (weights,) = (root / "cache" / "weights").glob("random-*.safetensors")
    tensors = load_file(weights)
    tensors["conv1.weight"] = tensors["conv1.weight"] * 1.5
    save_file(tensors, root / "own.safetensors")
    return pipeline.extract(
        root / "photos", cache=root / "cache", trunk="resnet18",
        weights=str(root / "own.safetensors"), image_size=48, precision="fp32", engine="torch",
        name="own",
    )  # fmt: skip


@pytest.fixture
def own_cache(pretrained, tmp_path):
    """Return a copy of its cache, which has no rows of random weights yet."""
    shutil.copytree(pretrained.path.parents[1], tmp_path / "c")
    return Cache.at(tmp_path / "c")


@pytest.fixture
def moved(pretrained):
    """Return a function that moves the photos elsewhere until the test ends."""
    photos = pretrained.path.parents[2] / "photos"
    elsewhere = photos.with_name("moved")

    def move():
        photos.rename(elsewhere)
        return elsewhere

    yield move
    if elsewhere.exists():
        elsewhere.rename(photos)


def test_random_weights_are_compared_on_a_sample_and_reused(pretrained, own_cache, moved):
    advice = ask(pretrained, own_cache)
    assert advice.reference.images == 24 and advice.similarity.against == "random weights"
    assert 0 < advice.reference.random_linear <= 1
    low, high = advice.similarity.interval
    assert low <= advice.similarity.share <= high
    moved()
    again = ask(FeatureTable.open(pretrained.path), own_cache)  # needs no image
    assert again.reference == advice.reference
    assert own_cache.current().name == pretrained.path.name  # advice makes no table


def test_a_sample_is_stratified_and_as_small_as_was_asked_for(pretrained, own_cache):
    advice = ask(pretrained, own_cache, sample=12)
    assert advice.reference.images == 12
    none = ask(pretrained, own_cache, sample=0)
    assert none.reference is None and none.similarity.against == "chance"
    assert any("--sample is 0" in note for note in none.notes)


def test_images_that_are_gone_leave_the_comparison_out_and_that_is_said(
    pretrained, own_cache, moved
):
    elsewhere = moved()
    advice = ask(pretrained, own_cache)
    assert advice.reference is None and advice.similarity.against == "chance"
    (note,) = [text for text in advice.notes if "random weights" in text]
    assert "24 of 24 images are not where and what they were" in note and "--data" in note
    found = ask(pretrained, own_cache, data=str(elsewhere))
    assert found.reference.images == 24
    with_wrong = ask(pretrained, own_cache, data=str(elsewhere / "nowhere"), seed=1)
    assert with_wrong.reference is not None  # all rows are in the cache


def test_what_fine_tuning_did_is_told(work):
    done = tune(work, epochs=1, views=1)
    advice = advise_on_table(
        None, AdviseOptions(sample=0, trial=0), Cache.at(work / "cache"), Heard()
    )
    (gain,) = advice.gains
    assert (
        kept.read(Cache.at(work / "cache"), done.info.table_id)["gains"]
        == advice.to_json()["gains"]
    )
    assert gain.model == done.folder.name and gain.unfreeze == "layer4" and gain.split == "val"
    paired = done.info.metrics["val"].paired
    assert paired.model_alone - paired.head_alone == round(24 * gain.gained)
    assert gain.log_loss_error == paired.log_loss_error >= 0


def test_fine_tuning_is_tried_on_a_part_of_train_and_leaves_nothing(work, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 1e9)
    monkeypatch.setattr(budget, "STEPS", 2)
    cache = Cache.at(work / "cache")
    before = sorted(path for path in (work / "cache" / "models").rglob("*"))
    advice = advise_on_table(None, AdviseOptions(sample=0, trial=18), cache, Heard())
    assert [gain.unfreeze for gain in advice.gains] == ["layer4", "all"]
    for gain in advice.gains:
        assert not gain.whole and gain.train_images + gain.images == 18
        assert gain.where == f"tried with {gain.train_images} images"
    assert not list((work / "cache" / "training").iterdir())
    assert sorted(path for path in (work / "cache" / "models").rglob("*")) == before
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    dear = advise_on_table(None, AdviseOptions(sample=0), cache, Heard())
    assert dear.gains == () and any("would take about" in note for note in dear.notes)


def test_a_trial_without_images_or_head_is_told(work):
    cache = Cache.at(work / "cache")
    asked = AdviseOptions(sample=0, data=str(work / "nowhere"))
    gone = advise_on_table(None, asked, cache, Heard())
    assert gone.gains == () and any("layer4 was not tried" in note for note in gone.notes)
    for head in (work / "cache" / "heads").iterdir():
        shutil.rmtree(head)
    none = advise_on_table(None, AdviseOptions(sample=0), cache, Heard())
    assert none.gains == () and any("takes a head" in note for note in none.notes)
