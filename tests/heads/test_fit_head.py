import csv
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fitting import QUICK, fitted, folders
from joblib import parallel_config
from tables import digest, make_table

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.heads.fit_head import fit_head, fit_heads
from pipeline.heads.head import Head
from pipeline.heads.leaderboard import rank_heads
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.registry import HEADS
from pipeline.heads.task import split_rows

pytestmark = pytest.mark.usefixtures("one_thread")

# honest selection


def test_other_values_in_val_and_test_leave_the_chosen_head_bit_identical(tmp_path, cache):
    one = make_table(tmp_path / "a.h5", train=60, val=24, test=24, dim=32)
    x = one.features.copy()
    x[60:] += 1e6
    other = make_table(tmp_path / "b.h5", features=x, splits=one.splits, fingerprint="0" * 64)
    grid = {"logreg": "0.01,1", "linear": "0.01,1", "svm": "1e-4,1e-2", "mlp": "1"}
    for name in HEADS:
        a, b = (fitted(t, cache, name, grid=grid.get(name)).heads[0] for t in (one, other))
        assert a.id != b.id
        for field in ("trials", "parameters", "temperature", "score"):
            assert getattr(a.info, field) == getattr(b.info, field), (name, field)
        if a.linear is not None:
            files = [(h.folder / "head.safetensors").read_bytes() for h in (a, b)]
            assert files[0] == files[1]
        train = one.features[:60]
        assert a.predict_proba(train).tobytes() == b.predict_proba(train).tobytes()
        assert a.info.metrics != b.info.metrics or name == "ncm"


def test_an_estimator_of_scikit_learn_is_fitted_scored_and_kept_like_the_others(tmp_path, cache):
    from sklearn.ensemble import RandomForestClassifier

    table = make_table(tmp_path / "t.h5", train=60, val=30)
    asked, given = RandomForestClassifier(9), {"cache": cache.root, "folds": 3}
    head = fit_head(table, asked, jobs=1, **given)
    assert not hasattr(asked, "classes_") and asked.random_state is None
    assert head.info.clf == "RandomForestClassifier" and head.estimator[-1].n_estimators == 9
    assert head.info.parameters == {"n_estimators": 9}
    assert head.info.folds == 3 and 0.5 < head.info.score <= 1
    assert head.info.metrics["val"].accuracy == head.score(table.features[60:], [
        table.classes[label] for label in table.labels[60:]])  # fmt: skip
    again = Head.open(head.folder)
    assert (again.predict_proba(table) == head.predict_proba(table)).all()
    assert fit_head(table, asked, jobs=2, **given).id == head.id
    assert fit_head(table, RandomForestClassifier(8), jobs=1, **given).id != head.id
    assert fit_head(table, head.info.recipe["clf"], jobs=1, **given).id == head.id
    assert fit_head(table, [asked, "ncm"], jobs=1, **given).info.clf in ("ncm", head.info.clf)
    weighed = fit_head(table, asked, class_weight="balanced", seed=3, jobs=2, **given)
    assert weighed.estimator[-1].get_params()["class_weight"] == "balanced"
    assert weighed.estimator[-1].random_state == 3
    with pytest.raises(PipelineError, match="RandomForestClassifier, which is not linear"):
        pipeline.finetune(head, cache=cache.root)


def test_an_estimator_whose_types_are_not_known_ends_in_a_sentence(tmp_path, cache):
    from sklearn.gaussian_process import GaussianProcessClassifier

    table = make_table(tmp_path / "t.h5", train=60, val=30)
    with pytest.raises(PipelineError) as caught:
        fit_head(table, GaussianProcessClassifier(), cache=cache.root, folds=2, jobs=1)
    assert str(caught.value).startswith("GaussianProcessClassifier could not be fitted: it holds ")
    assert not list((cache.root / "heads").glob("*/*"))
    with pytest.raises(UsageError, match="SVC: nothing"):
        fit_head(table, "sklearn.svm:SVC", grid="1,2", cache=cache.root)


def test_equal_images_and_groups_stay_in_one_fold(tmp_path):
    digests = [digest(str(n)) for n in range(60)]
    digests[20:23] = [digests[0], digests[1], digests[2]]
    groups = tuple(f"g{n % 5}" if n < 30 else "" for n in range(60))
    table = make_table(train=60, digests=tuple(digests), groups=groups)
    folds = split_rows(table, FitHeadOptions(), []).folds
    assert len(folds) == 5
    for train, held in folds:
        assert not {digests[n] for n in train} & {digests[n] for n in held}
        assert not {groups[n] for n in train} & ({groups[n] for n in held} - {""})


def test_the_folds_see_the_training_split_alone(table):
    task = split_rows(table, FitHeadOptions(), [])
    used = np.concatenate([np.concatenate(fold) for fold in task.folds])
    assert set(used.tolist()) == set(range(60)) == set(task.train.tolist())


def test_val_may_choose_and_is_marked_so_that_it_is_never_reported_as_if_it_had_not(table, cache):
    head = fitted(table, cache, select_on="val").heads[0]
    info = head.info
    assert info.selected_on == "val" and info.folds == 0
    assert {k: v.selected_on for k, v in info.metrics.items()} == {
        "val": True,
        "test": False,
    }
    assert info.score == pytest.approx(info.metrics["val"].accuracy)
    by_folds = fitted(table, cache).heads[0].info
    assert not any(values.selected_on for values in by_folds.metrics.values())


@pytest.mark.parametrize(("val", "test", "have"), [(24, 0, "train, val"), (0, 24, "train, test")])
def test_val_cannot_choose_where_nothing_is_left_to_report(cache, val, test, have):
    with pytest.raises(UsageError, match=rf"needs train, val and test.*has {have}\. Use --sel"):
        fitted(make_table(train=30, val=val, test=test), cache, select_on="val")


# leakage


def test_planted_copies_are_reported_with_the_pairs_and_random_features_are_not(cache, table):
    assert fitted(table, cache).leaks == ()
    x, digests = table.features.copy(), list(table.digests)
    x[61], digests[61] = x[3], digests[3]
    x[90] = x[7] + 1e-3
    planted = make_table(features=x, splits=table.splits, digests=tuple(digests))
    done = fitted(planted, cache)
    found = {(k.split, k.path, k.other_split, k.other, k.same_file) for k in done.leaks}
    path = planted.paths
    assert found == {
        ("val", path[61], "train", path[3], True),
        ("test", path[90], "train", path[7], False),
    }
    assert len(done.to_json()["leaks"]) == 2


def test_a_second_run_tells_the_leaks_without_comparing_the_images_again(cache, table, monkeypatch):
    x = table.features.copy()
    x[90] = x[7] + 1e-3
    planted = make_table(features=x, splits=table.splits)
    first = fitted(planted, cache)

    def compare(*args, **options):
        raise AssertionError("all pairs were compared")

    monkeypatch.setattr("pipeline.heads.fit_head.find_near_duplicates", compare)
    again = fitted(planted, cache)
    assert again.reused and again.leaks == first.leaks and len(first.leaks) == 1
    assert fitted(planted, cache, "lda,ncm").leaks == first.leaks
    moved = replace(planted, paths=tuple(f"moved/{path}" for path in planted.paths))
    assert moved.table_id == planted.table_id
    assert [(leak.path, leak.other) for leak in fitted(moved, cache).leaks] == [
        (moved.paths[90], moved.paths[7])
    ]


# options


def test_shots_and_fractions_train_on_that_part(cache, table):
    assert fitted(table, cache, shots=4).heads[0].info.train_images == 12
    assert fitted(table, cache, train_fraction=0.5).heads[0].info.train_images == 30
    assert fitted(table, cache, shots=1000).heads[0].info.train_images == 60


def test_repeats_give_mean_and_spread_over_resplits(cache, table):
    got = fitted(table, cache, repeats=3).heads[0].info.repeats
    assert got["split"] == "test" and len(got["accuracies"]) == 3
    assert got["mean"] == pytest.approx(np.mean(got["accuracies"]))
    assert got["spread"] == pytest.approx(np.std(got["accuracies"], ddof=1))
    assert fitted(table, cache).heads[0].info.repeats is None
    with pytest.raises(PipelineError, match=r"has neither val nor test"):
        fitted(make_table(train=30), cache, repeats=2)


def test_heads_that_cannot_weigh_classes_are_left_out_and_named(cache, table):
    done = fitted(table, cache, QUICK, class_weight="balanced")
    assert [h.info.clf for h in done.heads] == ["lda", "ridge"]
    assert done.notes == ("Left out, since they cannot weigh classes: ncm, nb, knn.",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clf": "logrg"}, "'logrg' is not a head.*Did you mean logreg"),
        ({"select": "acuracy"}, r"--select 'acuracy' is not one of accuracy,.*Did you mean accura"),
        ({"select_on": "test"}, "--select-on 'test' is not one of cv, val"),
        (
            {"normalize": "standrd"},
            r"'standrd' is not one of none, standard, l2.*mean standard",
        ),
        ({"class_weight": "balance"}, "Did you mean balanced"),
        ({"folds": 1}, "--folds 1 is below 2"),
        ({"shots": 0}, "--shots 0 is below 1"),
        ({"repeats": -1}, "--repeats -1 is below 0"),
        ({"train_fraction": 0.0}, r"--train-fraction 0.0 is not in \(0, 1\]"),
        ({"train_fraction": 1.5}, r"--train-fraction 1.5 is not in \(0, 1\]"),
        ({"shots": 1, "train_fraction": 0.5}, "two ways to say the same"),
        ({"jobs": 0}, "--jobs 0 does nothing"),
        ({"grid": "x"}, "--grid 'x' is neither"),
        ({"clf": "ncm", "grid": "1"}, "ncm: nothing"),
        ({"clf": "ridge,lda", "grid": "1"}, "ridge: alpha, lda: shrinkage.*one by one"),
        ({"clf": "knn", "class_weight": "balanced"}, "knn cannot weigh classes"),
        ({"clf": "x", "folds": 0, "select": "y"}, r"--folds 0 is below.*--select 'y'.*'x' is not"),
    ],
)
def test_values_that_cannot_be_right_are_refused_together(options, message):
    with pytest.raises(UsageError, match=message):
        FitHeadOptions(**options).check()


def test_a_grid_that_the_estimator_refuses_is_a_sentence(cache, table):
    with pytest.raises(PipelineError, match=r"lda could not be fitted: shrinkage 2.0 is not above"):
        fitted(table, cache, "lda", grid="0.5,2")
    with pytest.raises(PipelineError, match=r"knn could not be fitted: .*n_neighbors"):
        fitted(table, cache, "knn", grid="2.5")


@pytest.mark.parametrize(
    "place",
    [
        "pipeline.heads.estimators.classifiers.cho_solve",
        "pipeline.heads.cross_validation.trials.score",
        "pipeline.heads.metrics.measure",
        "pipeline.heads.predictions.write",
    ],
)
def test_a_bug_is_no_head_that_could_not_be_fitted(cache, table, monkeypatch, place):
    def broken(*args, **options):
        return np.zeros(3) + np.zeros(4)

    monkeypatch.setattr(place, broken)
    with pytest.raises(ValueError, match="operands could not be broadcast"):
        fitted(table, cache, "lda")


def test_a_matrix_that_cannot_be_solved_is_a_sentence(cache, table, monkeypatch):
    def singular(*args, **options):
        return np.linalg.cholesky(-np.eye(2))

    monkeypatch.setattr("pipeline.heads.estimators.classifiers.cho_factor", singular)
    with pytest.raises(PipelineError, match=r"lda could not be fitted: Matrix is not positive"):
        fitted(table, cache, "lda")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["svm-rbf", "ridge", "linear", "knn", "ncm", "nb"])
def test_features_too_large_for_a_head_are_a_sentence(cache, table, name):
    large = make_table(features=table.features * np.float32(1e30), splits=table.splits)
    with pytest.raises(PipelineError, match=rf"^{name} could not be fitted: [^\n]*$"):
        fitted(large, cache, name, normalize="none", grid=None if name == "ncm" else "1")


def test_an_option_that_there_is_not_is_refused(cache, table):
    with pytest.raises(TypeError, match="fold"):
        fit_head(table, cache=cache.root, fold=3)


# what is kept


def test_the_description_says_what_on_what_and_how(cache, table):
    head = fitted(table, cache, "ridge").heads[0]
    info = head.info
    assert json.loads((head.folder / "head.json").read_text()) == json.loads(
        json.dumps(info.to_json())
    )
    assert (info.clf, info.table_id, info.fingerprint, info.dim) == (
        "ridge", table.table_id, table.fingerprint, 32,
    )  # fmt: skip
    assert info.recipe["folds"] == 3 and info.classes == table.classes
    scores = [trial["score"] for trial in info.trials]
    assert info.score in scores and len(scores) > len(HEADS["ridge"].grid)
    assert info.parameters in [trial["parameters"] for trial in info.trials]
    assert all(len(trial["folds"]) == 3 for trial in info.trials)
    assert info.normalize == "standard" and info.seconds > 0
    assert {"headstart", "numpy", "scikit-learn"} <= set(info.versions)
    for values in info.metrics.values():
        low, high = values.interval
        assert low <= values.accuracy <= high and len(values.confusion) == 3


@pytest.mark.parametrize("name", QUICK.split(","))
def test_the_predictions_beside_a_head_are_what_it_gives_when_opened(cache, table, name):
    head = fitted(table, cache, name).heads[0]
    back = Head.open(head.folder)
    files = {"predictions-val.csv", "predictions-test.csv", "head.json", "out-of-fold.safetensors"}
    kept = {path.name for path in head.folder.iterdir()}
    assert kept - files in ({"head.safetensors"}, {"head.skops"}) and files < kept
    for split in ("val", "test"):
        rows = table.rows(split)
        with (head.folder / f"predictions-{split}.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [line["path"] for line in lines] == [table.paths[row] for row in rows]
        assert [line["label"] for line in lines] == [table.classes[table.labels[r]] for r in rows]
        p = np.array([[float(line[f"p({c})"]) for c in table.classes] for line in lines])
        np.testing.assert_allclose(p, back.predict_proba(table, calibrated=False)[rows],
                                   rtol=1e-3, atol=1e-5)  # fmt: skip
        assert [line["prediction"] for line in lines] == back.predict(table)[rows].tolist()
        right = np.mean([line["label"] == line["prediction"] for line in lines])
        assert right == pytest.approx(head.info.metrics[split].accuracy)


def test_names_that_are_not_utf8_are_kept_in_the_predictions(cache):
    table = make_table(train=30, val=9)
    odd = replace(table, paths=(*table.paths[:-1], "a/na\udcefve.jpg"), path=None)
    head = fitted(odd, cache).heads[0]
    assert b"a/na\xefve.jpg" in (head.folder / "predictions-val.csv").read_bytes()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_writing_that_is_interrupted_leaves_no_half_written_head(cache, table, monkeypatch, error):
    def stop(self, folder):
        (folder / "head.json").write_text("{")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Head, "write", stop)
        with pytest.raises((PipelineError, KeyboardInterrupt)):
            fitted(table, cache)
    assert folders(cache) == []
    assert fitted(table, cache).reused == ()


def test_a_second_fit_reuses_the_head_and_changes_no_file(cache, table):
    first = fitted(table, cache)
    before = {path: path.stat().st_mtime_ns for path in first.heads[0].folder.iterdir()}
    with parallel_config(backend="threading"):
        again = fit_heads(table, FitHeadOptions(clf="lda,ncm", folds=3, jobs=2), cache)
    assert again.reused == (first.heads[0].id,)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.heads[0].info == first.heads[0].info


def test_another_recipe_or_table_is_another_head(cache, table):
    other = make_table(train=60, val=24, test=24, dim=32, fingerprint="0" * 64)
    ids = {fitted(table, cache, **o).heads[0].id
           for o in ({}, {"seed": 1}, {"select": "log-loss"}, {"normalize": "l2"})}  # fmt: skip
    assert len(ids | {fitted(other, cache).heads[0].id}) == 5


@pytest.mark.parametrize("name", ["head.json", "head.safetensors"])
def test_a_damaged_head_is_fitted_again(cache, table, name):
    first = fitted(table, cache)
    (first.heads[0].folder / name).write_bytes(b"damaged")
    again = fitted(table, cache)
    assert again.reused == () and Head.open(again.heads[0].folder).id == first.heads[0].id


# in Python


def test_in_python_it_is_one_call_that_returns_the_head(cache, table):
    head = pipeline.fit_head(table.path, clf="lda", cache=cache.root, folds=3, jobs=1)
    assert head.classes_.tolist() == list(table.classes)
    assert head.predict(table).shape == (108,)
    assert head.predict_proba(table.features).shape == (108, 3)


def test_in_python_several_kinds_give_the_best_of_them(cache, table):
    best = pipeline.fit_head(table, clf="lda,ncm", cache=cache.root, folds=3, jobs=1)
    done = fit_heads(table, FitHeadOptions(clf="lda,ncm", folds=3, jobs=1), cache)
    assert best.id == rank_heads([head.info for head in done.heads], table.table_id)[0].info.id
    assert done.reused == tuple(head.id for head in done.heads)


def test_scikit_learn_heads_import_no_torch(tmp_path, table):
    names = ",".join(name for name in HEADS if name not in ("linear", "logreg"))
    code = f"""
import sys, pipeline
from pipeline.store.cache import Cache
from pipeline.heads.fit_head import fit_heads
from pipeline.heads.options import FitHeadOptions
from pipeline.store.results import HEAD
from pipeline.heads.leaderboard import rank_heads
from pipeline.heads.head import Head
cache = Cache.at({str(tmp_path / "c")!r})
pipeline.fit_head({str(table.path)!r}, clf="logreg", cache=cache.root, folds=2, grid="0.1", jobs=1)
done = fit_heads({str(table.path)!r}, FitHeadOptions(clf={names!r}, folds=2, jobs=1), cache)
for head in done.heads:
    Head.open(head.folder).predict(done.table)
assert rank_heads(HEAD.every(cache.root)[0], done.table.table_id) and not done.failed
assert "sklearn" in sys.modules
print([name for name in ("torch", "torchvision", "timm", "PIL") if name in sys.modules])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                         env=environment)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"
