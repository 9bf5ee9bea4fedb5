"""The contract that every entry of `HEADS` keeps."""

import numpy as np
import pytest
from records import head_info
from tables import clouds

from pipeline.errors import PipelineError, UsageError
from pipeline.heads.cross_validation.candidates import Workers, class_scores, fit, out_of_fold
from pipeline.heads.cross_validation.search import Plan, search
from pipeline.heads.estimators.normalize import NORMALIZATIONS, Normalizer
from pipeline.heads.head import Head
from pipeline.heads.metrics import SELECTIONS
from pipeline.heads.registry import HEADS, decades, parse_grid, parse_names
from pipeline.heads.task import make_folds

MADE = [name for name, kind in HEADS.items() if kind.make is not None]
SMALL = {"linear": (0.01, 1.0), "logreg": (0.01, 1.0), "svm": (1e-4, 1e-2), "mlp": (1.0,)}


def found(name, x, y, *, train=None, classes=None, grid=None, folds=3, **plan):
    train = np.arange(len(x)) if train is None else train
    parts = make_folds(train, y[train], np.arange(len(train)), count=folds, seed=0)
    return search(
        name, x, y, classes=classes or int(y.max()) + 1, train=train, folds=parts,
        plan=Plan(jobs=1, grid=grid or SMALL.get(name), **plan),
    )  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_an_entry_says_all_that_a_search_needs(name):
    kind = HEADS[name]
    assert kind.title and kind.normalize in NORMALIZATIONS
    assert (kind.parameter is None) == (not kind.grid)
    candidates = kind.candidates()
    assert len(candidates) == max(1, len(kind.grid)) * len(kind.fixed)
    assert len({tuple(sorted(c.items())) for c in candidates}) == len(candidates)
    if kind.grid:
        assert list(kind.grid) in (sorted(kind.grid), sorted(kind.grid, reverse=True))
    if kind.refine:
        assert min(kind.grid) > 0


@pytest.mark.parametrize("name", MADE)
def test_every_parameter_is_one_of_its_estimator(name):
    kind = HEADS[name]
    for balanced in {False, kind.balanced}:
        known = kind.make(0, balanced).get_params()
        assert all(set(candidate) <= set(known) for candidate in kind.candidates())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("classes", [2, 4])
def test_it_learns_what_is_easy_and_gives_probabilities(name, classes):
    x, y = clouds(80, 16, classes, apart=3)
    got = found(name, x[:60], y[:60])
    p = got.probabilities(x, classes)
    assert p.shape == (80, classes) and p.sum(1) == pytest.approx(np.ones(80), abs=1e-5)
    assert (p >= 0).all() and (p.argmax(1) == y)[60:].mean() > 0.85
    assert got.chosen in got.trials
    assert got.seconds > 0 and (got.linear is None) != (got.estimator is None)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("select", SELECTIONS)
def test_it_can_be_chosen_by_every_measure(name, select):
    x, y = clouds(36, 6, 3)
    got = found(name, x, y, select=select, folds=2, grid=(1.0,) if name != "lda" else (0.5,))
    assert np.isfinite(got.chosen.score) and len(got.chosen.folds) == 2


@pytest.mark.parametrize("name", HEADS)
def test_rows_that_are_not_trained_on_change_nothing(name):
    x, y = clouds(60, 8, 3)
    train = np.arange(40)
    changed = x.copy()
    changed[40:] += 1e6
    one, other = (found(name, values, y, train=train) for values in (x, changed))
    assert one.trials == other.trials and one.chosen == other.chosen
    if one.linear is not None:
        assert one.linear.weight.tobytes() == other.linear.weight.tobytes()
        assert one.linear.bias.tobytes() == other.linear.bias.tobytes()
    a, b = (got.probabilities(x[:40], 3) for got in (one, other))
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", HEADS)
def test_a_seed_gives_the_same_head_again(name):
    x, y = clouds(40, 8, 3)
    one, same = (found(name, x, y, seed=3) for _ in range(2))
    assert one.trials == same.trials
    assert one.probabilities(x, 3).tobytes() == same.probabilities(x, 3).tobytes()


@pytest.mark.parametrize("name", HEADS)
def test_the_training_images_may_come_in_any_place_of_the_table(name):
    x, y = clouds(50, 8, 3, apart=3)
    train = np.array(sorted(np.random.default_rng(0).permutation(50)[:36]))
    moved = np.concatenate([x[train], x[np.setdiff1d(np.arange(50), train)]])
    labels = np.concatenate([y[train], y[np.setdiff1d(np.arange(50), train)]])
    one = found(name, x, y, train=train)
    other = found(name, moved, labels, train=np.arange(36))
    assert one.trials == other.trials


@pytest.mark.parametrize("name", HEADS)
def test_a_class_without_training_images_is_never_predicted(name):
    x, y = clouds(40, 8, 2)
    y = np.where(y == 1, 3, 1)
    got = found(name, x, y, classes=5)
    p = got.probabilities(x, 5)
    assert np.isfinite(p).all() and set(p.argmax(1)) <= {1, 3}
    assert p[:, [0, 2, 4]].max() < 0.05
    assert np.isfinite(got.chosen.score) and got.chosen.temperature > 0


@pytest.mark.parametrize("name", HEADS)
def test_a_class_that_some_fold_lacks_does_not_break_the_search(name):
    x, y = clouds(41, 8, 2, apart=3)
    y[40] = 2  # one image: its own fold trains without it
    for select in ("accuracy", "log-loss"):
        got = found(name, x, y, select=select)
        scores = [t.score for t in got.trials]
        assert np.isfinite(scores).all() and np.isfinite(got.probabilities(x, 3)).all()
        assert (got.probabilities(x, 3).argmax(1) == y).mean() > 0.8


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_features_that_never_change_do_no_harm(name, normalize):
    x, y = clouds(60, 8, 3, apart=3)
    x[:, 2], x[:, 5] = 0, 7
    got = found(name, x, y, normalize=normalize)
    p = got.probabilities(x, 3)
    assert np.isfinite(p).all() and (p.argmax(1) == y).mean() > 0.5


@pytest.mark.parametrize("name", HEADS)
def test_features_that_never_change_at_all_work_or_are_refused_in_a_sentence(name):
    x, y = np.ones((30, 4), np.float32), np.arange(30) % 3
    try:
        p = found(name, x, y).probabilities(x, 3)
        assert np.isfinite(p).all()
    except (ValueError, PipelineError) as error:
        assert "variance" in str(error) or "vary at all" in str(error)


@pytest.mark.parametrize("name", [n for n, kind in HEADS.items() if kind.balanced])
def test_balanced_weights_raise_the_rare_classes_recall(name):
    x, y = clouds(400, 4, 2, apart=0.9, seed=5)
    keep = (y == 0) | (np.random.default_rng(0).random(400) < 0.08)
    rare = y == 1
    train = np.flatnonzero(keep)
    grid = {"lda": (0.1,), "ridge": (1.0,), "svm-rbf": (1.0,)}.get(name, (0.1,))
    plain, even = (
        found(name, x, y, train=train, balanced=b, grid=grid).probabilities(x, 2).argmax(1)
        for b in (False, True)
    )
    assert (even[rare] == 1).mean() > (plain[rare] == 1).mean()


@pytest.mark.parametrize("name", [n for n, kind in HEADS.items() if not kind.balanced])
def test_a_head_that_cannot_weigh_classes_takes_no_notice_of_it(name):
    x, y = clouds(30, 4, 2)
    one, other = HEADS[name].make(0, False), HEADS[name].make(0, True)
    assert one.get_params() == other.get_params()
    assert (one.fit(x, y).predict(x) == other.fit(x, y).predict(x)).all()


@pytest.mark.parametrize("name", [n for n in MADE if HEADS[n].searcher is not None])
@pytest.mark.parametrize("classes", [2, 3])
def test_what_searches_scores_as_what_is_fitted_at_the_end(name, classes):
    x, y = clouds(45, 8, classes)
    x = Normalizer.fit("standard", x, np.arange(45)).apply(x)
    kind, train, held = HEADS[name], np.arange(30), np.arange(30, 45)
    candidates = kind.candidates()
    got = list(out_of_fold(name, candidates, x, y, [(train, held)], classes=classes,
                           balanced=False, seed=0, workers=Workers(1)))  # fmt: skip
    for number, _, scores, _ in got:
        estimator = kind.make(0, False)
        fit(estimator, candidates[number], x[train], y[train])
        want = class_scores(kind, estimator, x[held], classes)
        np.testing.assert_allclose(scores, want, atol=2e-3)


@pytest.mark.parametrize("name", HEADS)
def test_kept_and_opened_again_it_gives_the_same_probabilities(name, tmp_path):
    from pipeline.heads.fit_head import _estimator

    x, y = clouds(50, 8, 3)
    got = found(name, x[:40], y[:40])
    uses_scores = got.linear is not None or not HEADS[name].probabilities
    info = head_info(
        classes=("a", "b", "c"), majority="a", dim=8, clf=name, normalize=got.normalizer.kind,
        temperature=got.chosen.temperature if uses_scores else None,
        linear=got.linear is not None,
    )  # fmt: skip
    Head(info, linear=got.linear, estimator=_estimator(got)).write(tmp_path)
    back = Head.open(tmp_path)
    np.testing.assert_allclose(back.predict_proba(x), got.probabilities(x, 3), atol=2e-5)
    assert (back.linear is not None) == (tmp_path / "head.safetensors").exists()
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".safetensors", ".skops"}


@pytest.mark.parametrize("name", [n for n, kind in HEADS.items() if kind.parameter])
def test_a_grid_of_whole_numbers_is_taken(name):
    x, y = clouds(36, 6, 3)
    grid = {"lda": "0.5,1"}.get(name, "1,2")
    got = found(name, x, y, grid=parse_grid(grid))
    assert len(got.trials) == 2 * len(HEADS[name].fixed)


@pytest.mark.parametrize("name", [n for n, kind in HEADS.items() if kind.parameter])
def test_a_grid_is_tried_from_simple_to_complex_in_whatever_order_it_is_given(name):
    kind = HEADS[name]
    values = [candidate[kind.parameter] for candidate in kind.candidates((0.3, 0.1, 0.2))]
    falling = kind.grid[0] > kind.grid[-1]
    assert values == sorted(values, reverse=falling)


def test_all_means_every_head_and_several_are_parted_by_commas():
    assert parse_names("all") == list(HEADS)
    assert parse_names("lda, ridge,lda") == ["lda", "ridge"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "logrg",
            r"'logrg' is not a head.*There are ncm, nb, .*mlp, and all\. Did you mean logreg",
        ),
        ("ldaa,rigde", r"'ldaa', 'rigde' is not a head.*Did you mean lda\?.*Did you mean ridge\?"),
        ("", "nothing is not a head"),
        ("LDA", "Did you mean lda"),
    ],
)
def test_wrong_names_are_told_together_with_the_nearest(text, message):
    with pytest.raises(UsageError, match=message):
        parse_names(text)


def test_a_grid_is_values_or_a_range():
    assert parse_grid("0.01, 0.1,1e2") == (0.01, 0.1, 100.0)
    assert parse_grid("1e-2:1e2:5") == pytest.approx((0.01, 0.1, 1, 10, 100))
    assert parse_grid("3:3:1") == (3.0,)


@pytest.mark.parametrize(
    "text",
    ["", "a", "1,,2", "1:2", "1:2:3:4", "0:1:5", "-1", "0", "1:10:0", "1:10:2.5", "nan", "inf",
     "1:inf:3", "1:10:-4"],
)  # fmt: skip
def test_what_is_not_a_grid_is_refused_with_examples(text):
    with pytest.raises(UsageError, match=r"is neither values such as 0.01,0.1,1 nor LOW:HIGH"):
        parse_grid(text)


def test_decades_are_evenly_spaced_in_their_logarithm():
    assert decades(-1, 2) == pytest.approx((0.1, 1, 10, 100))
    assert decades(0, 1, 3) == pytest.approx((1, 10**0.5, 10))
