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
    "a variant of its format that is not read": 29,
    "damaged": 29,
    "truncated": 10,
    "more pixels than the limit of 178,956,970": 6,
    NOT_AN_IMAGE: 6,  # and called one
    "signed or 32-bit integer samples, which have no agreed range": 4,
    "floating point samples outside 0 to 1": 2,
    **{
        f"a variant of TIFF that is not read ({kind})": 1
        for kind in (
            "CMYK, 8-bit unsigned, 5 samples, LZW",
            "RGB, 32-bit unsigned, uncompressed",
            "RGB, 8-bit unsigned, WebP",
            "grey, 8-bit unsigned, 65535 samples, deflate",
        )
    },
}
LEFT_OUT = {"TGA": 53, "Windows icon": 22, "JPEG 2000": 13, "PNM": 10}


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
    named = {f"{kind}, which is not read": count for kind, count in LEFT_OUT.items()}
    assert Counter(entry["reason"] for entry in done["left_out"]) == {**named, NOT_AN_IMAGE: 2}
    assert done["rows"] == done["extracted"] + done["reused"] == 958
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    reasons = {entry["path"] for entry in done["bad"] + done["left_out"]}
    assert reasons < files and len(files) == 958 + len(reasons)
    assert int((tmp_path / "peak").read_text()) < 2_500_000, (
        "kB, half a gigabyte of them the libraries'"
    )
