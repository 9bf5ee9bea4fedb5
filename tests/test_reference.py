"""docs/reference.md says what the help texts say."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
PAGE = SCRIPTS.parent / "docs" / "reference.md"


def made(folder: Path, **environment: str) -> str:
    """Return the page as a new process in this folder makes it.

    A new one, since click keeps a command's help option as the first call made it.
    """
    code = "import make_reference as m; print(m.page(), end='')"
    paths = f"{SCRIPTS}{os.pathsep}{SCRIPTS.parent}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )
    return done.stdout


def test_the_reference_is_what_the_help_texts_make(tmp_path):
    assert PAGE.read_text() == made(tmp_path), (
        "docs/reference.md is not what the help texts say; remake it with "
        "`python scripts/make_reference.py`"
    )


def test_the_reference_has_every_command_and_option(tmp_path):
    from pipeline.cli import COMMANDS

    page = PAGE.read_text()
    for name in (*COMMANDS, "cache gc"):
        assert f"## pipeline {name}\n" in page and f"Usage: pipeline {name}" in page
    assert "--log-file FILE" in page and "--extract-batch-size N" in page
    # neither the width of a terminal nor remembered options change it
    (tmp_path / "pipeline.toml").write_text('[extract]\ntrunk = "resnet18"\n')
    assert made(tmp_path, COLUMNS="40") == page
