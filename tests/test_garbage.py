"""A process that runs one command looks for garbage seldom; a program of a person's as it did."""

import gc
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.garbage import THRESHOLDS


@pytest.mark.parametrize("words", [["--help"], ["trunks", "resnet18"]])
def test_the_program_looks_seldom_and_not_at_its_end(words):
    program = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print('told', *gc.get_threshold(), gc.get_freeze_count() > 0))\n"
        "from pipeline.cli import main\n"
        "main(prog_name='pipeline')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith(f"told {' '.join(map(str, THRESHOLDS))} True\n")


def test_a_program_that_calls_it_keeps_its_own_thresholds():
    before = gc.get_threshold()
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0
