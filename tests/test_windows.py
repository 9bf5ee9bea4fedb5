"""Where the cache cannot be kept, a sentence says so; importing and the help work."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import locks
from pipeline.errors import PipelineError

LIKE_WINDOWS = (
    "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None; import pipeline; "
)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", LIKE_WINDOWS + code], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip


def test_importing_the_package_and_the_programs_help_work():
    assert run("pipeline.PipelineError; pipeline.__version__").returncode == 0
    done = run("from pipeline.cli import main; main(['--help'])")
    assert done.returncode == 0 and "fit-head" in done.stdout


@pytest.mark.parametrize("name", ["extract", "fit_head", "predict", "TrunkFeatures", "run"])
def test_a_public_function_says_that_windows_is_not_supported(name):
    done = run(f"""
try:
    pipeline.{name}
except pipeline.PipelineError as error:
    print(error)
""")
    assert done.stdout.startswith("Headstart does not support Windows yet"), done.stderr


def test_a_command_says_so_in_one_line():
    done = run("from pipeline.cli import main; main(['extract', 'photos'])")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: Headstart does not support Windows yet")


def test_any_call_that_is_lacking_counts(monkeypatch):
    locks.check_system()
    monkeypatch.delattr(locks.os, "O_DIRECTORY")
    with pytest.raises(PipelineError, match="WSL"):
        locks.check_system()
