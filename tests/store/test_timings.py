"""One account of what stages cost: a pass is an image or a view, saved or made."""

from dataclasses import replace

import numpy as np
import pytest
from records import head_info, model_info, model_scores
from tables import make_table

from pipeline.store import timings
from pipeline.store.timings import of_features, of_heads, of_tuning

ACTIVATIONS = "a" * 64


def model(**fields):
    part = {"images": 10}
    scored = {name: model_scores(model=part) for name in ("val", "test")}
    values = {
        "live": False,
        "epochs": 4,
        "train_images": 60,
        "selected_on": "val",
        "metrics": scored,
        "activations": ACTIVATIONS,
        "activations_computed": 260,
        "uses": 4 * 70 + 10 + 20,
        "seconds": {"activations": 26.0, "head": 1.0, "training": 3.0, "evaluation": 0.5},
    }
    return model_info(**{**values, **fields})


@pytest.fixture
def known(cache):
    """Return a cache that knows what a pass takes."""
    cache.root.mkdir()
    timings.note(cache.memo, "f" * 64, 60, 30.0)
    timings.note(cache.memo, ACTIVATIONS, 260, 26.0)
    return cache


def test_views_are_passes_made_or_saved(known):
    table = replace(make_table(train=60, val=20), views=np.zeros((60, 3, 24), np.float32))
    first = of_features(table, known, computed=260, seconds=9.0)
    assert (first.passes, first.saved_passes, first.saved_seconds) == (80 + 60 * 3, 0, 0.0)
    second = of_features(table, known, computed=60, seconds=9.0)
    assert (second.passes, second.saved_passes, second.saved_seconds) == (60, 200, 100.0)


def test_heads_make_no_pass_and_save_the_fitting_of_those_reused(known):
    heads = [head_info(id="one", seconds=1.5), head_info(id="two", seconds=2.0)]
    cost = of_heads(heads, ["two"], seconds=1.6)
    assert (cost.passes, cost.saved_passes, cost.saved_seconds) == (0, 0, 2.0)


def test_a_model_saved_what_its_epochs_read_less_what_it_computed(known):
    # each epoch trains on 60 and scores 10; before the first 10 are scored, at the end 20
    needed = 4 * 70 + 10 + 20
    cost = of_tuning(model(), known, reused=False, seconds=30.5)
    assert (cost.passes, cost.saved_passes) == (260, needed - 260)
    assert cost.saved_seconds == pytest.approx((needed - 260) * 0.1)
    again = of_tuning(model(), known, reused=True, seconds=0.1)
    assert (again.passes, again.saved_passes) == (0, needed)
    assert again.saved_seconds == pytest.approx(needed * 0.1 + 4.5)
    live = of_tuning(model(live=True), known, reused=False, seconds=30.5)
    assert (live.passes, live.saved_passes, live.saved_seconds) == (needed, 0, 0.0)


def test_what_was_not_measured_is_not_estimated(cache):
    table = make_table(train=60)
    assert of_features(table, cache, computed=0, seconds=None).saved_seconds is None
    assert of_tuning(model(), cache, reused=False, seconds=1.0).saved_seconds is None
    # of a model that was there already is known what its own run took
    assert of_tuning(model(), cache, reused=True, seconds=0.0).saved_seconds == 30.5
    assert not cache.root.exists()
