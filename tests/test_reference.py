"""docs/reference.md says what the help texts say."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))


def test_the_reference_is_what_the_help_texts_make():
    import make_reference

    assert make_reference.PAGE.read_text() == make_reference.page(), (
        "docs/reference.md is not what the help texts say; remake it with "
        "`python scripts/make_reference.py`"
    )


def test_the_reference_has_every_command_and_option(monkeypatch, tmp_path):
    import make_reference

    from pipeline.cli import COMMANDS

    made = make_reference.page()
    for name in (*COMMANDS, "cache gc"):
        assert f"## pipeline {name}\n" in made and f"Usage: pipeline {name}" in made
    assert "--log-file FILE" in made and "--extract-batch-size N" in made
    # neither the width of a terminal nor remembered options change it
    (tmp_path / "pipeline.toml").write_text('[extract]\ntrunk = "resnet18"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    assert make_reference.page() == made
