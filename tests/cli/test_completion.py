"""`pipeline completion`, and what the shells are told of commands and options."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline.cli import COMMANDS, main


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o nosort -F _pipeline_completion pipeline"),
        ("zsh", "#compdef pipeline"),
        ("fish", "complete --no-files --command pipeline"),
    ],
)
def test_the_script_is_printed(shell, line):
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0 and line in done.stdout and "_PIPELINE_COMPLETE" in done.stdout


def test_another_shell_is_refused():
    done = CliRunner().invoke(main, ["completion", "csh"])
    assert done.exit_code == 2 and "'bash', 'zsh', 'fish'" in done.stderr


def answers(line, shell="bash"):
    """Return what a shell is told of the last word of a line, as (kind, value)."""
    words = line.split(" ")
    env = {"_PIPELINE_COMPLETE": f"{shell}_complete", "COMP_WORDS": line,
           "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1)}  # fmt: skip
    done = CliRunner(env=env).invoke(main, [], prog_name="pipeline")
    assert done.exit_code == 0, done.output
    return [line for line in done.stdout.splitlines() if line]


def values(line):
    return [answer.partition(",")[2] for answer in answers(line)]


def test_commands_and_options_are_completed():
    assert values("pipeline ") == list(COMMANDS)
    assert values("pipeline fi") == ["fit-head", "finetune"]
    assert values("pipeline cache v") == ["verify"]
    assert values("pipeline run --un") == ["--unfreeze"]
    assert "--log-file" in values("pipeline cache gc --")


def test_zsh_and_fish_are_answered():
    assert answers("pipeline sta", shell="zsh")[:2] == ["plain", "status"]
    assert answers("pipeline sta", shell="fish")[0].startswith("plain,status\t")


def test_what_is_no_command_is_no_trouble():
    assert answers("pipeline nosuch --tr") == []


def test_no_completion_loads_anything_heavy():
    program = (
        "import sys\nfrom pipeline.cli import main\n"
        "try: main(prog_name='pipeline')\nexcept SystemExit: pass\n"
        "heavy = 'torch', 'torchvision', 'timm', 'sklearn', 'scipy'\n"
        "print('HEAVY', [name for name in heavy if name in sys.modules])"
    )
    env = {**os.environ, "_PIPELINE_COMPLETE": "bash_complete", "COMP_CWORD": "2",
           "COMP_WORDS": "pipeline run --cl"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert "--clf" in done.stdout and "HEAVY []" in done.stdout
