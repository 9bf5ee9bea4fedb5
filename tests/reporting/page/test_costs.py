import pytest
from records import head_info, model_info, model_scores

from pipeline.reporting.page.costs import costs
from pipeline.store.records import PassCost

HEAD = head_info(clf="lda", trials=({}, {}))


def model(**changes):
    scored = model_scores(model={"images": 10})
    values = {
        "epochs": 4,
        "train_images": 60,
        "metrics": {"val": scored, "test": scored},
        "activations_computed": 260,
        "seconds": {"activations": 26.0, "head": 1.0, "training": 3.0, "evaluation": 0.5},
    }
    return model_info(**{**values, **changes})


def test_every_stage_has_its_time():
    found = costs(100, PassCost(100, 50.0), [HEAD], [model()])
    stages = [(row["stage"], row["seconds"]) for row in found["rows"]]
    assert stages == [("features", 50.0), ("head", 1.5), ("model", 30.5)]
    assert "100 through the trunk, 2 a second" in found["rows"][0]["what"]


def test_heads_saved_a_pass_for_each_image_at_what_a_pass_took():
    found = costs(100, PassCost(50, 25.0), [HEAD, HEAD, HEAD], [])
    (saved,) = found["saved"]
    assert saved["passes"] == 300
    assert saved["seconds"] == pytest.approx(150.0)


def test_a_model_saved_what_its_epochs_read_less_what_it_computed():
    (saved,) = costs(100, None, [], [model()])["saved"]
    # each epoch trains on 60 and scores 10; before the first 10 are scored, at the end 20
    assert saved["passes"] == 4 * 70 + 10 + 20 - 260
    assert saved["seconds"] == pytest.approx(saved["passes"] * 0.1)


@pytest.mark.parametrize("cost", [None, PassCost(0, 0.0)])
def test_what_was_not_measured_is_not_estimated(cost):
    found = costs(100, cost, [HEAD], [model(activations_computed=0)])
    assert [row["seconds"] for row in found["saved"]] == [None, None]


def test_a_run_that_kept_no_activations_saved_nothing():
    assert costs(100, None, [], [model(live=True)])["saved"] == []
