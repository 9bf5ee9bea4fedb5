"""Commands that only read leave no folder where there is no cache."""

import pytest
from click.testing import CliRunner
from conftest import picture

from pipeline.cli import main
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD

NO_TABLE = "has no current table. Make one with `pipeline extract DATA`"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("heads", NO_TABLE),
        ("models", NO_TABLE),
        ("status", "Make one with `pipeline extract DATA`"),
        ("cache info", "There is no cache"),
        ("cache verify", "There is no cache"),
        ("cache gc --dry-run", "There is no cache"),
        ("cache gc --yes --unfinished", "There is no cache"),
        ("trunks", "resnet18"),
        ("completion bash", "pipeline"),
        ("evaluate", NO_TABLE),
        ("predict", "No images"),
        ("show", NO_TABLE),
        ("export --format onnx", NO_TABLE),
        ("report", NO_TABLE),
        ("audit", NO_TABLE),
        ("advise", NO_TABLE),
        ("fit-head", NO_TABLE),
        ("finetune", NO_TABLE),
    ],
)
def test_a_command_that_reads_makes_no_folder(elsewhere, words, text):
    done = CliRunner().invoke(main, words.split())
    assert text in done.output
    assert list(elsewhere.iterdir()) == []


def test_json_of_a_cache_that_is_not_there_is_of_an_empty_one(elsewhere):
    for words in ("cache info", "cache verify", "cache gc", "status"):
        done = CliRunner().invoke(main, [*words.split(), "--json"])
        assert done.exit_code == 0 and done.output.startswith("{"), done.output
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_head_from_elsewhere_leaves_nothing(elsewhere, prepared, verb):
    (head,) = HEAD.folders(Cache.at(prepared / "cache").root)
    on = prepared / "photos/val"
    done = CliRunner().invoke(main, [verb, str(head), str(on), "--engine", "torch"])
    assert done.exit_code == 0, done.output
    assert list(elsewhere.iterdir()) == []


def test_images_of_a_folder_are_shown_and_nothing_but_the_sheet_is_left(elsewhere, prepared):
    done = CliRunner().invoke(main, ["show", str(prepared / "photos"), "-o", "sheet.png"])
    assert done.exit_code == 0, done.output
    assert [path.name for path in elsewhere.iterdir()] == ["sheet.png"]


def test_a_failed_prediction_leaves_no_folder(elsewhere, prepared):
    (head,) = HEAD.folders(Cache.at(prepared / "cache").root)
    (elsewhere / "half.png").write_bytes(picture(1)[:90])
    done = CliRunner().invoke(main, ["predict", str(head), "half.png"])
    assert done.exit_code == 1
    assert [path.name for path in elsewhere.iterdir()] == ["half.png"]
