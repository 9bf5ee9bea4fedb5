"""No public function leaves a global of the process other than before, cold or warm."""

import inspect
import logging
import shutil
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import without_openvino
from global_state import snapshot
from photos import FAST, OPTIONS

import pipeline
from pipeline.analysis.advising import learning_curve
from pipeline.analysis.comparing import feature_cost
from pipeline.finetuning.choosing import budget

TRUNK = {**OPTIONS, "trunk": "squeezenet1_1"}


def images(work: Path) -> list[str]:
    return sorted(str(path) for path in (work / "photos" / "val").rglob("*.png"))


def streamed(*given, **options):
    return list(pipeline.predict_stream(*given, **options))


FLAT = {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
#: Public function to a call of it in a folder with photos and a cache with a table and a head.
CALLS = {
    "extract": lambda w, at: pipeline.extract(w / "photos", cache=at, views=1, **TRUNK),
    "extract_part": lambda w, at: pipeline.extract_part(w / "photos", "1/2", cache=at, **TRUNK),
    "own_trunk": lambda w, at: pipeline.own_trunk(torch.nn.Flatten(), name="flat", preprocess=FLAT),
    "fit_head": lambda w, at: pipeline.fit_head(clf="logreg,lda", folds=2, jobs=2, cache=at),
    "finetune": lambda w, at: pipeline.finetune(
        data=w / "photos", cache=at, **{**FAST, "epochs": 1, "views": 1}
    ),
    "predict": lambda w, at: pipeline.predict(images(w), "logreg", use_cache=True, cache=at),
    "predict_stream": lambda w, at: streamed(images(w), "logreg", cache=at),
    "evaluate": lambda w, at: pipeline.evaluate(w / "photos" / "val", "logreg", cache=at),
    "paired_test": lambda w, at: pipeline.paired_test("logreg", "logreg", cache=at),
    "export": lambda w, at: pipeline.export(
        "logreg", format="safetensors", head_only=True, output=at / "exported", cache=at
    ),
    "audit": lambda w, at: pipeline.audit(cache=at),
    "advise": lambda w, at: pipeline.advise(data=w / "photos", sample=16, trial=8, cache=at,
                                            output=at / "curve.png"),
    "compare_trunks": lambda w, at: pipeline.compare_trunks(
        w / "photos", trunks="squeezenet1_1:random", clf="ncm", folds=2, image_size=64,
        precision="fp32", engine="torch", jobs=1, cache=at,
    ),
    "show": lambda w, at: pipeline.show(kind="views", count=2, cache=at),
    "report": lambda w, at: pipeline.report(data=w / "photos", cache=at),
    "run": lambda w, at: pipeline.run(w / "photos", cache=at, report=False, folds=2, **TRUNK),
    "list_heads": lambda w, at: pipeline.list_heads(cache=at),
    "list_models": lambda w, at: pipeline.list_models(cache=at),
    "list_tables": lambda w, at: pipeline.list_tables(at),
    "list_trunks": lambda w, at: pipeline.list_trunks("squeezenet1_1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def work(prepared, tmp_path_factory):
    """Photos with a table and a head, after every function was called once: imports stay."""
    root = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch, without_openvino():
        patch.setattr(feature_cost, "ROUND", 0.0)
        patch.setattr(feature_cost, "ROUNDS", 1)
        patch.setattr(learning_curve, "GRID", (1e-3, 1e-1))
        shutil.copytree(prepared, root / "w")
        shutil.copytree(prepared / "cache", root / "first")
        for call in CALLS.values():
            call(root / "w", root / "first")
        yield root / "w"


def test_every_public_function_is_called():
    functions = {name for name in pipeline.__all__ if inspect.isfunction(getattr(pipeline, name))}
    assert set(CALLS) == functions


def assert_same(before: dict, after: dict) -> None:
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert changed == {}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_of_the_process_is_other_than_before(
    work, tmp_path, monkeypatch, two_threads, name
):
    cache = tmp_path / "cache"
    shutil.copytree(work / "cache", cache)
    monkeypatch.setattr(budget, "STEPS", 4)  # of what `advise` tries
    for _ in ("cold", "warm"):
        before = snapshot()
        CALLS[name](work, cache)
        assert_same(before, snapshot())


def test_the_same_holds_where_a_call_is_refused_or_fails(work, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(work / "cache", cache)
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "x.png").write_bytes(b"\x89PNG")
    calls = [
        partial(pipeline.extract, tmp_path / "broken", cache=cache, **TRUNK),
        partial(pipeline.predict, [tmp_path / "broken" / "a" / "x.png"], "logreg", cache=cache),
        partial(pipeline.finetune, unfreeze="nosuch", data=work / "photos", cache=cache),
        partial(pipeline.show, "nosuch", cache=cache),
    ]
    for call in calls:
        before = snapshot()
        with pytest.raises(pipeline.PipelineError):
            call()
        assert_same(before, snapshot())


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(warnings, "filters", [*warnings.filters, ("ignore",) * 5]),
        lambda patch: patch.setenv("A_NEW_VARIABLE", "1"),
        lambda patch: patch.setattr(logging.getLogger("PIL"), "level", 7),
        lambda patch: patch.setattr(torch.backends.cudnn, "benchmark", True),
        lambda patch: patch.setattr(logging.root, "handlers", [logging.NullHandler()]),
        lambda patch: patch.setattr(np, "get_printoptions", lambda: {}),
    ],
)
def test_the_snapshot_sees_what_changes(monkeypatch, change):
    before = snapshot()
    with monkeypatch.context() as patch:
        change(patch)
        assert snapshot() != before
    assert snapshot() == before
