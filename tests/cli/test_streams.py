"""Commands in terminals, redirects and locales of other encodings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

CLASSES = ("année", "日本")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    root = tmp_path_factory.mktemp("streams")
    for number, name in enumerate(CLASSES):
        (root / "photos" / name).mkdir(parents=True)
        for at in range(8):
            colour = (200 * number, 20 * at, 90)
            Image.new("RGB", (40, 40), colour).save(root / "photos" / name / f"ü{at}.png")
    done = pipeline(root, "extract", "photos", *TRUNK, "--json")
    assert done.returncode == 0, done.stderr.decode()
    done = pipeline(root, "fit-head", "--clf", "ncm,lda")
    assert done.returncode == 0, done.stderr.decode()
    return root


TRUNK = ("--trunk", "resnet18", "--weights", "random", "--image-size", "32", "--engine", "torch")


def pipeline(root, *words, stdout=subprocess.PIPE, shell=None, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    kept |= {"PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    command = [sys.executable, "-m", "pipeline", *words]
    if shell:
        command = ["sh", "-c", shell, "sh", *command]
    return subprocess.run(
        command, cwd=root, env=kept, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=300
    )


SETTINGS = [
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "cp1252:strict"},
    {"PYTHONIOENCODING": "cp437"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]
COMMANDS = [
    ("extract", "photos", *TRUNK),
    ("fit-head", "--clf", "ncm,lda"),
    ("heads",),
    ("status",),
    ("evaluate",),
    ("predict", "photos"),
    ("audit",),
]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_no_command_ends_in_a_traceback_whatever_the_encoding(work, setting):
    for words in COMMANDS:
        done = pipeline(work, *words, **setting)
        told = done.stderr.decode("latin-1")
        assert done.returncode == 0 and "Traceback" not in told, (words, told)


def test_the_same_data_are_the_same_table_in_a_locale_of_ascii_names(work):
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    one, other = (
        json.loads(pipeline(work, "extract", "photos", *TRUNK, "--json", **setting).stdout)
        for setting in ({}, plain)
    )
    assert one["table_id"] == other["table_id"] and other["extracted"] == 0
    assert tuple(other["classes"]) == CLASSES


def test_json_is_json_in_an_encoding_that_lacks_its_characters(work):
    done = pipeline(work, "predict", "photos", "--json", PYTHONIOENCODING="latin-1")
    assert {one["prediction"] for one in json.loads(done.stdout)["predictions"]} <= set(CLASSES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_a_redirect_is_an_error_in_one_sentence(work):
    with open("/dev/full", "wb") as full:
        done = pipeline(work, "heads", stdout=full)
    told = done.stderr.decode()
    assert done.returncode == 1 and "Exception" not in told and "Traceback" not in told, told
    assert told.rstrip().rpartition("\n")[2].startswith("Error: No space left on device.")


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
@pytest.mark.parametrize("how", ['exec >&-; "$@"', 'exec >&- 2>&-; "$@"', '"$@" | head -1'])
def test_closed_streams_and_readers_that_leave_end_no_work(work, how):
    done = pipeline(work, "heads", shell=how)
    told = done.stderr.decode()
    assert done.returncode == 0 and "Exception" not in told and "Traceback" not in told, told
