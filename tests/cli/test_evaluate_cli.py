"""`pipeline evaluate` as a person sees it."""

import json
import re

import pytest
from click.testing import CliRunner
from records import metrics
from tables import make_table

from pipeline.cli import main
from pipeline.cli.commands.evaluate import _confusion
from pipeline.store.cache import Cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    store = Cache.at(tmp_path_factory.mktemp("evaluate") / "cache")
    table = make_table(store.tables / "clouds--fake--0123456789ab.h5", train=60, val=30, test=30)
    store.set_current(table.path)
    done = CliRunner().invoke(
        main, ["fit-head", "--clf", "lda,ncm", "--folds", "3", "--jobs", "1", "--cache",
               str(store.root)]
    )  # fmt: skip
    assert done.exit_code == 0
    return store


def call(cache, *words):
    return CliRunner().invoke(main, ["evaluate", "--cache", str(cache.root), *map(str, words)])


def test_the_time_is_that_of_the_whole_call(cache, monkeypatch):
    from pipeline.inference import evaluate

    clock, real = [0.0], evaluate.understand

    def slow(*words):
        clock[0] += 12  # as importing a library takes
        return real(*words)

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(evaluate, "understand", slow)
    assert "Time     12.0 s" in call(cache).stdout
    assert json.loads(call(cache, "--json").stdout)["seconds"] == 12.0


def test_it_prints_every_figure_of_each_split(cache):
    done = call(cache)
    assert done.exit_code == 0, done.output
    assert re.match(r"Taking the head \w{12} \(lda on fake\): accuracy .*best of 2", done.stderr)
    for split in ("val", "test"):
        assert re.search(
            rf"^{split}, 30 images: accuracy [01]\.\d+ \[0\.\d+, [01]\.\d+\], balanced .*macro F1 "
            r".*log-loss .*calibration error .*majority class 0\.\d+$",
            done.stdout, re.M,
        )  # fmt: skip
    assert re.search(r"^  class +images +precision +recall +F1$", done.stdout, re.M)
    assert re.search(r"^  class000 +10 +\d\.\d+ +\d\.\d+ +\d\.\d+$", done.stdout, re.M)
    assert re.search(r"^  is \\ predicted +class000 +class001 +class002$", done.stdout, re.M)
    assert "60 images held out (cv)" in done.stdout


def test_json_is_one_object_and_nothing_else(cache):
    done = call(cache, "ncm", "clouds", "--split", "val", "--json")
    values = json.loads(done.stdout)
    assert done.stderr == "" and list(values["metrics"]) == ["val"]
    assert {"accuracy", "interval", "classes", "confusion"} <= set(values["metrics"]["val"])
    both = json.loads(call(cache, "--compare", "lda", "ncm", "--json").stdout)
    assert set(both["splits"]) == {"val", "test"}


def test_compare_ends_in_a_sentence(cache):
    done = call(cache, "--compare", "lda", "ncm", "--split", "test")
    assert done.exit_code == 0, done.output
    assert re.search(r"^lda \w{6}: the head \w{12} \(lda on fake\)$", done.stdout, re.M)
    assert re.search(r"^On test, 30 images: lda \w{6} [01]\.\d+, ncm .*\.$", done.stdout, re.M)


def test_ctrl_c_says_that_there_is_nothing(cache, monkeypatch):
    from pipeline.inference import evaluate

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "evaluate_predictor", stopped)
    done = call(cache)
    assert done.exit_code == 130 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("Stopped. There are no figures")


def test_of_many_classes_the_commonest_confusions_are_shown():
    names = [f"c{k:02}" for k in range(13)]
    counts = [[5 * (i == j) for j in range(13)] for i in range(13)]
    counts[3][4], counts[4][3] = 2, 7
    values = metrics(classes=tuple({"class": name} for name in names), confusion=counts)
    assert _confusion(values) == ["7 × c04 taken for c03", "2 × c03 taken for c04"]


ERRORS = [
    (["a", "b"], 2, r"'a' is no head or model, and one table"),
    (["cloud"], 2, r"no table, folder or file 'cloud'\. Did you mean clouds"),
    (["--split", "vall"], 2, r"Did you mean val"),
    (["--compare", "lda", "svm"], 1, r"no head of kind svm"),
    (["a", "b", "--compare", "lda", "ncm"], 2, r"--compare names the two"),
    (["--with", "nosuch"], 1, r"no head or model 'nosuch'"),
    (["--compare", "lda"], 2, r"(?i)requires 2 arguments"),
]


@pytest.mark.parametrize(("words", "code", "text"), ERRORS, ids=lambda v: str(v)[:40])
def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(cache, words, code, text):
    done = call(cache, *words)
    assert done.exit_code == code, done.output
    assert re.search(text, done.stderr.replace("\n", " ")), done.stderr
    assert "Traceback" not in done.output
