"""Which head or model a word means, and which is taken where none is named."""

import json
import shutil

import pytest
from fitting import fitted
from tables import make_table

from pipeline.errors import PipelineError
from pipeline.heads.resolve import best, find, split
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL


@pytest.fixture
def stocked(cache):
    """Return a cache with a current table and three heads on it."""
    path = cache.tables / "photos--fake--0123456789ab.h5"
    made = make_table(path, train=60, val=24, dim=32)
    cache.set_current(made.path)
    fitted(made, cache, "lda,ncm,ridge")
    return cache


def change(folder, name, **values):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_without_a_name_the_leaderboards_best_head_is_taken_and_it_says_so(stocked):
    for folder in HEAD.folders(stocked.root):
        info = HEAD.read(folder)
        change(folder, "head", score=0.9 if info.clf == "ridge" else 0.5)
    found = best(stocked)
    assert HEAD.read(found.folder).clf == "ridge"
    assert found.why == (
        f"Taking the head {found.folder.name} (ridge on fake): accuracy 0.9000 on cv, "
        "the best of 3 heads."
    )


def test_a_fit_on_a_few_shots_is_never_the_best(stocked):
    few = fitted(stocked.open_table(), stocked, "lda", shots=5).heads[0]
    change(few.folder, "head", score=1.0, created="2999-01-01T00:00:00Z")
    assert best(stocked).folder != few.folder


def test_a_kind_means_the_head_of_all_training_images_and_no_newer_experiment(stocked):
    full = find(stocked, "lda").folder
    few = fitted(stocked.open_table(), stocked, "lda", shots=5).heads[0]
    change(few.folder, "head", score=1.0, created="2999-01-01T00:00:00Z")
    assert find(stocked, "lda").folder == full


def test_a_model_that_beats_its_head_comes_before_any_head_and_one_that_does_not_never(
    modelled, tmp_path
):
    shutil.copytree(modelled / "cache", tmp_path / "cache")
    cache = Cache.at(tmp_path / "cache")
    folder = MODEL.folders(cache.root)[0]
    change(folder, "model", beats_head=True)
    found = best(cache)
    assert found.folder == folder
    assert f"Taking the model {folder.name} (resnet18, layer4 unfrozen): log-loss" in found.why
    assert "of the head that it started from" in found.why
    change(folder, "model", beats_head=False)
    found = best(cache)
    assert found.kind is HEAD and found.why.endswith("; no model beats its head (of 1).")


def test_a_word_is_an_id_its_beginning_a_folder_or_a_kind(stocked):
    folder = HEAD.folders(stocked.root)[0]
    kind = HEAD.read(folder).clf
    for word in (folder.name, folder.name[:4], str(folder), kind):
        found, rest = split(stocked, [word, "a.jpg"])
        assert (found.folder, rest, found.why) == (folder, ["a.jpg"], ""), word
    assert split(stocked, ["a.jpg", folder.name])[0] is None
    assert split(stocked, [folder.name[:3]])[0] is None
    assert split(stocked, []) == (None, [])


def test_a_file_or_folder_of_that_name_is_an_image_and_no_id(stocked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = HEAD.folders(stocked.root)[0].name
    (tmp_path / name).mkdir()
    (tmp_path / "lda").touch()
    for word in (name, "lda"):
        assert split(stocked, [word]) == (None, [word])


def test_what_looks_like_an_id_and_is_none_is_told_with_the_nearest(stocked):
    name = HEAD.folders(stocked.root)[0].name
    wrong = name[:-1] + ("0" if name[-1] != "0" else "1")
    with pytest.raises(PipelineError, match=rf"no head or model '{wrong}'.*Did you mean {name}"):
        split(stocked, [wrong, "a.jpg"])
    with pytest.raises(PipelineError, match=r"no head or model 'ldaa'.*Did you mean lda"):
        find(stocked, "ldaa")


def test_a_beginning_of_several_ids_is_refused(stocked):
    folder = HEAD.folders(stocked.root)[0]
    shutil.copytree(folder, stocked.root / "models" / (folder.name[:6] + "ffffff"))
    with pytest.raises(PipelineError, match=r"begins several ids: head .*, model .* Give more"):
        find(stocked, folder.name[:5])


def test_a_kind_that_is_not_there_says_how_to_fit_it(stocked):
    with pytest.raises(PipelineError, match=r"no head of kind svm.*--clf svm`"):
        split(stocked, ["svm", "a.jpg"])


def test_without_table_or_head_it_says_what_makes_one(cache):
    with pytest.raises(PipelineError, match=r"no current table. Make one with `pipeline extract"):
        best(cache)
    path = cache.tables / "photos--fake--0123456789ab.h5"
    cache.set_current(make_table(path).path)
    with pytest.raises(PipelineError, match=r"neither a head nor a model.*fit-head --clf logreg"):
        best(cache)


def test_an_artefact_of_another_schema_says_what_to_do(stocked):
    folder = HEAD.folders(stocked.root)[0]
    change(folder, "head", schema=HEAD.schema + 1)
    from pipeline.finetuning.model import open_predictor

    with pytest.raises(PipelineError, match="update Headstart"):
        open_predictor(find(stocked, folder.name), stocked)
