"""`pipeline report` as a person sees it."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from fitting import fitted
from pictured import pictured

from pipeline.cli import main
from pipeline.store.cache import Cache


@pytest.fixture
def photos(tmp_path):
    return pictured(Cache.at(tmp_path / "cache"), tmp_path / "photos")


def call(tmp_path, *words):
    return CliRunner().invoke(main, ["report", *words, "--cache", str(tmp_path / "cache")])


def test_the_path_is_all_that_is_printed_and_the_rest_is_told(photos, tmp_path):
    (head,) = fitted(photos, Cache.at(tmp_path / "cache"), "lda").heads
    done = call(tmp_path)
    page = tmp_path / "cache" / "reports" / f"{photos.path.stem}.html"
    assert done.exit_code == 0 and done.stdout == f"{page}\n"
    assert f"{len(photos.labels)} images, " in done.stderr and "findings" in done.stderr
    assert head.id in page.read_text()
    assert page.with_name(f"{page.stem}.audit.csv").read_text().startswith("kind,")


def test_output_json_and_open(photos, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("click.launch", lambda address: opened.append(address))
    done = call(tmp_path, "-o", str(tmp_path / "a page.html"), "--json", "--open")
    assert done.exit_code == 0 and done.stderr == ""
    values = json.loads(done.stdout)
    assert values["page"] == str(tmp_path / "a page.html") and (tmp_path / "a page.html").exists()
    assert values["table_id"] == photos.table_id and values["images"] == len(photos.labels)
    assert opened == [(tmp_path / "a page.html").as_uri()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.h5"], "nowhere.h5"),
        (["--with", "logreg"], "logreg"),
        (["-o", "photos"], "photos"),
        (["--data", "missing"], "missing"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_nothing_is_written(
    photos, tmp_path, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    before = sorted((tmp_path / "cache").rglob("*"))
    done = call(tmp_path, *words)
    assert done.exit_code != 0 and said in done.stderr and "Traceback" not in done.output
    left = sorted((tmp_path / "cache").rglob("*"))
    assert [path for path in left if path.name != "decoding"] == before  # an empty folder


def test_without_a_table_it_says_what_to_run(tmp_path):
    done = CliRunner().invoke(main, ["report", "--cache", str(tmp_path / "empty")])
    assert done.exit_code == 1 and "pipeline extract" in done.stderr


def test_scikit_learn_and_torch_are_not_imported_for_what_a_linear_head_said(photos, tmp_path):
    cache = tmp_path / "cache"
    fitted(photos, Cache.at(cache), "linear")
    program = (
        f"import sys\nfrom pipeline.cli import main\n"
        f"main(['report', '--cache', {str(cache)!r}], standalone_mode=False)\n"
        f"print(*{{'sklearn', 'torch', 'pandas'}} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "Labels were judged" in done.stderr
    assert done.stdout.splitlines()[1:] == [""]
