"""`pipeline.toml`: what it gives, that the command line wins, and how faults are told."""

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import make_folder

from pipeline.cli import COMMANDS, main, settings
from pipeline.workflow.options import SETTINGS, only_finetune


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here):
    return make_folder(here / "photos", each=4)


def call(text, *words):
    Path("pipeline.toml").write_text(text)
    return CliRunner().invoke(main, [str(word) for word in words])


def test_options_come_from_the_file_are_told_once_and_the_command_line_wins(
    here, photos, fake_trunk
):
    text = '[extract]\nname = "other"\nbatch-size = 2\ncache = "c"\nrehash = true\n'
    done = call(text, "extract", "photos")
    assert done.exit_code == 0, done.output
    told = "From pipeline.toml: --batch-size 2 --name other --rehash --cache c\n"
    assert done.stderr.count(told) == 1
    assert list((here / "c" / "tables").glob("other--*.h5")) and max(fake_trunk.batches) == 2
    done = call(text, "extract", "photos", "--name", "mine", "--batch-size", "3")
    assert "From pipeline.toml: --rehash --cache c\n" in done.stderr
    assert list((here / "c" / "tables").glob("mine--*.h5"))


def test_json_stays_quiet(here, photos, fake_trunk):
    done = call('[extract]\ncache = "c"\n', "extract", "photos", "--json")
    assert done.stderr == "" and json.loads(done.stdout)["images"] == 8
    done = call('[extract]\ncache = "c"\njson = true\n', "extract", "photos")
    assert done.stderr == "" and json.loads(done.stdout)["reused"] == 8


def test_without_a_file_nothing_is_told(here, photos, fake_trunk):
    done = CliRunner().invoke(main, ["extract", "photos", "--cache", "c"])
    assert done.exit_code == 0 and "pipeline.toml" not in done.output


FAULTS = [
    ("[extrct]\n", r"no command for the section \[extrct\]. Did you mean extract"),
    ("[cache.vrify]\n", r"section \[cache.vrify\]. Did you mean verify"),
    ("[extract]\ntrnk = 'x'\n", r"pipeline.toml: \[extract\] has no option trnk. Did you mean tru"),
    ("trunk = 'x'\n", r"trunk stands outside of a section.*such as \[run\]"),
    ("[finetune]\nlive = 1\n", r"live in \[finetune\] must be true or false, not 1"),
    ("[extract\n", r"pipeline.toml is not TOML"),
    ("[extract]\nx = '\udcff'\n", r"pipeline.toml is not TOML"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS, ids=lambda value: value[:24])
def test_faults_name_file_key_and_the_nearest_right_name(here, text, message):
    (here / "pipeline.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    done = CliRunner().invoke(main, ["status", "--cache", "c"])
    assert done.exit_code == 2 and done.stdout == ""
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.output


VALUES = [
    ("[finetune]\nepochs = 'ten'\n", r"'--epochs': 'ten' is not a valid integer"),
    ("[finetune]\nepochs = true\n", r"'--epochs': 'True' is not a valid integer"),
    ("[finetune]\nepochs = 2.5\n", r"'--epochs': '2.5' is not a valid integer"),
    ("[finetune]\nepochs = [1, 2]\n", r"'--epochs': '\[1, 2\]' is not a valid integer"),
    ("[finetune]\nlr = 'x'\n", r"'--lr': 'x' is not a valid float"),
    ("[evaluate]\ncompare = ['a']\n", r"'--compare': Takes 2 values but 1 was given"),
    ("[show]\nclass = 'a'\n", r"'--class': Value must be an iterable"),
]


@pytest.mark.parametrize(("text", "message"), VALUES, ids=lambda value: value[:24])
def test_a_value_that_is_none_is_refused_as_on_the_command_line_and_names_the_file(
    here, text, message
):
    done = call(text, text[1 : text.index("]")], "--cache", "c")
    assert done.exit_code == 2 and done.stdout == "" and not (here / "c").exists()
    assert re.search(message + r"\. It stands in pipeline.toml\.$", done.stderr), done.stderr
    other = CliRunner().invoke(main, ["status", "--cache", "c"])
    assert other.exit_code == 0  # which has nothing to do with that section


def test_all_faults_come_in_one_message_and_nothing_is_done(here, photos, fake_trunk):
    text = "[extract]\nx = 1\nrehash = 'x'\n[y]\n"
    done = call(text, "extract", "photos", "--cache", "c")
    assert done.exit_code == 2 and not (here / "c").exists()
    for part in ("no option x", "rehash in [extract]", "section [y]"):
        assert part in done.stderr


def test_a_file_that_cannot_be_read_is_a_sentence(here):
    (here / "pipeline.toml").mkdir()
    done = CliRunner().invoke(main, ["status"])
    assert done.exit_code == 1 and "pipeline.toml cannot be read: Is a directory" in done.stderr


def every_option():
    """Yield each command's words and each of its options, groups' commands included."""
    context = click.Context(main)

    def walk(words, command):
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                yield from walk((*words, name), command.get_command(context, name))
            return
        for param in command.params:
            if isinstance(param, click.Option) and param.name != "log_file":
                yield words, param

    for name in COMMANDS:
        yield from walk((name,), main.get_command(context, name))


def given(param):
    """Return a value for TOML, and the words that say the same on the command line."""
    name = param.opts[-1]
    if param.is_flag:
        return "true", [name]
    one, text = {"integer": ("7", "7"), "float": ("0.625", "0.625")}.get(
        param.type.name, ("'seven'", "seven")
    )
    if param.nargs > 1:
        return f"[{', '.join([one] * param.nargs)}]", [name, *[text] * param.nargs]
    if param.multiple:
        return f"[{one}, {one}]", [name, text, name, text]
    return one, [name, text]


@pytest.mark.parametrize(
    ("words", "param"),
    [*every_option()],
    ids=lambda v: v.name if hasattr(v, "name") else " ".join(v),
)
def test_the_file_says_what_the_command_line_says(here, words, param):
    value, typed = given(param)
    third = words == ("run",) and param.name in SETTINGS and only_finetune(param.name)
    more = ["--unfreeze", "layer4"] if third else []
    key = param.opts[-1].removeprefix("--")
    (here / "pipeline.toml").write_text(f"[{'.'.join(words)}]\n{key} = {value}\n")
    context = click.Context(main, **main.context_settings)
    command, found = main, settings.read(main, context)
    for word in words:
        command, found = command.get_command(context, word), found[word]

    def parsed(*more, **extra):
        return command.make_context(words[-1], [*more], parent=context, **extra)

    from_file, from_line = parsed(*more, default_map=found), parsed(*more, *typed)
    assert from_file.params == from_line.params != parsed(*more).params
    assert settings.taken(from_file) == " ".join(typed)


def run_context(text, *words):
    Path("pipeline.toml").write_text(text)
    context = click.Context(main, **main.context_settings)
    context.invoked_subcommand = "run"
    command = main.get_command(context, "run")
    found = settings.read(main, context)["run"]
    return command.make_context("run", list(words), parent=context, default_map=found)


STAGES = """
[extract]
trunk = "resnet18"
precision = "fp32"
batch-size = 4
cache = "c"
[fit-head]
clf = "lda"
seed = 5
select-on = "val"
[finetune]
lr = 0.5
precision = "bf16"
batch-size = 8
"""


def test_run_falls_back_on_the_sections_of_its_stages(here):
    found = run_context(STAGES, "--unfreeze", "layer4").params
    assert (found["trunk"], found["clf"], found["lr"]) == ("resnet18", "lda", 0.5)
    assert (found["extract_batch_size"], found["batch_size"]) == (4, 8)
    assert found["fit_head_select_on"] == "val" and found["cache"] == "c"
    # what all stages share comes from [extract]
    assert found["precision"] == "fp32" and found["seed"] == 0


def test_the_section_of_run_and_the_command_line_come_first(here):
    text = STAGES + '[run]\ntrunk = "vgg11"\nclf = "knn"\nunfreeze = "layer3"\n'
    found = run_context(text, "--clf", "nb").params
    assert (found["trunk"], found["clf"], found["unfreeze"]) == ("vgg11", "nb", "layer3")


def test_options_of_stage_three_are_not_taken_where_nothing_asks_for_it(here):
    context = run_context(STAGES)
    assert "--lr" not in settings.taken(context) and "--trunk resnet18" in settings.taken(context)
    assert "--lr 0.5" in settings.taken(run_context(STAGES, "--unfreeze", "layer4"))
    done = call(STAGES + '[run]\npool = "mean"\n', "run", "nowhere")
    assert "--pool 'mean' is not one of" in done.stderr
    assert "add --unfreeze" not in done.stderr  # nobody typed --lr
