"""A folder of everything that breaks image readers goes through the whole of `extract`."""

import json
import subprocess
import sys
from collections import Counter

import pytest
from conftest import shared

#: Runs a command and writes its peak memory: a child of the tests themselves would inherit theirs.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
NOT_AN_IMAGE = "not a JPEG, PNG, WebP, GIF, BMP or TIFF file"
BAD = {
    "damaged, or a variant of its format that is not read": 35,
    "damaged": 29,
    "truncated": 10,
    "more pixels than the limit of 178,956,970": 6,
    NOT_AN_IMAGE: 6,  # and called one
    "signed or 32-bit integer samples, which have no agreed range": 2,
    "floating point samples outside 0 to 1": 1,
}


@pytest.mark.slow
def test_every_odd_file_ends_as_a_row_or_a_reason_without_a_word_and_in_bounded_memory(tmp_path):
    folder = shared("odd_images")
    words = ["--trunk", "resnet18", "--weights", "random", "--image-size", "32", "--workers", "4"]
    command = [sys.executable, "-m", "pipeline", "extract", folder, *words, "--json",
               "--cache", tmp_path / "cache"]  # fmt: skip
    with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
        code = subprocess.call(
            [sys.executable, "-c", MEASURED, tmp_path / "peak", *command], stdout=out, stderr=err
        )
    assert (code, (tmp_path / "err").read_text()) == (0, "")
    done = json.loads((tmp_path / "out").read_text())
    assert Counter(entry["reason"] for entry in done["bad"]) == BAD
    assert Counter(entry["reason"] for entry in done["left_out"]) == {NOT_AN_IMAGE: 115}
    assert done["rows"] == done["extracted"] + done["reused"] == 944
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    reasons = {entry["path"] for entry in done["bad"] + done["left_out"]}
    assert reasons < files and len(files) == 944 + len(reasons)
    assert int((tmp_path / "peak").read_text()) < 2_500_000, (
        "kB, half a gigabyte of them the libraries'"
    )
