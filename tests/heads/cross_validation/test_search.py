from dataclasses import replace

import numpy as np
import pytest
from joblib import parallel_config, register_parallel_backend
from joblib._parallel_backends import ThreadingBackend
from tables import clouds

from pipeline.errors import PipelineError
from pipeline.heads.cross_validation import linear_search, trials
from pipeline.heads.cross_validation import search as module
from pipeline.heads.cross_validation.search import Plan, search
from pipeline.heads.estimators.normalize import Normalizer
from pipeline.heads.metrics import SELECTIONS, softmax
from pipeline.heads.registry import HEADS
from pipeline.heads.task import make_folds


def run(name, x, y, *, folds=3, progress=None, **plan):
    rows = np.arange(len(x))
    parts = make_folds(rows, y, rows, count=folds, seed=0) if folds else []
    plan = Plan(**{"jobs": 1, **plan})
    return search(name, x, y, classes=int(y.max()) + 1, train=rows, folds=parts, plan=plan,
                  progress=progress)  # fmt: skip


@pytest.fixture
def data():
    return clouds(60, 10, 3, apart=0.8)


@pytest.mark.parametrize("select", SELECTIONS)
def test_of_candidates_within_one_paired_standard_error_the_log_loss_decides(data, select):
    for name in ("ridge", "lda", "knn", "linear"):
        got = run(name, *data, select=select)
        top = max(trial.score for trial in got.trials)
        best = min(got.trials, key=lambda trial: trial.log_loss)
        assert got.chosen.log_loss <= min(t.log_loss for t in got.trials if t.score == top)
        if top - best.score < 1e-9:
            assert got.chosen is best


def test_one_image_more_is_a_tie():
    x, y = clouds(60, 10, 2, apart=1.5)
    got = run("linear", x, y)
    top = max(trial.score for trial in got.trials)
    near = [trial for trial in got.trials if top - trial.score <= 1.001 / 60]
    assert got.chosen.log_loss == min(trial.log_loss for trial in near)


def test_classes_that_separate_are_not_given_a_head_without_an_opinion():
    x, y = clouds(60, 10, 2, apart=20)
    for name in ("linear", "logreg"):
        got = run(name, x, y)
        assert got.chosen.score == 1 and got.chosen.log_loss < 0.01, name


def test_a_candidate_that_did_not_converge_is_not_chosen_over_one_that_did(monkeypatch, data):
    real = module.out_of_fold

    def partly(name, candidates, *args, **kwargs):
        for number, fold, scores, _ in real(name, candidates, *args, **kwargs):
            yield number, fold, scores, candidates[number]["C"] < 2e-5

    monkeypatch.setattr(module, "out_of_fold", partly)
    got = run("logreg", *data, grid=HEADS["logreg"].grid)
    assert got.chosen.parameters["C"] < 2e-5
    assert max(trial.score for trial in got.trials) > got.chosen.score


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("balanced", [False, True])
def test_what_was_scored_is_what_is_fitted(name, balanced):
    """A fold's rows fitted alone give the scores that the search had of its held-out rows."""
    x, y = clouds(60, 10, 3, apart=1.5)
    if balanced and not HEADS[name].balanced:
        pytest.skip("cannot weigh classes")
    y = np.where(np.arange(len(y)) % 4 == 0, 0, y)  # one class is more common
    rows = np.arange(len(x))
    folds = make_folds(rows, y, rows, count=3, seed=0)
    plan = Plan(jobs=1, balanced=balanced)
    got = search(name, x, y, classes=3, train=rows, folds=folds, plan=plan)
    value = got.chosen.parameters.get(HEADS[name].parameter)
    whole = Normalizer.fit(HEADS[name].normalize, x, rows)
    monkey = {"fit": classmethod(lambda cls, kind, features, rows: whole)}
    logits, labels, held = got.held
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Normalizer", type("Same", (Normalizer,), monkey))
        for fitted, scored in folds:
            grid = None if value is None else (value,)
            alone = search(name, x, y, classes=3, train=fitted, folds=[],
                           plan=Plan(jobs=1, balanced=balanced, grid=grid))  # fmt: skip
            if len(HEADS[name].fixed) > 1 and alone.chosen.parameters != got.chosen.parameters:
                continue  # without folds the middle of the fixed ones is taken
            alone.chosen = replace(alone.chosen, temperature=got.chosen.temperature)
            if alone.linear is not None:
                temperature = got.chosen.temperature
                alone.linear = replace(alone.linear, temperature=temperature)
            p = alone.probabilities(x[scored], 3)
            q = softmax(logits[np.isin(held, scored)])
            np.testing.assert_allclose(p, q, atol=4e-3)
    assert (labels == y[held]).all()


def test_the_score_is_that_of_the_pooled_held_out_predictions(data):
    got = run("ridge", *data)
    sizes = np.array([20, 20, 20])
    for trial in got.trials:
        assert trial.score == pytest.approx(np.average(trial.folds, weights=sizes))
        assert trial.spread == pytest.approx(np.std(trial.folds))


def test_a_log_spaced_grid_is_refined_between_and_beyond(data):
    got = run("ridge", *data)
    tried = {t.parameters["alpha"] for t in got.trials}
    assert set(HEADS["ridge"].grid) <= tried and len(tried) > len(HEADS["ridge"].grid)


def test_an_edge_that_wins_is_gone_beyond_but_not_for_ever(monkeypatch):
    # more penalty is always better here: the score is the penalty
    x, y = clouds(30, 4, 2)
    scores = iter(range(10_000))
    monkeypatch.setattr(trials, "score", lambda *a: float(next(scores)))
    got = run("svm", x, y)
    values = [t.parameters["C"] for t in got.trials]
    assert max(values) == pytest.approx(HEADS["svm"].grid[-1] * 10**trials.EXTENSIONS)


@pytest.mark.parametrize("name", ["svm", "ridge"])
def test_beyond_an_edge_that_separates_all_no_further_penalty_is_tried(name):
    x, y = clouds(60, 10, 2, apart=20)
    got = run(name, x, y)
    tried, grid = [t.parameters[HEADS[name].parameter] for t in got.trials], HEADS[name].grid
    assert min(grid) <= min(tried) and max(tried) <= max(grid)
    assert got.chosen.score == 1 and got.chosen.log_loss < 1e-3


def test_a_grid_that_is_given_is_tried_and_nothing_else(data):
    got = run("logreg", *data, grid=(0.5, 0.01))
    assert [t.parameters for t in got.trials] == [{"C": 0.01}, {"C": 0.5}]


def test_without_folds_the_middle_of_the_grid_is_taken_untried(data):
    got = run("lda", *data, folds=0)
    assert got.chosen.parameters == {"shrinkage": HEADS["lda"].grid[5]}
    assert np.isnan(got.chosen.score)
    assert np.isfinite(got.probabilities(data[0], 3)).all()


def test_what_is_tried_and_the_best_so_far_are_told(data):
    told = []
    got = run("lda", *data, progress=lambda *a: told.append(a))
    tried = [parameters for parameters, _ in told]
    assert sorted(map(str, tried)) == sorted(map(str, HEADS["lda"].candidates()))
    best = [score for _, score in told]
    assert best == sorted(best) and best[-1] == max(t.score for t in got.trials)


def test_more_images_than_a_kind_can_compare_pairwise_are_refused(monkeypatch, data):
    monkeypatch.setitem(HEADS, "svm-rbf", replace(HEADS["svm-rbf"], most=50))
    with pytest.raises(
        PipelineError, match=r"60 are more than 50\. `--clf linear` reads a table of any size"
    ):
        run("svm-rbf", *data)


def test_a_solver_that_does_not_converge_is_told(monkeypatch, data):
    from sklearn.linear_model import LogisticRegression

    kind = replace(HEADS["logreg"], make=lambda seed, balanced: LogisticRegression(max_iter=1))
    monkeypatch.setitem(HEADS, "logreg", kind)
    got = run("logreg", *data, grid=(1.0, 100.0))
    assert [t.converged for t in got.trials] == [False, False]
    assert got.notes == ["logreg: the solver stopped before it converged at 2 candidates."]


def test_a_selection_split_alone_scores_and_train_alone_is_fitted(data):
    x, y = data
    train, held = np.arange(40), np.arange(40, 60)
    for name in HEADS:
        grid = {"lda": (0.5,)}.get(name, (1.0,))
        got = search(name, x, y, classes=3, train=train, folds=[(train, held)],
                     plan=Plan(jobs=1, grid=grid))  # fmt: skip
        alone = search(name, x[:40], y[:40], classes=3, train=train, folds=[],
                       plan=Plan(jobs=1, grid=grid))  # fmt: skip
        if len(HEADS[name].fixed) == 1:
            a, b = got.probabilities(x[:40], 3), alone.probabilities(x[:40], 3)
            np.testing.assert_array_equal(a.argmax(1), b.argmax(1))
        accuracy = (got.probabilities(x[held], 3).argmax(1) == y[held]).mean()
        assert got.chosen.score == pytest.approx(accuracy), name


class Counting(ThreadingBackend):
    """Threads that are counted."""

    used = 0

    def effective_n_jobs(self, n_jobs):
        return super().effective_n_jobs(n_jobs)

    def configure(self, *args, **kwargs):
        n_jobs = super().configure(*args, **kwargs)
        Counting.used, Counting.n_jobs = Counting.used + 1, n_jobs
        return n_jobs


def test_a_callers_parallel_config_is_respected_where_jobs_is_left_open(data):
    register_parallel_backend("counting", Counting)
    Counting.used = 0
    with parallel_config(backend="counting", n_jobs=2):
        got = run("lda", *data, jobs=None)
    assert (Counting.used, Counting.n_jobs) == (1, 2)
    assert got.trials == run("lda", *data).trials


@pytest.mark.parametrize("name", ["lda", "logreg", "svm-rbf"])
def test_threads_of_the_caller_give_the_same_result(name, data):
    with parallel_config(backend="threading", n_jobs=2):
        got = run(name, *data, jobs=None)
    want = run(name, *data)
    assert [t.parameters for t in got.trials] == [t.parameters for t in want.trials]
    assert [t.score for t in got.trials] == [t.score for t in want.trials]
    p, q = (found.probabilities(data[0], 3) for found in (got, want))
    assert p.tobytes() == q.tobytes()


def test_a_backend_that_cannot_stream_works_too(data):
    class Listing(ThreadingBackend):
        supports_return_generator = False

    register_parallel_backend("listing", Listing)
    with parallel_config(backend="listing", n_jobs=2):
        assert run("lda", *data, jobs=None).trials == run("lda", *data).trials


def test_processes_give_what_one_gives(data, processes):
    one, two = run("ridge", *data), run("ridge", *data, jobs=2)
    assert one.trials == two.trials
    assert one.linear.weight.tobytes() == two.linear.weight.tobytes()


@pytest.mark.parametrize(
    "name", [name for name, kind in HEADS.items() if kind.normalize == "standard"]
)
def test_features_that_hardly_move_do_not_make_a_head_brittle(name):
    """Noise of 1 % of the features' rms deviation changes the top class of 1 % at most."""
    x, y = clouds(200, 60, 4, apart=1.0)
    rng = np.random.default_rng(1)
    x[:, 30:] = (rng.random((200, 30)) < 0.02) * rng.random((200, 30)) * 1e-3  # almost always zero
    head = run(name, x, y)
    rms = np.sqrt(x.var(0).mean())
    noise = rng.normal(0, 0.01 * rms, x.shape).astype(np.float32)
    before, after = (head.probabilities(values, 4).argmax(1) for values in (x, x + noise))
    assert (before != after).mean() <= 0.01


@pytest.mark.parametrize("keep", [True, False])
def test_a_large_table_is_chosen_on_a_part_checked_on_all_and_fitted_on_all(monkeypatch, keep):
    x, y = clouds(600, 12, 4, apart=1.2)
    whole = run("linear", x, y, folds=5)
    monkeypatch.setattr(module, "LARGE", 600 * 12 - 1)
    monkeypatch.setattr(module, "PART", 300)
    if not keep:
        monkeypatch.setattr(linear_search, "MEMORY", 0)
    got = run("linear", x, y, folds=5)
    (note,) = got.notes
    assert note.startswith("linear: the penalties were tried on 240 images and scored on 60 others")
    assert "fitted on 480 images" in note
    _, labels, rows = got.held
    assert len(rows) == 60 and (labels == y[rows]).all()
    C = got.chosen.parameters["C"]
    alone = run("linear", x, y, folds=0, grid=(C,))
    np.testing.assert_allclose(got.linear.weight, alone.linear.weight, atol=2e-2)
    assert [t.parameters["C"] for t in got.trials] == sorted(t.parameters["C"] for t in got.trials)
    assert abs(got.chosen.score - whole.chosen.score) < 0.1


def test_kinds_that_copy_the_features_say_beforehand_that_there_is_no_memory(monkeypatch, data):
    monkeypatch.setattr(module, "free_memory", lambda: 1000.0)
    for name in ("logreg", "knn", "lda", "mlp"):
        with pytest.raises(PipelineError, match=r"it copies the features.*`--clf linear` reads"):
            run(name, *data)
    assert run("linear", *data).linear is not None


@pytest.mark.parametrize(
    ("shape", "gpu", "free", "want"),
    [
        ((1000, 64), True, 80 << 30, ("cpu", True)),  # not worth a GPU
        ((1_000_000, 1280), False, 0, ("cpu", False)),
        ((1_000_000, 1280), True, 80 << 30, ("cuda", True)),
        ((1_000_000, 1280), True, 8 << 30, ("cuda", False)),
    ],
)
def test_where_a_table_is_solved_depends_on_its_size_and_on_the_gpu(
    monkeypatch, shape, gpu, free, want
):
    monkeypatch.setattr(linear_search.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(linear_search.torch.cuda, "mem_get_info", lambda: (free, 80 << 30))
    assert linear_search.placement(*shape) == want
