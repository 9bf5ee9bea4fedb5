import json
import re

import click
import pytest
from click.testing import CliRunner
from tables import make_table

from pipeline.analysis.advising import learning_curve
from pipeline.analysis.options import AdviseOptions
from pipeline.cli import main
from pipeline.cli.commands.advise import command
from pipeline.store.cache import Cache


@pytest.fixture(autouse=True, scope="module")
def few_penalties():
    """Thirteen penalties take four times as long and change nothing that is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curve, "GRID", (1e-3, 1e-2, 1e-1))
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = Cache.at(tmp_path_factory.mktemp("advice"))
    path = cache.tables / "photos--fake--0123456789ab.h5"
    cache.set_current(make_table(path, train=60, val=24, test=24, dim=12).path)
    return cache


def invoke(cache, *args):
    return CliRunner().invoke(main, ["advise", *map(str, args), "--cache", str(cache.root)])


def test_every_field_of_the_recipe_is_an_option_and_the_other_way_round():
    options = {p.name for p in command.params if isinstance(p, click.Option)}
    assert options - {"cache", "as_json"} == set(AdviseOptions.__dataclass_fields__)
    with command.make_context("advise", []) as context:
        given = {k: v for k, v in context.params.items() if k in AdviseOptions.__dataclass_fields__}
    assert AdviseOptions(**given) == AdviseOptions()


def test_it_prints_figures_quadrant_advice_reason_and_source(cache, tmp_path):
    result = invoke(cache, "-o", tmp_path / "c.png")
    assert result.exit_code == 0, result.output
    assert "On the current table" in result.stderr and "photos--fake" not in result.stdout
    for pattern in (
        r"^How large +60 training images, 3 classes: 20 to 20 a class, median 20$",
        r"^  linear, by folds +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] +0\.\d{3} +p = 0\.001$",
        r"^Learning curve +accuracy on val and test \(48 images\)$",
        r"^ +15 images  \d\.\d{3} \[.*\], 5 repeats$",
        r"^ +120 images  \d\.\d{3} \[.*\] forecast: [+-]\d+\.\d points \[.*\]$",
        r"^Quadrant +small, similar$",
        r"^Advice +Fit a head",
        r"^  pipeline fit-head --clf all$",
        r"^Why +Small: 60 training images",
        r"^Source +cs231n",
        r"^Note +Not compared with random weights",
    ):
        assert re.search(pattern, result.stdout, re.M), (pattern, result.stdout)
    assert f"Drawn in {tmp_path / 'c.png'}" in result.stderr
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_json_is_one_object_and_nothing_else(cache):
    result = invoke(cache, "--json", "--sample", 0)
    assert result.exit_code == 0 and result.stderr == ""
    values = json.loads(result.stdout)
    assert values["recommendation"]["action"] == "head"
    assert (cache.advice / f"{values['table_id']}.json").is_file()  # for the report
    assert set(values) >= {"size", "similarity", "linear", "neighbours", "curve", "gains", "notes"}


ERRORS = [
    (["--sample", "-1"], 2, r"--sample -1 is below 0"),
    (["--device", "gpu"], 2, r"--device 'gpu' is not one of auto, cpu, cuda, mps"),
    (["--smple", "1"], 2, r"(?i)no such option.*--smple"),
    (["photo"], 1, r"no table 'photo'"),
]


@pytest.mark.parametrize(("words", "code", "message"), ERRORS, ids=lambda v: str(v))
def test_what_is_wrong_is_a_sentence_and_an_exit_code(cache, words, code, message):
    result = invoke(cache, *words)
    assert result.exit_code == code and result.stdout == ""
    assert re.search(message, result.stderr.replace("\n", " ")), result.stderr
    assert "Traceback" not in result.stderr


def test_a_picture_that_cannot_be_written_is_told_before_the_work_begins(cache, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke(cache, "--sample", 0, "-o", tmp_path / "file" / "c.png")
    assert result.exit_code == 1 and "c.png: Not a directory." in result.stderr
    assert result.stdout == ""
