"""`pipeline run` as a person sees it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import make_folder
from photos import paint

from pipeline.cli import main
from pipeline.cli.commands.run import command as bare
from pipeline.extraction import compute
from pipeline.extraction.options import ExtractOptions
from pipeline.finetuning.options import FinetuneOptions
from pipeline.heads.options import FitHeadOptions
from pipeline.trunks.engines import openvino_engine
from pipeline.workflow.options import SETTINGS, RunOptions

TRUNK = ("--trunk", "resnet18", "--weights", "random", "--image-size", "64", "--precision", "fp32",
         "--engine", "torch", "--folds", "2", "--clf", "logreg,ncm")  # fmt: skip
STAGED = (*TRUNK, "--unfreeze", "layer4", "--epochs", "1", "--views", "1")


@pytest.fixture(autouse=True, scope="module")
def torch_alone():
    """Converting a trunk for OpenVINO takes longer than running it on a few small pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_engine, "available", lambda: False)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    paint(root / "photos", each=8)
    return root


@pytest.fixture(scope="module")
def first(work):
    done = call(work, *STAGED)
    assert done.exit_code == 0, done.output
    return done


def call(work, *words):
    words = ["run", str(work / "photos"), *words, "--cache", str(work / "cache")]
    return CliRunner().invoke(main, words)


def test_it_shows_each_stage_and_ends_with_what_was_made_what_it_cost_and_what_next(first, work):
    out = first.stdout
    assert re.findall(r"Stage (\d) of 3: (\w+)", first.stderr) == [
        ("1", "features"), ("2", "heads"), ("3", "layer4"),
    ]  # fmt: skip
    for text in ("32 extracted, 0 reused", "selection", "its head", "layer4 unfrozen, kept: epoch"):
        assert text.replace("its head", "head [95%]") in out, text
    summary = out[out.rindex("\nTable    ") :]
    head = re.search(r"Head     (\w{12}) (?:logreg|ncm), the best of 2: val \d", summary)[1]
    model = re.search(r"Model    (\w{12}) layer4 unfrozen, (beats|does not beat) its head: .*val",
                      summary)  # fmt: skip
    costs = {
        line.split("  ")[0]: line.split()[-4:] for line in summary.splitlines() if "  " in line
    }
    assert costs["features"][1:] == ["32", "0", "0.0"]
    assert costs["heads"][1:] == ["0", "0", "0.0"]
    assert costs["page"][1:] == ["0", "0", "0.0"] and float(costs["page"][0]) > 0
    assert costs["fine-tuning"][1] == "44" and int(costs["fine-tuning"][2]) >= 0
    best = model[1] if model[2] == "beats" else head
    for verb in ("predict", "evaluate", "export"):
        assert f"pipeline {verb} {best} " in summary and f"--cache {work / 'cache'}" in summary


def test_it_ends_with_a_page_which_the_same_again_leaves_as_it_is(first, work):
    path = Path(re.search(r"^Report   (\S+), made in [\d.]+ s$", first.stdout, re.M)[1])
    html = path.read_bytes()
    assert b"<!doctype html>" in html and path.with_name(f"{path.stem}.audit.csv").is_file()
    again = call(work, *STAGED)
    assert f"Report   {path}, unchanged\n" in again.stdout
    assert path.read_bytes() == html
    assert "pipeline report" not in again.stdout  # among what to type next


def test_without_a_report_the_summary_says_how_to_make_one(first, work):
    done = call(work, *STAGED, "--no-report")
    assert done.exit_code == 0 and "\nReport   " not in done.stdout
    assert f"pipeline report --cache {work / 'cache'}" in done.stdout


def test_what_it_says_to_type_next_runs(first, work, monkeypatch):
    lines = first.stdout[first.stdout.rindex("\nNext") :].splitlines()[2:]
    commands = [re.split(r"  +", line.strip())[0] for line in lines]
    assert len(commands) >= 2
    (predict,) = (line for line in commands if line.startswith("pipeline predict"))
    words = predict.replace("IMAGES", str(work / "photos" / "val")).split()[1:]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 16


def test_the_second_run_computes_nothing_and_loads_no_torch(first, work):
    words = ["run", str(work / "photos"), *STAGED, "--cache", str(work / "cache"), "--json"]
    program = (
        "import sys\nfrom pipeline.cli import main\n"
        f"main({words!r}, standalone_mode=False)\n"
        "print([name for name in ('torch', 'sklearn') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"
    values = json.loads(done.stdout)
    assert (values["extract"]["extracted"], values["extract"]["reused"]) == (0, 32)
    assert len(values["fit-head"]["reused"]) == 2 and values["finetune"]["reused"]
    stages = ["features", "heads", "fine-tuning", "page"]
    assert [(cost["stage"], cost["passes"]) for cost in values["costs"]] == [
        (stage, 0) for stage in stages
    ]
    assert values["best"]["id"] in first.stdout
    keys = {"extract", "fit-head", "finetune", "best", "report", "costs", "seconds"}
    assert set(values) == keys


def test_only_the_learning_rate_changed_reruns_stage_three_without_a_pass(first, work, monkeypatch):
    monkeypatch.setattr(compute, "compute_part", None)
    done = call(work, *STAGED, "--lr", "1e-3")
    assert done.exit_code == 0, done.output
    assert "0 extracted, 32 reused" in done.stdout and "Reused   2 heads" in done.stdout
    assert "epoch 1/1  train" in done.stderr
    assert re.search(r"^fine-tuning +[\d.]+ +0 +[1-9]", done.stdout, re.M)


def test_without_unfreeze_it_ends_with_the_heads_and_says_how_to_go_on(first, work):
    done = call(work, *TRUNK, "--clf", "logreg")
    assert done.exit_code == 0 and "Stage 2 of 2" in done.stderr
    assert "Model " not in done.stdout and "fine-tuning  " not in done.stdout
    assert re.search(r"pipeline finetune \w{12} --unfreeze layer4 --cache", done.stdout)
    assert "pipeline fit-head --clf all" in done.stdout


def test_every_option_of_the_stages_is_one_of_run_with_its_default():
    context = bare.make_context("run", [])
    names = {param.name for param in bare.params if isinstance(param, click.Option)}
    assert names == set(SETTINGS) | {"report", "cache", "as_json"}
    values = {name: value for name, value in context.params.items() if name in SETTINGS}
    stages = ExtractOptions(), FitHeadOptions(), FinetuneOptions(resume=None)
    assert RunOptions.of(values) == RunOptions(*stages, tunes=False)
    tuned = RunOptions.of({**values, "unfreeze": "layer4"})
    assert tuned == RunOptions(*stages, tunes=True)


def test_its_help_sorts_the_options_by_stage():
    text = CliRunner().invoke(main, ["run", "--help"]).output
    titles = ["Stage one", "Stage two", "Stage three", "All stages"]
    assert [line.split(",")[0].rstrip(":") for line in text.splitlines()
            if line.startswith(tuple(titles))] == titles  # fmt: skip
    parts = re.split("|".join(titles), text)[1:]
    for number, option in enumerate(("--trunk", "--clf", "--unfreeze", "--device")):
        assert [f"  {option} " in part for part in parts] == [n == number for n in range(4)]


ERRORS = [
    (["{tmp}/nothing"], 2, r"no folder or file"),
    (["{tmp}/empty"], 1, r"empty|no images"),
    (["{tmp}/broken"], 1, r"No image of .*broken could be decoded"),
    (["{tmp}/flat"], 1, r"has no labels; a head needs images that are sorted into classes"),
    (["{photos}", "--lr", "0.1"], 2, r"--lr is of stage three.*add --unfreeze layer4"),
    (["{photos}", "--unfreeze", "layer4", "--clf", "knn"], 2, r"knn is none: add logreg to --clf"),
    (["{photos}", "--unfreeze", "layer4", "--optimizer", "adam"], 2, r"Did you mean adamw"),
    (["{photos}", "--select-on", "cv", "--unfreeze", "1"], 2, r"'cv' is not one of auto, val"),
    (["{photos}", "--unfreez", "layer4"], 2, r"(?i)no such option.*--unfreez.*--unfreeze"),
    (["{photos}", "--clf", "logrg"], 2, r"Did you mean logreg"),
    (["{photos}", "--max-bad", "0"], 1, r"1 images could not be decoded, and --max-bad allows 0"),
]


@pytest.mark.parametrize(("words", "code", "text"), ERRORS, ids=lambda v: " ".join(v)[:40]
                         if isinstance(v, list) else "")  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(
    tmp_path, fake_trunk, words, code, text
):
    photos = make_folder(tmp_path / "photos")
    (photos / "ants" / "bad.png").write_bytes((photos / "ants" / "000.png").read_bytes()[:90])
    (tmp_path / "empty").mkdir()
    for name in ("broken/ants", "broken/bees", "flat"):
        (tmp_path / name).mkdir(parents=True)
        whole = (photos / "bees" / "001.png").read_bytes()
        (tmp_path / name / "x.png").write_bytes(whole if name == "flat" else whole[:90])
    words = [word.format(tmp=tmp_path, photos=photos) for word in words]
    done = CliRunner().invoke(main, ["run", *words, "--cache", str(tmp_path / "c")])
    assert done.exit_code == code, done.output
    assert re.search(text, done.stderr.replace("\n", " ")), done.stderr
    assert "Traceback" not in done.output and len(done.stderr.strip().splitlines()) <= 5


def test_a_head_that_was_removed_is_fitted_again_and_a_damaged_model_made_again(first, work):
    import shutil

    words = (*STAGED, "--epochs", "2")
    assert call(work, *words).exit_code == 0
    for folder in (work / "cache" / "heads").iterdir():
        shutil.rmtree(folder)
    for file in (work / "cache" / "models").glob("*/model.safetensors"):
        file.write_bytes(b"no model")
    done = call(work, *words)
    assert done.exit_code == 0, done.output
    assert "made already" not in done.stdout and "Reused   2 heads" not in done.stdout
    assert "0 extracted, 32 reused" in done.stdout


def test_names_with_markup_and_strange_bytes_are_shown_and_not_run(tmp_path, fake_trunk):
    folder = make_folder(tmp_path / "ph[bold]o\udcff", classes=("[red]a", "b\nc"), each=6)
    done = CliRunner().invoke(main, ["run", str(folder), "--cache", str(tmp_path / "c[/]")])
    assert done.exit_code == 0, done.output
    assert "[red]a" in done.stdout and "ph[bold]o" in done.stderr
