import pytest
from records import head_info, model_info, model_scores, split_metrics

from pipeline.heads.leaderboard import Ranked, chosen_by
from pipeline.reporting.page import choice, render


def trial(score, **parameters):
    return {"parameters": parameters, "score": score, "spread": 0.01, "folds": [score]}


def head(trials, **changes):
    chosen = max((t for t in trials if t["score"] is not None), key=lambda t: t["score"])
    given = {"parameters": chosen["parameters"], "score": chosen["score"]}
    scored = {"metrics": {"val": split_metrics()}, "train_images": 100}
    return head_info(**{**given, **scored, "trials": tuple(trials), **changes})


def board_of(board, shown=None):
    """Return the section of the page with a leaderboard of heads."""
    page = render.environment().get_template("choice.html")
    empty = dict.fromkeys(("penalties", "models", "learning", "costs", "damaged"), ())
    groups = choice.groups(board, chosen_by)
    return page.render(**empty, heads=groups, info=shown, lowest=0.5, svg=str)


def ranked(info, best=True):
    return Ranked(info, 0, best)


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
    assert [curve["head"] for curve in choice.penalty_curves(list(map(ranked, board)))] == [
        "a",
        "c",
    ]


def test_a_head_that_was_never_compared_has_no_score():
    trials = [trial(0.8, C=1.0), trial(0.7, C=2.0)]
    assert ">untried</td>" in board_of([ranked(head(trials, score=None))])
    assert choice.penalty_curve(head(trials, score=None)) is None


def test_a_row_of_the_leaderboard_says_what_is_best_and_what_is_shown():
    trials = [trial(0.8, C=1.0)]
    board = [ranked(head(trials, id="a")), ranked(head(trials, id="b"), best=False)]
    first, second = board_of(board, shown=board[1].info).split("<tr")[2:4]
    assert first.startswith(' class="best"') and "best</span>" in first
    assert "best</span>" not in second and "shown</span>" in second and "shown</span>" not in first
    assert "0.800" in first and "0.700 – 0.900" in first and "chose</span>" not in first
    chose = head(trials, metrics={"val": split_metrics(selected_on=True)})
    assert "chose</span>" in board_of([ranked(chose)])


@pytest.mark.parametrize(("low", "scale"), [(0.97, 0.9), (0.71, 0.7), (0.7, 0.7), (0.05, 0.0)])
def test_the_scale_of_intervals_begins_at_a_tenth(low, scale):
    wide = (low, 0.99)
    of_head = head([trial(0.8, C=1.0)], metrics={"val": split_metrics(interval=wide)})
    assert choice.lowest([ranked(of_head)], []) == pytest.approx(scale)
    scores = model_scores(model={"interval": wide}, start={"interval": (0, 1)}, selected_on=True)
    of_model = model_info(metrics={"val": scores})
    assert choice.lowest([], [ranked(of_model)]) == pytest.approx(scale)
