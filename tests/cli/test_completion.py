"""`pipeline completion`, and what the shells are told of commands, options and values."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from tables import make_table

from pipeline.cli import COMMANDS, main
from pipeline.heads.registry import HEADS


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


def answers(line, shell="bash", folder=None, **more):
    """Return what a shell is told of the last word of a line, as (kind, value)."""
    words = line.split(" ")
    env = {"_PIPELINE_COMPLETE": f"{shell}_complete", "COMP_WORDS": line,
           "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1)}  # fmt: skip
    done = CliRunner(env={**env, **more}).invoke(main, [], prog_name="pipeline")
    assert done.exit_code == 0, done.output
    return [line for line in done.stdout.splitlines() if line]


def values(line, **more):
    return [answer.partition(",")[2] for answer in answers(line, **more)]


def test_commands_and_options_are_completed():
    assert values("pipeline ") == list(COMMANDS)
    assert values("pipeline fi") == ["fit-head", "finetune"]
    assert values("pipeline cache v") == ["verify"]
    assert values("pipeline run --un") == ["--unfreeze"]
    assert "--log-file" in values("pipeline cache gc --")


def test_kinds_of_heads_are_completed_behind_a_comma_too():
    assert values("pipeline fit-head --clf ") == [*HEADS, "all"]
    assert values("pipeline run --clf knn,lo") == ["knn,logreg"]
    assert "logreg" in values("pipeline finetune lo")


def test_choices_are_those_that_the_help_names():
    assert values("pipeline run --precision ") == ["auto", "fp32", "bf16", "fp16"]
    assert values("pipeline finetune --schedule c") == ["cosine", "constant"]
    assert values("pipeline extract --layer ") == [
        "stem", "layer1", "layer2", "layer3", "layer4", "neck",
    ]  # fmt: skip
    assert values("pipeline finetune --unfreeze la")[-1] == "layer4"
    assert values("pipeline finetune --epochs ") == []


def test_paths_are_left_to_the_shell():
    assert answers("pipeline extract dig") == ["plain,digits", "file,dig"]
    assert answers("pipeline extract --cache x") == ["dir,x"]
    assert answers("pipeline extract --weights ran") == ["plain,random", "file,ran"]


def test_tables_of_the_cache_are_completed_and_no_cache_is_made(tmp_path):
    make_table(tmp_path / "c" / "tables" / "photos--x--0.h5")
    line = f"pipeline fit-head --cache {tmp_path / 'c'} ph"
    assert "photos--x--0" in values(line)
    assert "photos--x--0" in values("pipeline heads ", PIPELINE_CACHE=str(tmp_path / "c"))
    assert values(f"pipeline heads --cache {tmp_path / 'no'} x") == ["x"]
    assert not (tmp_path / "no").exists()


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
    env = {**os.environ, "_PIPELINE_COMPLETE": "bash_complete", "COMP_CWORD": "3",
           "COMP_WORDS": "pipeline run --clf log"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert "logreg" in done.stdout and "HEAVY []" in done.stdout
