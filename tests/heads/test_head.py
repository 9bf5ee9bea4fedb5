import functools
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from records import head_info
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skops.io import dump
from tables import clouds, make_table

from pipeline.errors import DamagedError, PipelineError, UsageError
from pipeline.heads.head import Head, is_right
from pipeline.heads.linear import LinearHead
from pipeline.store.results import HEAD

X, Y = clouds(30, 4, 2)


def info(**changes):
    return head_info(**{"id": "0123456789ab", "temperature": None, **changes})


def linear_head():
    weight = np.random.default_rng(0).normal(0, 1, (2, 4))
    return Head(info(temperature=2.0), linear=LinearHead.fold(weight, np.zeros(2), temperature=2.0),
                estimator=None)  # fmt: skip


def other_head():
    estimator = Pipeline([("normalize", "passthrough"), ("classify", GaussianNB().fit(X, Y))])
    return Head(info(), linear=None, estimator=estimator)


@pytest.fixture(params=[linear_head, other_head])
def head(request, tmp_path):
    made = request.param()
    made.write(tmp_path)
    return made


def test_opened_it_is_what_was_written(head, tmp_path):
    back = Head.open(tmp_path)
    assert (
        back.info == head.info and back.classes_.tolist() == ["ant", "bee"] and back.id == head.id
    )
    assert back.predict_proba(X).tobytes() == head.predict_proba(X).tobytes()
    assert back.folder == tmp_path


def test_predictions_are_the_names_of_the_likeliest(head):
    p = head.predict_proba(X)
    assert p.dtype == np.float64 and p.sum(1) == pytest.approx(np.ones(30))
    assert head.predict(X).tolist() == [("ant", "bee")[k] for k in p.argmax(1)]


def test_the_score_is_the_share_of_right_names_of_what_has_a_label(head):
    predicted = head.predict(X).tolist()
    assert head.score(X, predicted) == 1.0
    names = [*predicted[:-3], *("wrong",) * 3]
    assert head.score(X, names) == pytest.approx(0.9)
    splits = ("train",) * 30
    table = make_table(features=X, labels=Y, splits=splits, classes=2, names=("ant", "bee"))
    right = (head.predict(X) == np.array(["ant", "bee"])[Y]).mean()
    assert head.score(table) == pytest.approx(right)
    labels = Y.copy()
    labels[10:] = -1
    part = make_table(features=X, labels=labels, splits=splits, classes=2, names=("ant", "bee"))
    right = (head.predict(X[:10]) == np.array(["ant", "bee"])[Y[:10]]).mean()
    assert head.score(part) == pytest.approx(right)
    with pytest.raises(PipelineError, match="30 rows have 2 labels"):
        head.score(X, ["ant", "bee"])
    none = make_table(features=X, labels=np.full(30, -1), splits=("",) * 30)
    for given in (X, none):
        with pytest.raises(PipelineError, match="There are no labels to score on"):
            head.score(given)


def test_a_table_of_the_same_fingerprint_is_taken_another_refused(head):
    table = make_table(features=X, labels=Y, splits=("train",) * 30, classes=2)
    np.testing.assert_array_equal(head.predict_proba(table), head.predict_proba(X))
    other = make_table(features=X, labels=Y, splits=("train",) * 30, classes=2,
                       fingerprint="0" * 64)  # fmt: skip
    with pytest.raises(PipelineError, match=r"another fingerprint \(fake, f{12}\).*\(0{12}\)"):
        head.predict(other)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (2, 4, 1)])
def test_features_of_another_length_are_refused(head, shape):
    with pytest.raises(PipelineError, match=r"takes features \[N, 4\], not \("):
        head.predict(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(head, value):
    x = X.copy()
    x[3, 1] = value
    with pytest.raises(PipelineError, match="not finite"):
        head.predict_proba(x)


def test_a_head_that_is_not_there_is_told_with_what_to_do(tmp_path):
    with pytest.raises(PipelineError, match=r"There is no head .*none.*pipeline heads"):
        Head.open(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "is damaged: it holds no JSON object"),
        ('{"schema": 1}', "of schema 1, and this release reads 7: make it again with `pipeline f"),
        ('{"schema": 8}', "of schema 8, and this release reads 7: update Headstart"),
        ("{}", "of schema None"),
        ('{"schema": 7, "id": "x"}', "is damaged: head.json lacks calibration, checksum, classes"),
    ],
)
def test_a_damaged_description_says_so(head, tmp_path, text, message):
    (tmp_path / "head.json").write_text(text)
    for read in (Head.open, HEAD.read):
        with pytest.raises(DamagedError, match=message):
            read(tmp_path)


def test_a_head_without_its_weights_says_so(head, tmp_path):
    path = next(path for path in tmp_path.iterdir() if path.suffix != ".json")
    path.unlink()
    with pytest.raises(
        DamagedError, match=rf"{path.name} is missing\. Make .* again: `pipeline fit"
    ):
        Head.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_head_says_so(head, tmp_path, keep):
    path = next(path for path in tmp_path.iterdir() if path.suffix != ".json")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DamagedError, match="is damaged"):
        Head.open(tmp_path)


@pytest.mark.parametrize("changes", [{"dim": 5}, {"classes": ("ant", "b", "c")}])
def test_weights_that_do_not_fit_the_description_are_refused(tmp_path, changes):
    made = linear_head()
    Head(info(**changes), linear=made.linear, estimator=None).write(tmp_path)
    with pytest.raises(DamagedError, match=r"do not fit its head.json"):
        Head.open(tmp_path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def skops_bytes(value):
    buffer = io.BytesIO()
    dump(value, buffer)
    return buffer.getvalue()


def exchange(folder, name, data):
    """Put another file in place of one, and record its digest, as a stranger can."""
    (folder / name).write_bytes(data)
    HEAD.write(folder, HEAD.read(folder))


def swapped(data, **members):
    """Return a zip with members replaced or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name not in members:
                new.writestr(name, old.read(name))
        for name, content in members.items():
            new.writestr(name, content)
    return out.getvalue()


def hostile(path):
    """Return files that run something, or want to, where they are trusted or unpickled."""
    good = skops_bytes(Pipeline([("n", "passthrough"), ("c", GaussianNB().fit(X, Y))]))
    bomb = pickle.dumps(Bomb(path))
    array = io.BytesIO()
    np.save(array, np.array([Bomb(path)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        arrays = [name for name in file.namelist() if name.endswith(".npy")]
    return {
        "a pickle": bomb,
        "a pickle for the schema": swapped(good, **{"schema.json": bomb}),
        "pickled arrays": swapped(good, **{name: array.getvalue() for name in arrays}),
        "a function": skops_bytes(FunctionTransformer(func=os.mkdir)),
        "a bound call": skops_bytes(functools.partial(os.mkdir, str(path))),
        "not a zip": b"PK\x03\x04" + bytes(100),
    }


def test_what_is_hostile_would_run_where_it_is_unpickled(tmp_path):
    pickle.loads(hostile(tmp_path / "ran")["a pickle"])
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("how", list(hostile("x")))
def test_a_hostile_file_is_refused_and_nothing_of_it_runs(tmp_path, how):
    other_head().write(tmp_path)
    mark = tmp_path / "ran"
    exchange(tmp_path, "head.skops", hostile(mark)[how])
    with pytest.raises(DamagedError, match=r"is refused: it holds|is damaged"):
        Head.open(tmp_path)
    assert not mark.exists()


def test_a_refusal_names_the_types_that_no_head_holds(tmp_path):
    other_head().write(tmp_path)
    exchange(tmp_path, "head.skops", skops_bytes(FunctionTransformer(func=os.mkdir)))
    with pytest.raises(DamagedError, match=r"is refused: it holds posix.mkdir, which no head does"):
        Head.open(tmp_path)


@pytest.mark.parametrize("given", [None, "abc", [["a"]], [[1], [1, 2]], object(), {"a": 1}])
def test_what_is_no_table_of_numbers_is_refused_in_a_sentence(given):
    with pytest.raises(PipelineError, match=r"takes features \[N, 4\]"):
        linear_head().predict(given)


def test_features_may_be_any_table_of_numbers():
    import pandas
    import torch

    head = linear_head()
    want = head.predict(X).tolist()
    for given in (X.tolist(), pandas.DataFrame(X), torch.tensor(X, requires_grad=True)):
        assert head.predict(given).tolist() == want


def test_labels_are_names_of_classes_in_any_sequence():
    predicted = np.array(["3", "a", "3"], object)
    for labels in (["3", "a", "a"], (3, "a", "a"), np.array(["3", "a", "a"]), iter("3aa")):
        assert is_right(predicted, labels, ("3", "a"), "rows").tolist() == [True, True, False]
    for wrong, why in (
        (3, "not 3"), ("3aa", "not '3aa'"), (["3"], "3 rows have 1 labels"), ([], "0 labels"),
        ([0, 1, 1], "None of the labels is one of the classes '3' and 'a', as '0'"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            is_right(predicted, wrong, ("3", "a"), "rows")


@pytest.mark.parametrize(
    ("column", "value"),
    [(None, 0), ("left_child", 0), ("right_child", 1 << 40), ("feature", 4), ("feature", -3)],
)
def test_a_tree_that_leads_nowhere_is_damage_before_it_is_followed(tmp_path, column, value):
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    tree = forest.estimators_[1].tree_
    state = tree.__getstate__()
    if column is not None:
        state["nodes"][column][0] = value
    tree.__setstate__(state)
    estimator = Pipeline([("normalize", "passthrough"), ("classify", forest)])
    Head(info(), linear=None, estimator=estimator).write(tmp_path)
    if column is None:
        assert Head.open(tmp_path).predict(X).shape == (len(X),)
        return
    with pytest.raises(DamagedError, match="a tree in it leads nowhere"):
        Head.open(tmp_path)


@pytest.mark.parametrize("make", [linear_head, other_head])
def test_a_pickle_in_place_of_weights_is_refused_and_does_not_run(tmp_path, make):
    make().write(tmp_path)
    path = next(path for path in tmp_path.iterdir() if path.suffix != ".json")
    exchange(tmp_path, path.name, pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(DamagedError, match="is damaged"):
        Head.open(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_opening_never_unpickles(head, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert len(Head.open(tmp_path).predict(X)) == 30


def test_the_description_is_json_that_anyone_reads(head, tmp_path):
    assert json.loads((tmp_path / "head.json").read_text())["classes"] == ["ant", "bee"]
