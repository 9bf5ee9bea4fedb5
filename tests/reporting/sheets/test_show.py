import io
import json
import shutil

import numpy as np
import pytest
from conftest import picture
from PIL import Image

import pipeline
from pipeline.errors import DamagedError, PipelineError, UsageError
from pipeline.heads import predictions
from pipeline.images.decoding.loader import load
from pipeline.images.decoding.reading import ABSENT, unguarded
from pipeline.images.preprocess import Preprocess
from pipeline.images.thumbnails import CHANGED
from pipeline.images.views import POLICIES, numbers
from pipeline.reporting.options import ShowOptions
from pipeline.reporting.sheets import show
from pipeline.store.cache import Cache
from pipeline.store.results import MODEL


def run(work, word=None, **options):
    return show.draw_sheet(word, ShowOptions(**options), Cache.at(work / "cache"))


def paths(done):
    return [one["path"] for one in done.to_json()["images"]]


def test_without_an_argument_the_classes_of_the_current_table_are_shown(work):
    done = run(work, count=3)
    assert done.kind == "classes" and done.path.parent == work / "cache" / "sheets"
    assert paths(done) == [f"train/{name}/{n:02}.png" for name in ("blue", "red") for n in range(3)]
    assert [heading for heading, _ in done.content.sections] == [
        "blue   24 images",
        "red   24 images",
    ]
    with Image.open(done.path) as image:
        assert image.size[0] > 500 and image.format == "PNG"


def test_a_split_and_a_class_narrow_what_is_shown(work):
    done = run(work, split="val", classes=("red",), count=2)
    assert paths(done) == ["val/red/00.png", "val/red/01.png"]


def test_a_seed_gives_a_random_choice_that_is_the_same_each_time(work):
    one, same, other = (paths(run(work, seed=seed, count=4)) for seed in (1, 1, 2))
    assert one == same != other and one != paths(run(work, count=4))


def test_views_are_the_crops_that_fine_tuning_caches(work):
    done = run(work, kind="views", count=2)
    images = done.to_json()["images"]
    assert [one["view"] for one in images] == [0, 1, 2, 3, 4] * 2
    assert {one["split"] for one in images} == {"train"}
    table = Cache.at(work / "cache").open_table()
    preprocess = Preprocess.from_json(table.provenance.preprocess)
    items = list(done.content.items)
    files = [
        (done.images.file(item.row), bytes.fromhex(table.digests[item.row]), item.view)
        for item in items
    ]
    (batch,) = load(files, preprocess, batch_size=len(files), workers=2)
    shown = show._pictures(
        done.images, done.content, preprocess, 64,
        workers=2, guard=unguarded, progress=show.Silent(),
    )  # fmt: skip
    for crop, picture_ in zip(batch.crops, shown, strict=True):
        assert (crop.permute(1, 2, 0).numpy() == picture_.rgb).all()


def test_a_head_shows_its_predictions_with_wrong_ones_first_and_marked(work):
    (folder,) = (work / "cache" / "heads").iterdir()
    done = run(work, folder.name)
    table = Cache.at(work / "cache").open_table()
    stored = predictions.read(folder / "predictions-val.csv", table)
    wrong = stored.rows[stored.probabilities.argmax(1) != table.labels[stored.rows]]
    images = done.to_json()["images"]
    assert done.kind == "predictions" and len(stored.rows) == 24
    assert {one["path"] for one in images if not one["right"]} == {table.paths[r] for r in wrong}
    rights = [one["right"] for one in images]
    assert rights == sorted(rights)
    sure = [one["confidence"] for one in images if not one["right"]]
    assert sure == sorted(sure, reverse=True)
    for one in images:
        assert (one["prediction"] == one["label"]) == one["right"]
    assert f"{24 - len(wrong)} of 24 images right" in done.content.notes[0]


def test_probabilities_are_the_calibrated_ones_that_predict_gives(work):
    (folder,) = (work / "cache" / "heads").iterdir()
    done = run(work, folder.name)
    head = pipeline.predict(
        [work / "photos" / path for path in paths(done)], folder, cache=work / "cache"
    )
    for one, said in zip(done.to_json()["images"], head, strict=True):
        assert said.prediction == one["prediction"]
        assert said.top[0][1] == pytest.approx(one["confidence"], abs=1e-3)


def test_wrong_shows_mistakes_alone_and_says_where_there_is_none(work):
    (folder,) = (work / "cache" / "heads").iterdir()
    done = run(work, folder.name, wrong=True)
    assert all(not one["right"] for one in done.to_json()["images"])
    if not done.to_json()["images"]:
        assert "No mistakes." in done.content.notes


def test_a_model_shows_its_stored_predictions(modelled):
    (folder,) = (modelled / "cache" / "models").iterdir()
    done = show.draw_sheet(folder.name, ShowOptions(split="val", data=str(modelled / "photos")),
                    Cache.at(modelled / "cache"))  # fmt: skip
    assert len(done.to_json()["images"]) >= 16 and f"model {folder.name}" in done.content.title
    assert not any(done.reasons)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_views_of_a_named_policy_are_shown(work, policy):
    done = run(work, kind="views", count=1, augment=policy)
    wanted = (0, *numbers(policy, 4))
    assert tuple(item.view for item in done.content.items) == wanted
    assert [one["view"] for one in done.to_json()["images"]] == list(range(len(wanted)))
    assert f"the policy {policy} " in done.content.notes[0] and not any(done.reasons)


def test_the_views_of_a_model_are_of_the_policy_that_it_learned_from(modelled, tmp_path):
    shutil.copytree(modelled / "cache", tmp_path / "cache")
    cache = Cache.at(tmp_path / "cache")
    (folder,) = MODEL.folders(cache.root)
    assert MODEL.read(folder).policy == MODEL.read(folder).augmentation["policy"]
    options = ShowOptions(kind="views", count=1, data=str(modelled / "photos"))
    for policy in ("shift", "mirror"):
        record = json.loads((folder / "model.json").read_text())
        record["augmentation"]["policy"] = policy
        (folder / "model.json").write_text(json.dumps(record))
        done = show.draw_sheet(folder.name, options, cache)
        assert tuple(item.view for item in done.content.items) == (0, *numbers(policy, 4))


def test_a_policy_is_for_views_alone(work):
    with pytest.raises(UsageError, match="--augment says which views are shown: add --kind views"):
        run(work, augment="shift")


def test_a_folder_is_shown_before_it_is_extracted(work):
    done = run(work, str(work / "photos"), count=2)
    assert len(paths(done)) == 4 and done.images.root == work / "photos"


def test_moved_and_changed_images_are_told_in_their_places(work):
    (work / "photos" / "train" / "blue" / "00.png").unlink()
    (work / "photos" / "train" / "blue" / "01.png").write_bytes(picture(5))
    done = run(work, data=str(work / "photos"), count=3)
    assert list(done.reasons) == [ABSENT, CHANGED, "", "", "", ""]
    assert done.notes[-1] == (
        "2 pictures could not be shown: no such file (1), the file has changed (1). Where images "
        "have moved, say with --data where they lie now."
    )
    assert [one["missing"] for one in done.to_json()["images"]][:3] == [ABSENT, CHANGED, None]


def test_many_classes_stand_side_by_side_and_beyond_the_most_are_a_told_sample(tmp_path):
    for k in range(23):
        folder = tmp_path / "photos" / f"class {k:02}"
        folder.mkdir(parents=True)
        for n in range(2):
            (folder / f"{n}.png").write_bytes(picture(2 * k + n))
    word = str(tmp_path / "photos")
    done = run(tmp_path, word)
    assert len(done.content.sections) == 1 and done.content.notes == ()
    captions = {item.captions for item in done.content.items}
    assert captions == {(f"class {k:02}",) for k in range(23)}
    done = run(tmp_path, word, count=25)
    assert done.content.notes == ("16 of 23 classes, evenly spread; --class names others.",)
    assert len(list(done.content.items)) == 32
    assert run(tmp_path, word, count=25, classes=("class 07",)).content.notes == ()


def test_names_that_are_no_utf8_or_hold_markup_are_shown(tmp_path):
    for name in (b"latin-\xe9", b"$\\frac{1}{0}$", b"<b>&", b"a\nb"):
        folder = bytes(tmp_path) + b"/photos/" + name
        import os

        os.makedirs(folder)
        with open(folder + b"/\xff $x$.png", "wb") as file:
            file.write(picture(len(name)))
    for kind in ("classes", "views"):
        done = run(tmp_path, str(tmp_path / "photos"), kind=kind)
        assert not any(done.reasons)
        json.dumps(done.to_json()).encode()


def test_a_file_that_is_no_sheet_is_not_replaced_and_a_sheet_is(work):
    place = work / "mine.png"
    place.write_bytes(picture(1))
    with pytest.raises(PipelineError, match="is there and is not a sheet"):
        run(work, output=str(place))
    assert place.read_bytes() == picture(1)
    fresh = work / "sheet.png"
    first = run(work, output=str(fresh), count=1).path.read_bytes()
    assert run(work, output=str(fresh), count=2).path.read_bytes() != first


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "view"}, "--kind 'view' is not one of classes, views, predictions. Did you mean"),
        ({"count": 0}, "--count 0 is below 1."),
        ({"count": 401}, "--count 401 is above 400"),
        ({"output": "a.jpg"}, "--output a.jpg must end in .png"),
        ({"split": "test"}, "--split test: photos has train and val; or give all."),
        ({"classes": ("bleu",)}, "--class 'bleu' is no class of photos.* Did you mean blue?"),
        ({"wrong": True}, "--wrong is for predictions"),
        ({"kind": "predictions", "split": "train"}, "no stored predictions of train: .*of val"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(work, options, sentence):
    with pytest.raises(UsageError, match=sentence.replace("?", r"\?")):
        run(work, **options)


def test_what_is_not_there_is_told_with_the_nearest_name(work):
    with pytest.raises(UsageError, match=r"no table, folder or file 'photo'.* Did you mean photos"):
        run(work, "photo")
    with pytest.raises(UsageError, match="There are no predictions of"):
        run(work, str(work / "photos"), kind="predictions")


def test_damaged_predictions_are_refused(work):
    (folder,) = (work / "cache" / "heads").iterdir()
    file = folder / "predictions-val.csv"
    whole = file.read_text()
    for damage in ("", whole[:200], whole.replace("0.", "x.")):
        file.write_text(damage)
        with pytest.raises(DamagedError, match="are damaged"):
            run(work, folder.name)
    file.write_text(whole.replace(",blue,", ",red,"))
    with pytest.raises(DamagedError, match="its labels are not those of the table"):
        run(work, folder.name)


def test_the_public_function_returns_the_path_of_the_picture(work):
    table = Cache.at(work / "cache").open_table()
    path = pipeline.show(table, cache=work / "cache", count=1)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert np.asarray(image).std() > 0
