"""Ctrl-C during fitting and fine-tuning, and trouble of the system, as the command line ends."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from photos import paint
from tables import make_table

from pipeline.cli import main
from pipeline.store import upkeep
from pipeline.store.cache import Cache

#: A command in which a function waits where it is called for the nth time, having made a file.
PROGRAM = """
import importlib, pathlib, sys, time
mark, module, owner, name, nth, after = sys.argv[1:7]
home = importlib.import_module(module)
home = getattr(home, owner) if owner else home
real, calls = getattr(home, name), []
def slowly(*args, **options):
    calls.append(1)
    if after == "after":
        found = real(*args, **options)
    if len(calls) == int(nth):
        pathlib.Path(mark).touch()
        time.sleep(100)
    return found if after == "after" else real(*args, **options)
setattr(home, name, slowly)
from pipeline.cli import main
main(sys.argv[7:], prog_name="pipeline")
"""


def interrupted(mark: Path, place: tuple[str, ...], *words: str) -> subprocess.CompletedProcess:
    """Run a command and interrupt it where it waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(mark), *place, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a background job is started with Ctrl-C ignored, and hands that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while not mark.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate()
    assert mark.exists(), error
    return subprocess.CompletedProcess([], process.returncode, out, error)


def nothing_half_written(cache: Path) -> None:
    store = Cache.at(cache)
    assert upkeep.verify(store).problems == {}
    for pattern in (".tmp-*", "*.part", "decoding"):
        assert list(cache.rglob(pattern)) == []


@pytest.mark.parametrize(
    "place",
    [
        ("pipeline.heads.fit_head", "", "commit_folder", "1", "before"),  # fitted, not written
        ("pipeline.heads.head", "Head", "write", "1", "after"),  # in its temporary folder
        ("pipeline.heads.head", "Head", "write", "2", "before"),  # the first head is there
    ],
    ids=lambda place: f"{place[2]} {place[3]} {place[4]}",
)
def test_ctrl_c_during_fit_head_leaves_whole_heads_or_none(tmp_path, place):
    cache = Cache.at(tmp_path / "c")
    table = make_table(cache.tables / "t--x--000000000000.h5", train=40, val=20)
    words = ("fit-head", str(table.path), "--clf", "knn,lda", "--folds", "2", "--cache")
    done = interrupted(tmp_path / "mark", place, *words, str(cache.root))
    assert done.returncode == 130
    assert "the same command goes on" in done.stderr and "Traceback" not in done.stderr
    nothing_half_written(cache.root)
    heads = list((cache.root / "heads").glob("*"))
    assert len(heads) == int(place[3]) - 1
    assert all(json.loads((head / "head.json").read_text())["schema"] for head in heads)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "models"),
    [
        (
            ("pipeline.extraction.writer", "", "stored", "1", "before"),
            0,
        ),  # activations
        (
            ("pipeline.finetuning.training", "Training", "epoch", "1", "before"),
            1,
        ),
        (("pipeline.finetuning.model", "", "write", "1", "after"), 0),  # in its temporary folder
        (("pipeline.finetuning.training", "Training", "epoch", "2", "after"), 1),
    ],
    ids=lambda value: f"{value[2]} {value[3]} {value[4]}" if isinstance(value, tuple) else "",
)
def test_ctrl_c_during_finetune_leaves_a_whole_model_or_none(prepared, tmp_path, place, models):
    cache = tmp_path / "c"
    shutil.copytree(prepared / "cache", cache)
    words = ("finetune", "--epochs", "3", "--views", "1", "--precision", "fp32", "--cache")
    done = interrupted(tmp_path / "mark", place, *words, str(cache))
    assert done.returncode == 130, done.stderr
    assert "goes on" in done.stderr and "Traceback" not in done.stderr
    nothing_half_written(cache)
    found = list((cache / "models").glob("*"))
    assert len(found) == models
    assert all(json.loads((f / "model.json").read_text())["finished"] is False for f in found)


RUN = ("--trunk", "resnet18", "--weights", "random", "--image-size", "64", "--precision", "fp32",
       "--engine", "torch", "--folds", "2", "--epochs", "3", "--views", "1",
       "--unfreeze", "layer4")  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return photos and a cache with a run over them that nobody stopped."""
    root = tmp_path_factory.mktemp("whole")
    paint(root / "photos", each=8)
    alone("run", str(root / "photos"), *RUN, "--cache", str(root / "c"))
    return root


def alone(*words: str) -> str:
    """Run a command in a process of its own, as the one that is stopped; return what it told.

    Bits depend on the number of threads, and other tests leave this process with another.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "tables", "heads"),
    [
        (("pipeline.extraction.writer", "", "stored", "1", "before"), 0, 0),
        (("pipeline.heads.fit_head", "", "commit_folder", "1", "before"), 1, 0),
        (("pipeline.finetuning.training", "Training", "epoch", "3", "before"), 1, 1),
    ],
    ids=["features", "heads", "fine-tuning"],
)
def test_ctrl_c_in_any_stage_of_run_keeps_what_was_committed_and_the_same_goes_on(
    whole, tmp_path, place, tables, heads
):
    words = ("run", str(whole / "photos"), *RUN, "--cache", str(tmp_path / "c"))
    done = interrupted(tmp_path / "mark", place, *words)
    assert done.returncode == 130, done.stderr
    assert "the same command goes on" in done.stderr.lower() and "Traceback" not in done.stderr
    assert "--resume" not in done.stderr
    nothing_half_written(tmp_path / "c")
    assert len(list((tmp_path / "c" / "tables").glob("*.h5"))) == tables
    assert len(list((tmp_path / "c" / "heads").glob("*"))) == heads
    assert ("Going on after epoch 2." in alone(*words)) == bool(heads)
    (model,) = (tmp_path / "c" / "models").iterdir()
    for name in ("model.safetensors", "predictions-val.csv"):
        want = (whole / "c" / "models" / model.name / name).read_bytes()
        assert (model / name).read_bytes() == want


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(24, "Too many open files", "/a/b"), "Error: Too many open files: /a/b."),
        (OSError(28, "No space left on device"), "Error: No space left on device."),
        (MemoryError(), "Error: No memory left."),
    ],
)
def test_trouble_of_the_system_ends_in_a_sentence(tmp_path, monkeypatch, error, text):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(upkeep, "usage", fail)
    done = CliRunner().invoke(main, ["cache", "info", "--cache", str(tmp_path)])
    assert done.exit_code == 1 and text in done.output


def test_an_error_of_ours_is_not_taken_for_the_systems(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError("a library's own, without a number")

    monkeypatch.setattr(upkeep, "usage", fail)
    done = CliRunner().invoke(main, ["cache", "info", "--cache", str(tmp_path)])
    assert isinstance(done.exception, OSError)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_that_meets_the_end_of_an_object_still_ends_the_command(
    tmp_path, monkeypatch, number, code
):
    class Ended:
        def __del__(self):
            signal.raise_signal(number)  # what its handler raises here, Python forgets

    def wait(*args, **options):
        Ended()
        time.sleep(60)

    monkeypatch.setattr(upkeep, "usage", wait)
    began, hook = time.monotonic(), sys.unraisablehook
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, too
    try:
        done = CliRunner().invoke(main, ["cache", "info", "--cache", str(tmp_path)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.exit_code == code, done.output
    assert "the same command goes on" in done.output and "Traceback" not in done.output
    assert time.monotonic() - began < 30 and sys.unraisablehook is hook
