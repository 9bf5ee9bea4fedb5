"""`pipeline show` as a person sees it."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import make_folder

from pipeline.cli import main


@pytest.fixture
def photos(tmp_path):
    return make_folder(tmp_path / "photos", each=3)


def call(photos, *words):
    cache = photos.parent / "cache"
    return CliRunner().invoke(main, ["show", *map(str, words), "--cache", str(cache)])


def test_it_prints_the_picture_and_what_it_shows(photos):
    done = call(photos, photos, "--count", 2)
    assert done.exit_code == 0, done.output
    (path,) = done.stdout.splitlines()
    assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert done.stderr == "photos: the first 2 images of each class\n"


def test_json_is_one_object_that_says_what_the_sheet_shows(photos):
    done = call(photos, photos, "--count", 1, "--class", "bees", "--json")
    values = json.loads(done.stdout)
    assert done.stderr == "" and values["kind"] == "classes" and values["on"] == "photos"
    (image,) = values["images"]
    assert image["path"] == "bees/000.png" and image["label"] == "bees"
    assert image["missing"] is None and image["section"] == "bees   3 images"


def test_a_wrong_word_is_a_sentence_and_exit_2(photos):
    done = call(photos, photos, "--kind", "class")
    assert done.exit_code == 2
    assert re.match(r"Error: --kind 'class' is not one of .* Did you mean classes\?$", done.stderr)
    done = call(photos, "nothing-there")
    assert done.exit_code == 2 and "There is no table, folder or file" in done.stderr
    done = call(photos)
    assert done.exit_code == 1 and "has no current table" in done.stderr
