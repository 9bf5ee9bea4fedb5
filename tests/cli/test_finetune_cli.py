"""`pipeline finetune` and `pipeline models` as a person sees them."""

import json

import pytest
from click.testing import CliRunner
from photos import OPTIONS, paint

import pipeline
from pipeline.cli import main


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    paint(root / "photos", each=8)
    pipeline.extract(root / "photos", cache=root / "cache", **OPTIONS)
    pipeline.fit_head(clf="logreg", cache=root / "cache", folds=2)
    return root / "cache"


def call(cache, *words):
    return CliRunner().invoke(main, [*words, "--cache", str(cache)])


def test_the_three_stages_end_in_a_model_beside_its_head(cache):
    assert "No model yet" in call(cache, "models").output
    done = call(cache, "finetune", "--unfreeze", "layer4", "--epochs", "1", "--views", "1")
    assert done.exit_code == 0, done.output
    for text in (
        "resnet18, layer4 unfrozen, kept: epoch", "train-part (chose)", "head [95%]", "model [95%]",
        "epoch 1/1  train ", "activations of layer3 take", "From the head ",
        "fitted on all 16 training",
        "Kept in",
    ):  # fmt: skip
        assert text in done.output, text
    again = call(cache, "finetune", "--unfreeze", "layer4", "--epochs", "1", "--views", "1")
    assert "made already" in again.output and "epoch 1/1  train" not in again.output
    board = call(cache, "models")
    assert "layer4" in board.output and "its head, val" in board.output
    assert "by log-loss on train-part" in board.output


def test_json_is_one_object(cache):
    done = call(
        cache, "finetune", "--unfreeze", "none", "--epochs", "1", "--augment", "none", "--json"
    )
    info = json.loads(done.stdout)
    assert info["boundary"] == "feature" and info["path"].endswith(info["id"])
    models = json.loads(call(cache, "models", "--json").stdout)["models"]
    assert info["id"] in {model["id"] for model in models}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--unfreeze", "layer7"], 2, "Did you mean layer"),
        (["--lr", "0"], 2, "--lr 0 is not above 0"),
        (["nosuch"], 1, "There is no head or model 'nosuch'"),
        (["--optimizer", "adam"], 2, "Did you mean adamw?"),
        (["--data", "/nowhere/at/all"], 1, "is not a folder"),
    ],
)
def test_what_cannot_be_is_a_sentence(cache, words, code, text):
    done = call(cache, "finetune", *words)
    assert done.exit_code == code and text in done.output
    assert "Traceback" not in done.output
