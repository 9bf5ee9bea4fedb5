"""What was made with a weights file lives on when the file, or the cache, has moved."""

import json
import shutil

import pytest
import torch
from conftest import make_folder

import pipeline
from pipeline.errors import PipelineError
from pipeline.trunks.registry import find

TRUNK = "timm/test_resnet"
OPTIONS = {"trunk": TRUNK, "image_size": 32, "precision": "fp32", "engine": "torch"}


def save_weights(path, seed=1):
    torch.manual_seed(seed)
    path.parent.mkdir(exist_ok=True)
    torch.save(find(TRUNK).build().state_dict(), path)
    return path


@pytest.fixture
def project(tmp_path):
    """Return a folder with pictures, weights, and a cache with a table and a head of them."""
    root = tmp_path / "project"
    make_folder(root / "photos", each=8)
    weights = save_weights(root / "w" / "one.pth")
    pipeline.extract(root / "photos", weights=weights, cache=root / "cache", **OPTIONS)
    return root, pipeline.fit_head(clf="linear", cache=root / "cache").id


def picture(root):
    return next((root / "photos").rglob("*.png"))


def predicted(root, head):
    (one,) = pipeline.predict([picture(root)], head, cache=root / "cache", engine="torch")
    return one.top


def extract(root, weights, data="photos"):
    return pipeline.extract(root / data, weights=weights, cache=root / "cache", **OPTIONS)


def test_a_weights_file_that_has_moved_is_found_through_any_table_that_knows_it(
    project, monkeypatch
):
    root, head = project
    before = predicted(root, head)
    (root / "w" / "one.pth").rename(root / "two.pth")
    with pytest.raises(PipelineError) as caught:
        predicted(root, head)
    text = str(caught.value)
    assert "one.pth" in text and "does not exist any more" in text
    assert f"pipeline extract DATA --trunk {TRUNK} --weights FILE` once" in text
    make_folder(root / "others", each=4)
    monkeypatch.chdir(root)
    extract(root, "two.pth", data="others")  # other images, a relative path
    assert predicted(root, head) == before


def test_extract_with_the_new_place_heals_head_model_evaluation_export_and_fine_tuning(project):
    root, head = project
    cache = root / "cache"
    tuning = {"epochs": 1, "views": 1, "precision": "fp32", "cache": cache}
    model = pipeline.finetune(head, **tuning)
    (root / "w" / "one.pth").rename(root / "two.pth")
    verbs = {
        "predict": lambda: predicted(root, head),
        "evaluate": lambda: pipeline.evaluate(root / "photos", head, cache=cache, engine="torch"),
        "export": lambda: pipeline.export(
            head, format="safetensors", output=root / "out", cache=cache
        ),
        "open": lambda: pipeline.Model.open(model.folder, cache=cache),
        "finetune": lambda: pipeline.finetune(head, **tuning, seed=1),
    }
    for verb, run in verbs.items():
        with pytest.raises(PipelineError, match=r"one\.pth of .* does not exist any more"):
            run()
            raise AssertionError(verb)
    extract(root, root / "two.pth")
    made = {verb: run() for verb, run in verbs.items()}
    record = json.loads((made["finetune"].folder / "model.json").read_text())
    assert record["weights_asked"] == str(root / "two.pth")
    assert record["weights"] == "two.pth"


def test_a_project_that_moves_with_its_weights_needs_nothing(project, tmp_path):
    root, head = project
    before = predicted(root, head)
    moved = tmp_path / "elsewhere" / "again"
    moved.parent.mkdir()
    shutil.move(root, moved)
    assert predicted(moved, head) == before


def test_other_bytes_in_the_same_place_are_refused_until_a_table_knows_the_right_ones(project):
    root, head = project
    before = predicted(root, head)
    shutil.copy(root / "w" / "one.pth", root / "kept.pth")
    save_weights(root / "w" / "one.pth", seed=2)
    with pytest.raises(PipelineError, match=r"one\.pth .* now holds other .* --weights FILE"):
        predicted(root, head)
    extract(root, root / "kept.pth")
    assert predicted(root, head) == before


def test_a_file_called_random_is_not_what_random_weights_are_recorded_as(tmp_path, monkeypatch):
    make_folder(tmp_path / "photos", each=4)
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "random")
    by_name = pipeline.extract("photos", weights="random", cache="c", **OPTIONS)
    assert by_name.provenance.weights_asked == by_name.provenance.weights == "random"
    by_path = pipeline.extract("photos", weights="./random", cache="c", **OPTIONS)
    assert by_path.provenance.weights_asked == str(tmp_path / "random")
    assert by_path.fingerprint != by_name.fingerprint


def test_random_weights_are_no_file_to_match_by_order(tmp_path):
    """A model from scratch, or a standalone one, on a table whose file was matched by order."""
    make_folder(tmp_path / "photos", each=8)
    state = torch.load(save_weights(tmp_path / "w.pth"))
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    torch.save({f"t{at}": value for at, value in enumerate(state.values())}, tmp_path / "w.pth")
    cache = tmp_path / "cache"
    pipeline.extract(
        tmp_path / "photos", weights=tmp_path / "w.pth", keys="order", cache=cache, **OPTIONS
    )
    head = pipeline.fit_head(clf="linear", cache=cache)
    tuning = {"epochs": 1, "views": 1, "precision": "fp32", "cache": cache}
    for how in ({"from_scratch": True}, {"standalone": True}):
        model = pipeline.finetune(head, **tuning, **how)
        opened = pipeline.Model.open(model.folder, cache=cache)
        assert opened.predict_proba([picture(tmp_path)]).shape == (1, 2)
