"""docs/formats.md says what the decoder does with the files that its script writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import features

SCRIPTS = Path(__file__).parents[1] / "scripts"
PAGE = SCRIPTS.parent / "docs" / "formats.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("tifffile")
    pytest.importorskip("pillow_heif")
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    done = subprocess.run(
        [sys.executable, "-c", "import make_formats as m; print(m.page(), end='')"],
        capture_output=True, text=True, check=True, cwd=tmp_path_factory.mktemp("empty"),
        env={**os.environ, "PYTHONPATH": f"{SCRIPTS}:{SCRIPTS.parent}"},
    )  # fmt: skip
    return done.stdout


def test_the_page_is_what_its_script_makes(made):
    assert PAGE.read_text() == made, (
        "docs/formats.md is not what the decoder does; look why, and remake it with "
        "`python scripts/make_formats.py`"
    )


def test_no_file_of_the_page_comes_out_as_other_pixels(made):
    assert "other pixels" not in made
    assert made.count("| read") > 80
