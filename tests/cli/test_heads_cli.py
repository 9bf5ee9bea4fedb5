import json
import re
import shlex

import click
import pytest
from click.testing import CliRunner
from tables import make_table

from pipeline.cli import main
from pipeline.cli.commands import fit_head as command_module
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.registry import HEADS
from pipeline.store.cache import Cache


@pytest.fixture
def cache(tmp_path):
    return Cache.at(tmp_path / "cache")


@pytest.fixture
def table(cache):
    path = cache.tables / "photos--fake--0123456789ab.h5"
    made = make_table(path, train=60, val=24, test=24, dim=32)
    cache.set_current(made.path)
    return made


def invoke(cache, *args):
    return CliRunner().invoke(main, [*map(str, args), "--cache", str(cache.root)])


def fit(cache, *args):
    return invoke(cache, "fit-head", "--folds", 3, "--jobs", 1, *args)


def test_every_field_of_the_recipe_is_an_option_and_the_other_way_round():
    options = {p.name for p in command_module.command.params if isinstance(p, click.Option)}
    assert options - {"cache", "as_json"} == set(FitHeadOptions.__dataclass_fields__)
    with command_module.command.make_context("fit-head", []) as context:
        given = {
            k: v for k, v in context.params.items() if k in FitHeadOptions.__dataclass_fields__
        }
    assert FitHeadOptions(**given) == FitHeadOptions()


def test_the_help_names_every_head():
    text = " ".join(CliRunner().invoke(main, ["fit-head", "--help"]).output.split())
    assert all(name in text for name in HEADS)


def test_without_a_table_it_takes_the_current_one_and_says_which(cache, table):
    result = fit(cache, "--clf", "lda")
    assert result.exit_code == 0, result.output
    assert f"On the current table {table.path}" in result.stderr
    named = fit(cache, "photos", "--clf", "lda")
    assert f"On the table {table.path}" in named.stderr
    assert "Reused   1 head," in named.stdout


def test_it_prints_a_leaderboard_the_best_ones_figures_and_where_they_are(cache, table):
    result = fit(cache, "--clf", "lda,ncm,ridge", "--repeats", 2)
    assert result.exit_code == 0, result.output
    header, *rows = result.stdout.splitlines()[:4]
    assert header.split() == [
        "head",
        "choice",
        "selection",
        "log-loss",
        "val",
        "[95%]",
        "test",
        "[95%]",
        "seconds",
        "id",
    ]
    assert [row.startswith("*") for row in rows] == [True, False, False]
    best = rows[0].split()[1]
    for split in ("val", "test"):
        assert re.search(
            rf"^{best} on {split}, 24 images: accuracy [01]\.\d+ \[0\.\d+, [01]\.\d+\], balanced "
            r".*macro F1 .*log-loss .*calibration error .*majority class 0\.\d+$",
            result.stdout,
            re.M,
        )
    assert re.search(r"lda over 2 resplits of train and test: \d\.\d+ ± \d\.\d+", result.stdout)
    assert f"Kept in  {cache.root / 'heads'}" in result.stdout


def test_json_is_one_object_and_nothing_else(cache, table):
    result = fit(cache, "--clf", "lda,ncm", "--json")
    assert result.exit_code == 0 and result.stderr == ""
    values = json.loads(result.stdout)
    assert values["table"] == str(table.path) and values["leaks"] == []
    assert [head["clf"] for head in values["heads"]] == ["lda", "ncm"]
    board = invoke(cache, "heads", "--json")
    assert board.stderr == ""
    assert {head["id"] for head in json.loads(board.stdout)["heads"]} == {
        head["id"] for head in values["heads"]
    }


def test_heads_lists_each_way_of_choosing_apart(cache, table):
    empty = invoke(cache, "heads")
    assert empty.exit_code == 0 and "No head yet. Fit some with `pipeline fit-head" in empty.stdout
    fit(cache, "--clf", "lda,ncm")
    fit(cache, "--clf", "lda", "--select-on", "val")
    result = invoke(cache, "heads")
    assert result.exit_code == 0 and str(table.path) in result.stderr
    assert "chosen by accuracy on 3 folds of train, seed 0" in result.stdout
    assert "chosen by accuracy on val, seed 0" in result.stdout
    assert result.stdout.count("\n*") == 2
    chose = [line for line in result.stdout.splitlines() if "] chose" in line]
    assert len(chose) == 1 and " lda " in chose[0]


def test_leaks_are_told_with_the_pairs(cache, table):
    digests = list(table.digests)
    for n in range(7):
        digests[60 + n] = digests[n]
    path = cache.tables / "leaky--fake--0.h5"
    leaky = make_table(path, features=table.features, splits=table.splits, digests=tuple(digests))
    result = fit(cache, path, "--clf", "ncm")
    assert "Leakage  7 images of val resemble an image of train (possible leak)" in result.stdout
    root = leaky.provenance.root
    pairs = [[f"{root}/{leaky.paths[n + k]}" for k in (60, 0)] for n in range(7)]
    lines = {f"{shlex.join(pair)} (the same file)" for pair in pairs}
    told = {line.strip() for line in result.stdout.splitlines() if "same file" in line}
    assert len(told) == 5 and told < lines
    assert "and 2 more; --json lists all" in result.stdout


ERRORS = [
    (["--clf", "logrg"], 2, r"'logrg' is not a head.*Did you mean logreg"),
    (["--grid", "0,1"], 2, r"--grid '0,1' is neither values such as"),
    (["--folds", "1"], 2, r"--folds 1 is below 2"),
    (["--jobs", "0"], 2, r"--jobs 0 does nothing"),
    (["--selct", "x"], 2, r"(?i)no such option.*--selct"),
    (["--shots", "many"], 2, r"(?i)invalid value.*--shots"),
    (
        ["photos--fake--0123"],
        1,
        r"no table 'photos--fake--0123'. Did you mean photos--fake--0123456",
    ),
    (["--clf", "knn", "--grid", "2.5"], 1, r"knn could not be fitted"),
]


@pytest.mark.parametrize(("words", "code", "message"), ERRORS, ids=lambda v: str(v))
def test_what_is_wrong_is_a_sentence_and_an_exit_code(cache, table, words, code, message):
    result = invoke(cache, "fit-head", *words)
    assert result.exit_code == code and result.stdout == ""
    assert re.search(message, result.stderr.replace("\n", " ")), result.stderr
    assert "Traceback" not in result.stderr


def test_without_any_table_it_says_what_makes_one(cache):
    for name in ("fit-head", "heads"):
        result = invoke(cache, name)
        assert result.exit_code == 1
        assert "has no current table. Make one with `pipeline extract DATA`" in result.stderr


def test_without_a_split_to_report_it_still_prints_a_board(cache):
    path = cache.tables / "alone--fake--0.h5"
    make_table(path, train=2, classes=2)
    result = fit(cache, path, "--clf", "lda,ncm")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("untried") == 3  # two rows and the note
