import pytest
from advising import advice
from records import head_info, model_info
from tables import make_table

from pipeline.reporting.page import render
from pipeline.reporting.page.advice import section
from pipeline.reporting.page.choice import scale

ID = "a" * 64
MADE = advice(ID)["created"]


def heads(*times):
    return [head_info(created=time) for time in times]


def models(*times):
    return [model_info(created=time) for time in times]


def test_the_figures_stand_beside_the_random_baseline_and_random_weights():
    found = section(advice(ID), heads=[], models=[])
    figures = [(what, row["accuracy"], row["random_baseline"]) for what, row in found["figures"]]
    assert figures == [("nearest neighbour", 0.9, 0.33), ("linear, by folds", 0.92, 0.33)]
    near, linear = (row["right"] for row in found["sample"])
    assert near[0][0] == 0.88 and linear[1][0] == 0.6
    low, high = near[1][1]
    assert low < 0.52 < high
    assert found["lowest"] == scale([(low, high)]) and found["lowest_gain"] == 0.7


def test_what_was_not_measured_is_left_out():
    found = section(
        advice(ID, linear=None, reference=None, curve=None, gains=[]), heads=[], models=[]
    )
    assert [what for what, _ in found["figures"]] == ["nearest neighbour"]
    assert (found["sample"], found["curve"], found["gains"]) == ([], None, [])
    assert found["lowest_gain"] == 0.9


def test_the_curve_is_said_in_a_sentence():
    curve = section(advice(ID), heads=[], models=[])["curve"]
    assert curve["sentence"] == (
        "Accuracy on val and test (40 images): 0.820 with 30, 0.910 with 60, forecast 0.930 "
        "[0.850, 0.980] with 120 training images."
    )
    assert curve["sentence"] in curve["svg"]


@pytest.mark.parametrize(
    ("made", "tuned", "newer"),
    [
        (heads(MADE), models("2024-05-06T07:08:08Z"), None),
        (heads(MADE, "2024-05-06T07:08:10Z"), [], "1 head"),
        (heads("2025"), models("2025", "2026"), "1 head and 2 models"),
    ],
)
def test_what_is_newer_than_the_advice_is_counted(made, tuned, newer):
    assert section(advice(ID), heads=made, models=tuned)["newer"] == newer


def test_a_model_that_never_beat_its_head_says_so():
    (gain,) = advice(ID)["gains"]
    page = render.environment().get_template("advice.html")
    for kept_head, verdict in ((True, "no epoch beat the head"), (False, "unclear")):
        kept = advice(ID, gains=[{**gain, "kept_head": kept_head}])
        shown = section(kept, heads=[], models=[])
        html = page.render(advice=shown, advice_note="", table=make_table(), svg=str)
        assert f"<td>{verdict}</td>" in html
