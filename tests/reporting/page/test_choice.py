import pytest

from pipeline.reporting.page import choice


def trial(score, **parameters):
    return {"parameters": parameters, "score": score, "spread": 0.01, "folds": [score]}


def head(trials, **fields):
    chosen = max((t for t in trials if t["score"] is not None), key=lambda t: t["score"])
    info = {
        "id": "0123456789ab",
        "clf": "logreg",
        "group": 0,
        "best": True,
        "parameters": chosen["parameters"],
        "score": chosen["score"],
        "spread": 0.01,
        "trials": trials,
        "recipe": {"select": "accuracy"},
        "selected_on": "cv",
        "folds": 5,
        "metrics": {"val": {"accuracy": 0.8, "interval": [0.7, 0.9], "images": 50}},
        "train_images": 100,
        "seconds": 1.5,
    }
    return {**info, **fields}


def test_the_curve_is_in_the_order_of_the_penalty_whatever_the_order_of_the_search():
    curve = choice.penalty_curve(head([trial(0.7, C=1.0), trial(0.5, C=0.01), trial(0.9, C=100.0)]))
    (line,) = curve["lines"]
    assert line["x"] == [0.01, 1.0, 100.0]
    assert line["y"] == [0.5, 0.7, 0.9]
    assert curve["chosen"] == [100.0, 0.9]
    assert curve["log"]


def test_a_second_parameter_makes_a_line_for_each_value():
    trials = [trial(0.5 + c / 100, C=c, gamma=g) for c in (1.0, 10.0, 30.0) for g in (0.1, 1.0)]
    curve = choice.penalty_curve(head(trials))
    assert curve["parameter"] == "C"
    assert [line["label"] for line in curve["lines"]] == ["gamma = 0.1", "gamma = 1"]


def test_a_log_loss_is_drawn_as_it_is_and_not_negated():
    trials = [trial(-0.7, C=1.0), trial(-0.4, C=2.0)]
    curve = choice.penalty_curve(head(trials, recipe={"select": "log-loss"}))
    assert curve["lines"][0]["y"] == [0.7, 0.4]
    assert curve["chosen"] == [2.0, 0.4]


@pytest.mark.parametrize(
    "trials",
    [[trial(0.7, C=1.0)], [trial(0.7), trial(0.8)], [trial(0.7, C=1.0), trial(0.6, C=1.0)]],
)
def test_nothing_is_drawn_where_there_is_nothing_to_compare(trials):
    assert choice.penalty_curve(head(trials)) is None


def test_the_best_of_each_kind_alone_is_drawn():
    trials = [trial(0.7, C=1.0), trial(0.8, C=2.0)]
    board = [head(trials, id="a"), head(trials, id="b"), head(trials, id="c", clf="svm")]
    assert [curve["head"] for curve in choice.penalty_curves(board)] == ["a", "c"]


def test_a_head_that_was_never_compared_has_no_score():
    trials = [trial(0.8, C=1.0), trial(0.7, C=2.0)]
    (row,) = choice.heads([head(trials, score=None)], "")
    assert row["score"] is None
    assert choice.penalty_curve(head(trials, score=None)) is None


def test_a_row_of_the_leaderboard_says_what_is_best_and_what_is_shown():
    trials = [trial(0.8, C=1.0)]
    rows = choice.heads([head(trials, id="a"), head(trials, id="b", best=False)], "b")
    assert [(row["best"], row["shown"]) for row in rows] == [(True, False), (False, True)]
    assert rows[0]["splits"]["val"] == {
        "accuracy": 0.8,
        "interval": [0.7, 0.9],
        "images": 50,
        "chose": False,
    }


@pytest.mark.parametrize(("low", "scale"), [(0.97, 0.9), (0.71, 0.7), (0.7, 0.7), (0.05, 0.0)])
def test_the_scale_of_intervals_begins_at_a_tenth(low, scale):
    metrics = {"val": {"accuracy": 0.98, "interval": [low, 0.99], "images": 50}}
    assert choice.lowest([head([trial(0.8, C=1.0)], metrics=metrics)]) == pytest.approx(scale)
