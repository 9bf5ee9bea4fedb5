"""`pipeline export` as a person sees it."""

import json
import re

import pytest
from click.testing import CliRunner
from fitting import fitted
from tables import make_table

from pipeline.cli import main
from pipeline.inference.exporting import export as verb
from pipeline.store.cache import Cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Cache.at(tmp_path / "cache")
    table = make_table(store.tables / "clouds--fake--0123456789ab.h5", train=60, val=30)
    store.set_current(table.path)
    fitted(table, store, "lda,knn")
    return store


def call(cache, *words):
    return CliRunner().invoke(main, ["export", "--cache", str(cache.root), *words])


def test_it_says_what_was_checked_and_where_it_is(cache, tmp_path):
    done = call(cache, "lda", "--head-only")
    assert done.exit_code == 0, done.output
    assert re.search(r"^Exported the head \w{12} \(lda on fake\)$", done.stdout, re.M)
    assert re.search(
        r"^Checked  on 64 of the table's features: probabilities differ by at most \S+ \(0.001 is "
        r"allowed\)$",
        done.stdout, re.M,
    )  # fmt: skip
    assert re.search(r"^Files    README.md .*, headstart.json .*, model.onnx .* kB$", done.stdout,
                     re.M)  # fmt: skip
    (kept,) = re.findall(r"^Kept in  (fake-\w{12}-onnx)$", done.stdout, re.M)
    assert {path.name for path in (tmp_path / kept).iterdir()} == {
        "README.md", "headstart.json", "model.onnx",
    }  # fmt: skip


def test_json_is_one_object_and_nothing_else(cache):
    done = call(cache, "lda", "--head-only", "--format", "safetensors", "--output", "o", "--json")
    values = json.loads(done.stdout)
    assert done.stderr == "" and values["path"] == "o" and "model.safetensors" in values["files"]


def test_ctrl_c_leaves_nothing(cache, tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "readme", stopped)
    before = set(tmp_path.iterdir())
    done = call(cache, "lda", "--head-only", "--output", "o")
    assert done.exit_code == 130 and "Stopped. Nothing was written." in done.stderr
    assert set(tmp_path.iterdir()) == before


ERRORS = [
    (["lda", "knn"], 2, r"One head or model"),
    (["knn"], 1, r"is not linear and cannot be exported; kinds that can: ncm, "),
    (["lda", "--format", "onx"], 2, r"Did you mean onnx"),
    (["lda", "--head-only", "--output", "cache"], 1, r"holds other files"),
    (["nosuch"], 1, r"no head or model 'nosuch'"),
]


@pytest.mark.parametrize(("words", "code", "text"), ERRORS, ids=lambda v: str(v)[:40])
def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(cache, words, code, text):
    done = call(cache, *words)
    assert done.exit_code == code, done.output
    assert re.search(text, done.stderr.replace("\n", " ")), done.stderr
    assert "Traceback" not in done.output
