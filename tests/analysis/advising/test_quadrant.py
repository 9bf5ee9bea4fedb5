"""From figures to what to run."""

from dataclasses import replace

import pytest
from records import model_info, model_scores
from tables import make_table, provenance

from pipeline.analysis.advising import quadrant
from pipeline.analysis.advising.quadrant import LARGE, RULES, SIMILAR, Gain, find_gains, recommend
from pipeline.analysis.advising.similarity import Similarity
from pipeline.heads.uncertainty import PermutationTest

SURE = PermutationTest(900, 1000, 0.25, 0.001)
CHANCE = PermutationTest(250, 1000, 0.25, 0.5)
GAIN = Gain(
    model="m" * 12, unfreeze="layer4", split="test", chose=False, images=677, train_images=3018,
    head=0.76, head_interval=(0.73, 0.79), accuracy=0.79, interval=(0.76, 0.82),
    log_loss_fell=0.1, log_loss_error=0.02, head_alone=30, model_alone=50, kept_head=False,
)  # fmt: skip


def similar(share, low=None, high=None, against="random weights"):
    low, high = share - 0.05 if low is None else low, share + 0.05 if high is None else high
    return Similarity(share, (low, high), against)


def ask(images, similarity, *, near=SURE, linear=SURE, gains=(), head=None, current=True, **at):
    table = make_table(train=4)
    table = replace(table, provenance=provenance(layer=at.get("layer", "feature")))
    return recommend(
        table, images, similarity, near=near, linear=linear, gains=gains, current=current,
        head=head,
    )  # fmt: skip


QUADRANTS = [
    (LARGE - 1, similar(SIMILAR), "small", "similar", "head"),
    (LARGE, similar(SIMILAR), "large", "similar", "layer4"),
    (LARGE - 1, similar(SIMILAR - 0.01), "small", "different", "earlier layer"),
    (LARGE, similar(SIMILAR - 0.01), "large", "different", "more stages"),
    (LARGE, similar(-0.1), "large", "different", "from scratch"),
    (LARGE - 1, similar(-0.1), "small", "different", "earlier layer"),
    (LARGE, similar(-0.1, against="chance"), "large", "different", "more stages"),
]


@pytest.mark.parametrize(("images", "similarity", "size", "likeness", "action"), QUADRANTS)
def test_two_numbers_decide_the_quadrant(images, similarity, size, likeness, action):
    found = ask(images, similarity)
    assert (found.size, found.similarity, found.action) == (size, likeness, action)
    assert found.commands and found.sources and len(found.reasons) == 3
    assert f"{images:,} training images" in found.reasons[0]
    assert RULES[action][1] == found.reasons[-1]


def test_features_that_carry_nothing_come_before_every_quadrant():
    for images in (100, 10_000):
        found = ask(images, similar(0.9), near=CHANCE, linear=CHANCE, gains=[GAIN])
        assert (found.similarity, found.action) == ("nothing", "labels")
        assert "carry nothing" in found.title and "carry nothing" in found.reasons[1]
    assert ask(100, similar(0.9), near=CHANCE).action == "head"  # the linear head sees something
    assert ask(100, similar(0.9), linear=None).action == "head"


def test_it_says_where_a_border_is_close():
    assert "border is close" in ask(LARGE + 1, similar(0.9)).reasons[0]
    assert "border is close" not in ask(3 * LARGE, similar(0.9)).reasons[0]
    assert "the interval holds both" in ask(LARGE, similar(0.52)).reasons[1]
    assert "the interval holds both" not in ask(LARGE, similar(0.9)).reasons[1]


def test_what_fine_tuning_gained_outranks_the_rule():
    found = ask(100, similar(0.9), gains=[GAIN])
    assert found.action == "layer4" and found.size == "small"
    assert "+3.0 points on test" in found.reasons[-1] and "outranks" in found.reasons[-1]
    more = replace(GAIN, unfreeze="all", accuracy=0.85)
    assert ask(100, similar(0.9), gains=[GAIN, more]).action == "more stages"
    scratch = replace(GAIN, unfreeze="from scratch")
    assert ask(100, similar(0.9), gains=[scratch]).action == "from scratch"


NOTHING = [
    replace(GAIN, accuracy=0.76),
    replace(GAIN, accuracy=0.7, log_loss_fell=0.1),
    replace(GAIN, log_loss_fell=-0.01),
    replace(GAIN, kept_head=True, accuracy=0.76, log_loss_fell=0.0),
]


@pytest.mark.parametrize("gain", NOTHING)
def test_the_head_stays_where_the_rules_own_way_gained_nothing(gain):
    found = ask(5000, similar(0.9), gains=[gain])
    assert found.action == "head" and "the head stays" in found.reasons[-1]
    untried = ask(5000, similar(0.1), gains=[gain])  # more stages were not tried
    assert untried.action == "more stages"
    every = replace(gain, unfreeze="all")
    assert ask(5000, similar(0.1), gains=[every]).action == "head"


UNCLEAR = [
    replace(GAIN, log_loss_fell=0.03),
    replace(GAIN, chose=True),
]


@pytest.mark.parametrize("gain", UNCLEAR)
def test_a_gain_that_may_be_chance_leaves_the_rule(gain):
    assert ask(100, similar(0.9), gains=[gain]).action == "head"
    assert ask(5000, similar(0.9), gains=[gain]).action == "layer4"


def test_commands_name_the_head_and_the_table_where_that_is_needed(tmp_path):
    assert ask(5000, similar(0.9)).commands == (
        "pipeline fit-head --clf logreg", "pipeline finetune logreg --unfreeze layer4",
    )  # fmt: skip
    assert ask(5000, similar(0.9), head="abc").commands == (
        "pipeline finetune abc --unfreeze layer4",
    )
    assert ask(50, similar(0.9)).commands == ("pipeline fit-head --clf all",)
    table = make_table(tmp_path / "my table--x--0.h5", train=4)
    named = quadrant.commands("head", table, current=False, head=None)
    assert named == ["pipeline fit-head 'my table--x--0' --clf all"]


@pytest.mark.parametrize(
    ("layer", "before"),
    [("feature", "layer3"), ("layer4", "layer3"), ("layer2", "layer1"), ("layer1", None)],
)
def test_an_earlier_layer_is_the_one_before_the_tables_own(layer, before):
    found = ask(50, similar(0.1), layer=layer).commands
    if before:
        assert found[0] == f"pipeline extract x --layer {before}"
    else:
        assert found == ("pipeline fit-head --clf all",)


def model(name, loss, *, images=80, table="t", splits=("train-part", "val"), **changes):
    metrics = {
        split: model_scores(
            selected_on=split == "train-part",
            start={"accuracy": 0.7, "log_loss": 1.0},
            model={"accuracy": 0.8, "log_loss": loss},
            paired={"log_loss_error": 0.1, "head_alone": 1, "model_alone": 6},
        )
        for split in splits
    }
    return model_info(
        id=name, table_id=table, selected_on="train-part", train_images=images, metrics=metrics,
        **changes,
    )  # fmt: skip


def test_of_each_way_the_model_counts_that_is_best_where_the_epoch_was_chosen():
    models = [
        model("a", 0.9), model("b", 0.5), model("c", 0.7, unfreeze="all"),
        model("d", 0.1, table="other"), model("e", 0.1, images=60),
        model("f", 0.4, from_scratch=True, unfreeze="all"),
    ]  # fmt: skip
    found = find_gains(models, "t", images=100)
    assert [(gain.unfreeze, gain.model) for gain in found] == [
        ("layer4", "b"), ("all", "c"), ("from scratch", "f"),
    ]  # fmt: skip
    assert found[0].split == "val" and not found[0].chose
    assert found[0].gained == pytest.approx(0.1) and found[0].log_loss_fell == pytest.approx(0.5)
    assert found[0].verdict == "gained" and found[0].to_json()["verdict"] == "gained"
    (chose,) = find_gains([model("b", 0.5, splits=["train-part"])], "t", images=100)
    assert chose.split == "train-part" and chose.chose


def test_a_trial_on_a_part_counts_where_it_gains_and_says_nothing_where_not():
    tried = replace(GAIN, model="", train_images=266, split="a held-out part of train")
    won = ask(100, similar(0.9), gains=[tried])
    assert won.action == "layer4" and "tried with 266 images" in won.reasons[-1]
    lost = replace(tried, accuracy=0.7)
    assert ask(5000, similar(0.9), gains=[lost]).action == "layer4"
    whole = replace(GAIN, unfreeze="all", accuracy=0.77)
    assert ask(100, similar(0.9), gains=[tried, whole]).action == "more stages"
