import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from pipeline.errors import PipelineError
from pipeline.heads.solver import design as design_module
from pipeline.heads.solver.design import Design
from pipeline.heads.solver.linear_classifier import LinearClassifier
from pipeline.heads.solver.path import solve_path

PENALTIES = np.logspace(-5, 1, 7)


def solve(x, y, *, penalties=PENALTIES, fold=None, weight=None, keep=True, **options):
    """Return what each penalty gave, with `fold` [N] the fold that each row is held out of."""
    inside = np.ones((1, len(y))) if fold is None else fold != np.arange(fold.max() + 1)[:, None]
    weights = inside * (1.0 if weight is None else weight)
    return list(
        solve_path(Design(x, keep=keep), y, penalties, n_classes=int(y.max()) + 1,
                   weights=weights.astype(np.float32), **options)
    )  # fmt: skip


def blobs(n, d, classes, *, seed=0, spread=0.5):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    means = rng.normal(size=(classes, d)) * spread
    return (means[y] + rng.normal(size=(n, d))).astype(np.float32), y


def objective(W, b, x, y, C, weight=None):
    z = x.astype(float) @ W.T + b
    top = z.max(1)
    ce = np.log(np.exp(z - top[:, None]).sum(1)) + top - z[np.arange(len(y)), y]
    ce = ce if weight is None else ce * weight
    return C * ce.sum() + np.square(W).sum() * (1 if len(W) == 2 else 0.5)


def exact(x, y, C, weight=None):
    model = LogisticRegression(C=C, tol=1e-8, max_iter=20_000)
    model.fit(x.astype(float), y, sample_weight=weight)
    W, b = model.coef_, model.intercept_
    return (np.vstack([-W / 2, W / 2]), np.append(-b / 2, b / 2)) if len(W) == 1 else (W, b)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(
    ("n", "d", "classes"), [(60, 8, 2), (40, 90, 2), (90, 12, 4), (50, 120, 3)]
)
def test_every_penalty_and_fold_is_solved_to_scikit_learns_optimum(n, d, classes, keep):
    x, y = blobs(n, d, classes)
    fold = np.random.default_rng(1).permutation(n) % 3
    for found in solve(x, y, fold=fold, keep=keep):
        assert found.converged.all()
        scores = found.held_out(fold)
        for f in range(3):
            (W, b), inside = found.linear(f), fold != f
            want = objective(*exact(x[inside], y[inside], found.C), x[inside], y[inside], found.C)
            got = objective(W.astype(float), b, x[inside], y[inside], found.C)
            assert got <= want * 1.001
            assert found.objective[f] == pytest.approx(got, rel=1e-4)
            np.testing.assert_allclose(scores[~inside], x[~inside] @ W.T + b, atol=2e-3)


def test_classes_that_separate_are_solved_at_every_penalty_too():
    x, y = blobs(80, 20, 4, spread=5.0)
    for found in solve(x, y, penalties=np.logspace(-5, 4, 10)):
        W, b = found.linear(0)
        want = objective(*exact(x, y, found.C), x, y, found.C)
        assert found.converged.all()
        assert objective(W.astype(float), b, x, y, found.C) <= want * 1.001


def test_a_problem_that_runs_out_of_iterations_is_said_not_to_have_converged():
    x, y = blobs(60, 30, 3)
    (found,) = solve(x, y, penalties=[10.0], max_iter=1)
    assert not found.converged.any() and found.iterations.tolist() == [1]


def test_weights_of_images_count_as_scikit_learns_do():
    x, y = blobs(60, 6, 3)
    weight = np.random.default_rng(2).uniform(0.1, 3, 60)
    (found,) = solve(x, y, penalties=[0.3], weight=weight)
    want = objective(*exact(x, y, 0.3, weight), x, y, 0.3, weight)
    W, b = found.linear(0)
    assert objective(W.astype(float), b, x, y, 0.3, weight) <= want * 1.001


def test_a_fold_never_sees_its_held_out_rows():
    x, y = blobs(60, 10, 3)
    fold = np.arange(60) // 20
    shifted = x.copy()
    shifted[fold == 0] += 1000
    inside = fold != 0
    for one, other in zip(solve(x, y, fold=fold), solve(shifted, y, fold=fold), strict=True):
        values = []
        for found in (one, other):
            W, b = found.linear(0)
            values.append(objective(W.astype(float), b, x[inside], y[inside], found.C))
        assert values[1] == pytest.approx(values[0], rel=2e-3)


def test_the_same_inputs_give_the_same_bits():
    x, y = blobs(80, 20, 3)
    one, other = solve(x, y), solve(x, y)
    assert [a.U.numpy().tobytes() for a in one] == [b.U.numpy().tobytes() for b in other]


def test_rows_that_are_read_in_small_blocks_give_the_same_solution(monkeypatch):
    x, y = blobs(200, 10, 4)
    fold = np.arange(200) % 4
    much = solve(x, y, fold=fold)
    monkeypatch.setattr(design_module, "CHUNK", 300)
    for keep in (True, False):
        for one, other in zip(much, solve(x, y, fold=fold, keep=keep), strict=True):
            np.testing.assert_allclose(one.objective, other.objective, rtol=1e-4)


def test_features_beyond_the_widest_basis_are_solved_in_their_own(monkeypatch):
    x, y = blobs(60, 30, 3)
    want = solve(x, y)
    monkeypatch.setattr(design_module, "WIDEST", 8)
    for one, other in zip(want, solve(x, y), strict=True):
        np.testing.assert_allclose(one.objective, other.objective, rtol=1e-3)


def test_a_solution_is_the_same_in_the_coordinates_of_another_design():
    x, y = blobs(90, 12, 3)
    (found,) = solve(x, y, penalties=[1.0])
    whole = Design(x[:50])
    W, b = found.linear(0)
    again = whole.linear(whole.coordinates(W, b).view(-1, whole.width))
    np.testing.assert_allclose(again[0], W, atol=1e-5)
    np.testing.assert_allclose(again[1], b, atol=1e-4)


def test_a_start_at_the_solution_stays_there():
    x, y = blobs(90, 12, 2)
    (found,) = solve(x, y, penalties=[1.0])
    start = Design(x).coordinates(*found.linear(0))
    (again,) = solve(x, y, penalties=[1.0], start=start)
    assert again.iterations.max() <= 1


def test_features_that_never_change_and_a_class_missing_from_a_fold_do_no_harm():
    x, y = blobs(30, 5, 3)
    x[:, 2] = 7
    fold = np.where(y == 2, 0, np.arange(30) % 2 + 1)
    for found in solve(x, y, penalties=[0.1, 10], fold=fold):
        assert found.converged.all() and np.isfinite(found.held_out(fold)).all()


def test_a_fold_without_a_row_to_train_on_is_refused():
    x, y = blobs(20, 4, 2)
    with pytest.raises(PipelineError, match="fold 0 leaves no row to train on"):
        solve(x, y, weight=np.zeros(20))


@parametrize_with_checks([LinearClassifier()])
def test_the_estimator_passes_scikit_learns_checks(estimator, check):
    check(estimator)


def test_the_estimator_agrees_with_scikit_learn_and_keeps_the_precision():
    x, y = blobs(90, 6, 3)
    names = np.array(["ant", "bee", "fly"])[y]
    theirs = LogisticRegression(C=0.5, tol=1e-8, max_iter=5000).fit(x.astype(float), names)
    for dtype, close in ((np.float32, 5e-3), (np.float64, 1e-6)):
        ours = LinearClassifier(C=0.5).fit(x.astype(dtype), names)
        assert ours.coef_.dtype == dtype
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=close)
        assert (ours.predict(x) == theirs.predict(x)).mean() > 0.98
