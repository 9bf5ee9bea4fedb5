import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import make_folder, picture

from pipeline.cli import COMMANDS, main
from pipeline.extraction.options import ExtractOptions

ROOT = Path(__file__).parents[2]


def invoke(*args, cache=None):
    words = [str(a) for a in args] + (["--cache", str(cache)] if cache else [])
    return CliRunner().invoke(main, words)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


def test_every_command_has_help_with_an_example_that_names_it():
    for name in COMMANDS:
        result = invoke(name, "--help")
        assert result.exit_code == 0
        assert re.search(rf"Examples?:\n\s+pipeline {name}", result.output), name


def test_every_field_of_the_recipe_is_an_option_and_the_other_way_round():
    from pipeline.cli.commands.extract import command

    options = {p.name for p in command.params if isinstance(p, click.Option)}
    assert options - {"cache", "as_json", "part"} == set(ExtractOptions.__dataclass_fields__)
    with command.make_context("extract", []) as context:
        given = {
            k: v for k, v in context.params.items() if k in ExtractOptions.__dataclass_fields__
        }
    assert ExtractOptions(**given) == ExtractOptions()


def test_json_is_one_object_and_nothing_else(folder, tmp_path, fake_trunk):
    (folder / "ants" / "half.png").write_bytes(picture(1)[:90])
    result = invoke("extract", folder, "--json", cache=tmp_path / "c")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert result.stderr == ""
    wanted = "table fingerprint trunk images extracted reused bad dim classes splits precision"
    assert set(wanted.split()) | {"engine", "seconds", "images_per_second"} <= set(values)
    assert (values["images"], values["extracted"], values["reused"]) == (21, 20, 0)
    assert values["bad"][0]["path"] == "ants/half.png" and values["bad"][0]["reason"]
    assert sum(values["splits"].values()) == 20 and values["dim"] == 11


def test_the_summary_says_where_the_table_is_and_what_was_done(folder, tmp_path, fake_trunk):
    (folder / "ants" / "notes.txt").write_text("x")
    result = invoke("extract", folder, cache=tmp_path / "c")
    assert result.exit_code == 0
    for part in (
        "Table ",
        "20 images × 11 features",
        "Classes  2: ants, bees",
        "20 extracted, 0 reused, 0 bad, 1 left out",
        "left-out.csv",
        "images/s",
    ):
        assert part in result.stdout, part
    again = invoke("extract", folder, cache=tmp_path / "c")
    assert "0 extracted, 20 reused" in again.stdout


def test_names_that_are_not_utf8_are_kept_and_shown(tmp_path, fake_trunk):
    folder = make_folder(tmp_path / "photos", each=2)
    odd = bytes(folder / "ants") + b"/na\xefve.png"
    with open(odd, "wb") as file:
        file.write(picture(1))
    result = invoke("extract", folder, "--json", cache=tmp_path / "c")
    assert result.exit_code == 0, result.output
    from pipeline.store.table import FeatureTable

    table = FeatureTable.open(json.loads(result.stdout)["table"])
    assert "ants/na\udcefve.png" in table.paths
    assert invoke("extract", folder, cache=tmp_path / "c").exit_code == 0


ERRORS = [
    (["extrct"], 2, r"no command 'extrct'. Did you mean extract"),
    (["extract", "--trnk", "x"], 2, r"(?i)no such option.*--trnk.*--trunk"),
    (["extract", "{folder}", "--precision", "fp23"], 2, r"Did you mean fp32"),
    (["extract", "{folder}", "--pool", "mean"], 2, r"--pool 'mean' is not one of avg, max"),
    (["extract", "{folder}", "--trunk", "resnet81"], 2, r"no trunk 'resnet81'.*resnet18"),
    (["extract", "{folder}", "--trunk", "timm/twins_svt_small"], 2, r"cannot be cut"),
    (["extract", "{folder}", "--weights", "nowhere.pth"], 2, r"nowhere.pth"),
    (["extract", "{folder}", "--trunk", "resnet18", "--weights", "IMAGENET"], 2, r"IMAGENET1K_V1"),
    (["extract", "{folder}", "--layer", "neck"], 2, r"efficientnet_lite0 has no layer 'neck'"),
    (["extract", "{tmp}/nothing"], 2, r"no folder or file"),
    (["extract", "digit"], 2, r"Did you mean digits\?"),
    (["extract", "{tmp}/empty"], 1, r"empty|no images"),
    (
        ["extract", "{folder}", "--val-fraction", "0.9", "--test-fraction", "0.2"],
        2,
        r"leave nothing to train on",
    ),
    (["extract", "{folder}", "--device", "cuda"], 2, r"has no cuda"),
    (["extract", "{folder}", "--workers", "0"], 2, r"--workers 0 is below 1"),
    (["trunks", "nosuchthing"], 2, r"No trunk's name holds 'nosuchthing'"),
    (["cache", "vrify"], 2, r"vrify"),
]


@pytest.mark.parametrize(("words", "code", "text"), ERRORS, ids=lambda v: str(v)[:40])
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(folder, tmp_path, words, code, text):
    import torch

    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    (tmp_path / "empty").mkdir()
    words = [word.format(folder=folder, tmp=tmp_path) for word in words]
    cached = words[0] == "extract" and "--trnk" not in words
    result = invoke(*words, cache=tmp_path / "c" if cached else None)
    assert result.exit_code == code, result.output
    assert re.search(text, result.stderr.replace("\n", " ")), result.stderr
    assert "Traceback" not in result.output and result.stdout == ""


def test_a_download_without_a_network_says_what_to_pass_instead(folder, tmp_path):
    program = [
        sys.executable,
        "-m",
        "pipeline",
        "extract",
        str(folder),
        "--trunk",
        "resnet18",
        "--cache",
        str(tmp_path / "c"),
    ]
    # a proxy that refuses stands for a machine without a network
    blocked = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "HTTPS")}
    import os

    env = {**os.environ, **blocked, "TORCH_HOME": str(tmp_path / "torch"), "no_proxy": ""}
    done = subprocess.run(program, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert "--weights FILE" in done.stderr and "--weights random" in done.stderr


def test_status_and_cache_commands_tell_what_is_there(folder, tmp_path, fake_trunk):
    cache = tmp_path / "c"
    assert "No table" in invoke("status", cache=cache).output
    invoke("extract", folder, cache=cache)
    invoke("extract", folder, "--seed", "1", "--name", "other", cache=cache)
    lines = invoke("status", cache=cache).output.splitlines()
    assert lines[0].startswith("* other--efficientnet_lite0--")
    assert lines[1].startswith("  photos--efficientnet_lite0--")
    assert json.loads(invoke("status", "--json", cache=cache).output)["tables"][0]["current"]
    assert "rows" in invoke("cache", "info", cache=cache).output
    assert "0 damaged or missing" in invoke("cache", "verify", cache=cache).output
    shard = next(cache.glob("rows/*/??/*.h5"))
    shard.write_bytes(b"x")
    broken = invoke("cache", "verify", cache=cache)
    assert broken.exit_code == 1 and "its sha256 is not its name" in broken.output
    assert "To repair, computing only what is lost: pipeline extract" in broken.output


def test_gc_shows_first_and_removes_only_when_told(folder, tmp_path, fake_trunk):
    cache = tmp_path / "c"
    invoke("extract", folder, cache=cache)
    next((cache / "tables").glob("*.h5")).unlink()
    shown = invoke("cache", "gc", "--dry-run", cache=cache)
    assert shown.exit_code == 0 and "1 unreferenced file," in shown.output
    asked = invoke("cache", "gc", cache=cache)
    assert asked.exit_code == 1 and "give --yes" in asked.output
    assert list(cache.glob("rows/*/??/*.h5"))
    assert "Removed" in invoke("cache", "gc", "--yes", cache=cache).output
    assert not list(cache.glob("rows/*/??/*.h5"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_kill_leave_what_was_done_and_say_how_to_go_on(tmp_path, number, code):
    folder = make_folder(tmp_path / "photos", each=40)
    program = (
        "import time\n"
        "from pipeline.store.shards import RowStore\n"
        "from pipeline.extraction import plan; plan.SHARD_ROWS = 4\n"
        "commit = RowStore.commit\n"
        "def slowly(*args, **kwargs): time.sleep(0.3); return commit(*args, **kwargs)\n"
        "RowStore.commit = slowly\n"
        "from pipeline.cli import main; main(prog_name='pipeline')"
    )
    words = [
        "extract",
        str(folder),
        "--image-size",
        "64",
        "--batch-size",
        "4",
        "--cache",
        str(tmp_path / "c"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stderr=subprocess.PIPE,
        text=True,
        # a background job is started with Ctrl-C ignored, and hands that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("c/rows/*/??/*.h5")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == code
    assert re.search(r"\d+ of 80 images are in the cache", error)
    assert "the same command goes on" in error and "Traceback" not in error


def commands_in(path: Path) -> list[str]:
    """Return the `pipeline …` lines in a page's code blocks, but not those of Python or output."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.S | re.M)
    lines = [  # a help text explains a command two spaces behind it
        re.split("  " if language == "text" else "$", line.strip())[0].replace(".venv/bin/", "")
        for language, block in (blocks or [("", path.read_text())])
        if language in ("", "bash", "console", "sh", "text")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line.startswith("pipeline ")]


PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "scripts" / "demo",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_in_the_documentation_parses(path):
    for line in commands_in(path):
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)[1:]
            ends = [words.index(sign) for sign in ("|", ">") if sign in words]
            parse(main, words[: min(ends, default=None)])


def parse(command: click.Command, words: list[str]) -> None:
    """Parse a command line as the program does, up to where it would run."""
    with command.make_context("pipeline", list(words)) as context:
        while isinstance(command, click.Group):
            kept = vars(context)  # with another name in click 8.1, and none from 9 on
            protected = kept.get("_protected_args") or kept.get("protected_args") or []
            rest = [*protected, *context.args]
            assert rest or not words, words
            if not rest:
                return
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(
    "words", [["fit-heda"], ["heads", "--nosuch"], ["finetune", "--epochs", "ten"], ["cache", "x"]]
)
def test_the_guard_of_the_documentation_can_fail(words):
    with pytest.raises(click.UsageError):
        parse(main, words)
