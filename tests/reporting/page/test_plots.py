import re
import xml.etree.ElementTree as ET

import pytest
from advising import advice
from records import metrics, model_info, model_scores

from pipeline import plotting

CURVE = {
    "parameter": "C",
    "log": True,
    "measure": "accuracy",
    "on": "5 folds of train",
    "chosen": [1.0, 0.8],
    "lines": [
        {"label": "mean", "x": [0.1, 1.0, 10.0], "y": [0.7, 0.8, 0.75], "spread": [0.01] * 3}
    ],
    "sentence": 'logreg: <b>"tried"</b> & chosen',
}
HISTORY = [
    {"number": n, "train_loss": [None, 0.6, 0.5][n], "loss": 0.5, "accuracy": 0.8, "candidate": ""}
    for n in range(3)
]
HEAD = metrics(log_loss=0.55, accuracy=0.79)
BINS = {when: [{"images": 3, "accuracy": 0.5, "confidence": 0.6}] for when in ("before", "after")}
FORECAST = {**advice("a" * 64)["curve"], "sentence": "Accuracy on val."}
DRAWN = {
    "penalty": lambda name: plotting.penalty(CURVE, name=name),
    "learning": lambda name: plotting.learning(
        HISTORY, HEAD, best=1, on="val", name=name, title="Model x."
    ),
    "forecast": lambda name: plotting.forecast(FORECAST, name=name),
    "reliability": lambda name: plotting.reliability(BINS, name=name, title="Reliability"),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_plot_is_one_element_whose_colours_the_page_gives(draw):
    drawn = draw("one")
    root = ET.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert root.get("role") == "img"
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawn))
    # white patches behind figure and axes would shine in dark mode
    assert {c for c in colours if c != "none"} <= set(plotting._VARIABLES.values())
    assert "var(--series-1)" in colours
    assert root.findall(".//{*}text"), "text is text, not outlines"


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_names_inside_two_plots_never_meet(draw):
    ids = [set(re.findall(r'\bid="([^"]*)"', draw(name))) for name in ("one", "two")]
    assert ids[0] and not ids[0] & ids[1]
    drawn = draw("one")
    assert set(re.findall(r"(?:url\(#|href=\"#)([^)\"]*)", drawn)) <= ids[0]


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_plot_is_the_same_each_time_and_says_nothing_of_when_or_by_what(draw):
    assert draw("one") == draw("one")
    assert "metadata" not in draw("one")


def test_what_a_screen_reader_says_is_escaped():
    assert ET.fromstring(plotting.penalty(CURVE, name="one")).get("aria-label") == CURVE["sentence"]


def test_dollars_are_no_formula():
    curve = {**CURVE, "parameter": "$C$ <i>"}
    assert "$C$ &lt;i&gt;" in plotting.penalty(curve, name="one")


def test_sizes_that_lie_close_share_a_number():
    points = [{**FORECAST["points"][0], "images": n} for n in (1000, 1100, 2000)]
    drawn = plotting.forecast({**FORECAST, "points": points, "forecasts": []}, name="one")
    assert ">1,000<" in drawn and ">2,000<" in drawn and "1,100" not in drawn


def test_several_candidates_keep_the_colour_of_their_recipe_and_the_head_is_scored_as_they_are(
    monkeypatch,
):
    axes = []

    def epoch(candidate, number, loss, accuracy):
        return {"candidate": candidate, "number": number, "loss": loss, "accuracy": accuracy,
                "train_loss": None, "seconds": 1.0}  # fmt: skip

    history = [
        epoch("fresh, 2 epochs", 0, 9.0, 0.1), epoch("fresh, 2 epochs", 1, 0.6, 0.8),
        epoch("fresh, 2 epochs", 2, 0.3, 0.9),
        epoch("bold, 2 epochs", 0, 0.2, 0.9), epoch("bold, 2 epochs", 2, 0.3, 0.9),
        epoch("bold, 4 epochs", 0, 0.2, 0.9), epoch("bold, 4 epochs", 4, 0.1, 0.95),
    ]  # fmt: skip
    real = plotting.svg
    monkeypatch.setattr(
        plotting, "svg", lambda drawn, **kw: axes.extend(drawn.axes) or real(drawn, **kw)
    )
    head = metrics(log_loss=0.7, accuracy=0.6)  # on other images, those that decided
    plotting.learning(history, head, best=4, on="folds", name="n", title="t")
    left, right = axes
    fresh, short, long, level = left.get_lines()
    assert short.get_color() == long.get_color() != fresh.get_color()
    assert (short.get_linestyle(), long.get_linestyle()) == (":", "-")
    assert level.get_ydata()[0] == 0.2 and right.get_lines()[-1].get_ydata()[0] == 0.9
    assert left.get_ylim()[1] < 1.0 and right.get_ylim()[0] > 0.5  # chance is cut off


def test_what_a_split_did_for_a_model_is_told_apart():
    scored = {
        split: model_scores(selected_on=split != "test") for split in ("folds", "val", "test")
    }
    info = model_info(selected_on="folds", metrics=scored, decision={"share": 1.0})
    assert [info.role(split) for split in scored] == ["decided", "chose", ""]
    assert model_info().role("val") == "chose"
