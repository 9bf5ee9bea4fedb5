"""`evaluate`: the stored figures again, classes by name, and other data than the table."""

import json
import shutil

import numpy as np
import pytest
from photos import OPTIONS, paint
from PIL import Image
from tables import make_table

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.heads.fit_head import fit_heads as fit
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.resolve import find
from pipeline.images.names import counted
from pipeline.inference.evaluate import evaluate_predictor, understand
from pipeline.inference.options import EvaluateOptions
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL

PLAIN = EvaluateOptions(calibration=False)


def only(kind, work):
    return kind.folders(work / "cache")[0]


def evaluate(work, asked=None, data=None, recipe=PLAIN):
    cache = Cache.at(work / "cache")
    return evaluate_predictor(
        find(cache, asked), None if data is None else str(data), recipe, cache
    )


def test_a_head_on_its_table_scores_what_it_scored_and_reads_no_image(modelled, monkeypatch):
    from pipeline.trunks import registry

    monkeypatch.setattr(registry, "load", None)  # no trunk
    folder = only(HEAD, modelled)
    done = evaluate(modelled, folder)
    want = HEAD.read(folder).to_json()["metrics"]["val"]
    want.pop("selected_on")
    assert list(done.metrics) == ["val"]
    got = done.metrics["val"].to_json()
    assert got["confusion"] == want["confusion"] and got["classes"] == want["classes"]
    for name in ("accuracy", "log_loss", "calibration_error", "baseline", "interval"):
        assert got[name] == pytest.approx(want[name], abs=1e-6), name
    assert done.unknown == {} and done.notes == ()


def test_another_precision_than_the_tables_is_computed_and_a_device_that_is_not_needed_is_told(
    modelled, monkeypatch
):
    from pipeline.inference import labelled as module

    folder, asked = only(HEAD, modelled), []
    real = module.through_trunk

    def noting(predictor, files, means, *args):
        asked.append(means.precision)
        return real(predictor, files, means, *args)

    monkeypatch.setattr(module, "through_trunk", noting)
    told = "The features are the table's: --device and --engine had nothing to compute."
    done = evaluate(modelled, folder, recipe=EvaluateOptions(device="cpu", precision="fp32"))
    assert asked == [] and done.notes == (told,)
    done = evaluate(
        modelled,
        folder,
        recipe=EvaluateOptions(precision="bf16", device="cpu", data=str(modelled / "photos")),
    )
    assert asked == ["bf16"] and done.notes == ()


def test_a_model_on_its_table_scores_what_it_scored(modelled):
    folder = only(MODEL, modelled)
    done = evaluate(modelled, folder)
    want = MODEL.read(folder).to_json()["metrics"]["val"]["model"]
    got = done.metrics["val"].to_json()
    assert got["log_loss"] == pytest.approx(want["log_loss"], abs=5e-3)
    assert got["confusion"] == want["confusion"] and got["baseline"] == want["baseline"]


def test_calibration_counts_in_the_log_loss_and_not_in_the_accuracy(tmp_path):
    table = make_table(tmp_path / "t.h5", train=120, val=200, dim=40, apart=0.6)
    cache = Cache.at(tmp_path / "cache")
    head = fit(table, FitHeadOptions(clf="nb", folds=3, jobs=1), cache).heads[0]
    plain, fitted = (
        evaluate_predictor(
            find(cache, head), str(table.path), EvaluateOptions(calibration=on), cache
        ).metrics["val"]
        for on in (False, True)
    )
    assert fitted.accuracy == plain.accuracy and fitted.log_loss < plain.log_loss
    assert fitted.calibration_error < plain.calibration_error


def test_a_folder_is_read_and_its_classes_match_by_name(modelled, tmp_path):
    paint(tmp_path / "p", splits=("one",), each=5)
    root = tmp_path / "p" / "one"
    (root / "blue").rename(root / "zebra")  # now behind red, and unknown
    (root / "red" / "note.txt").write_text("x")
    folder = only(HEAD, modelled)
    done = evaluate(modelled, folder, root)
    values = done.metrics["all"]
    assert (values.images, done.unknown) == (5, {"zebra": 5})
    assert [one["images"] for one in values.classes] == [0, 5]
    assert done.bad == (("red/note.txt", "not a JPEG, PNG, WebP, GIF, BMP or TIFF file"),)
    want = evaluate(modelled, folder).metrics["val"].classes[1]["recall"]
    assert values.accuracy >= want - 0.5  # they are red, whatever their place
    (root / "red").rename(root / "wolf")
    with pytest.raises(PipelineError, match=r"No class of .* \(wolf, zebra\) .* \(blue, red\)"):
        evaluate(modelled, folder, root)


def test_what_a_list_misses_or_writes_otherwise_is_told(modelled, tmp_path):
    photos = modelled / "photos/val"
    lines = [f"{file},{file.parent.name}" for file in sorted(photos.rglob("*.png"))[::6]]
    lines = [lines[0].replace("/", "\\"), *lines[1:], "gone.png,red"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    one = evaluate(modelled, only(HEAD, modelled), tmp_path / "list.csv")
    both = pipeline.paired_test(only(HEAD, modelled), only(HEAD, modelled), tmp_path / "list.csv",
                                cache=modelled / "cache")  # fmt: skip
    for notes in (one.notes, both.notes):
        found, lost = notes[:2]
        assert found.startswith("Found, though written with backslashes: 1 path ('")
        assert lost.startswith(f"Left out: 1 of the {len(lines)} files that ")


def test_images_that_it_learned_from_are_told(modelled):
    done = evaluate(
        modelled, only(HEAD, modelled), modelled / "photos", EvaluateOptions(split="all")
    )
    assert done.metrics["all"].images == 48
    assert done.notes[0].startswith(
        "24 images of all are training images of the table that the head"
    )
    (note,) = evaluate(modelled, only(HEAD, modelled), None, EvaluateOptions(split="train")).notes
    assert note.startswith("24 images of train")


def test_a_table_of_another_trunk_is_evaluated_by_its_images(modelled, tmp_path):
    work = tmp_path / "w"
    shutil.copytree(modelled / "cache", work / "cache")
    other = pipeline.extract(
        modelled / "photos", cache=work / "cache", name="other", **{**OPTIONS, "image_size": 32}
    )
    folder = only(HEAD, work)
    want = evaluate(work, folder)
    got = evaluate(work, folder, "other")
    assert got.on == str(other.path)
    assert got.metrics["val"].log_loss == pytest.approx(want.metrics["val"].log_loss, abs=1e-4)
    shutil.copytree(modelled / "photos", work / "moved")
    (work / "moved/val/red/00.png").unlink()
    with pytest.raises(PipelineError, match=r"1 are missing \(.*val/red/00.png\).*--data"):
        evaluate(work, folder, "other", EvaluateOptions(data=str(work / "moved")))


def test_words_are_an_artefact_a_table_or_both(modelled):
    cache = Cache.at(modelled / "cache")
    name = only(HEAD, modelled).name
    assert understand([name, "photos"], cache)[1] == "photos"
    assert understand(["photos"], cache)[1] == "photos"
    assert understand([], cache)[1] is None
    assert understand(["photos"], cache, name) == (find(cache, name), "photos")
    with pytest.raises(UsageError, match="'a' is no head or model, and one table or folder"):
        understand(["a", "b"], cache)


def test_the_named_table_is_the_heads_own_where_a_name_fits_several(modelled, tmp_path):
    shutil.copytree(modelled / "cache", tmp_path / "cache")
    own = Cache.at(tmp_path / "cache").table_files()[0]
    shutil.copy(own, own.with_name("photos--resnet18--000000000000.h5"))
    assert evaluate(tmp_path, only(HEAD, tmp_path), "photos").on == str(own)


def test_what_is_not_there_is_a_sentence(modelled, tmp_path):
    folder = only(HEAD, modelled)
    with pytest.raises(UsageError, match=r"no table, folder or file 'photo'. Did you mean photos"):
        evaluate(modelled, folder, "photo")
    with pytest.raises(UsageError, match=r"--split test: .* has train and val; or give all"):
        evaluate(modelled, folder, None, EvaluateOptions(split="test"))
    with pytest.raises(UsageError, match=r"--split 'tst' is not one of .*Did you mean test"):
        evaluate(modelled, folder, None, EvaluateOptions(split="tst"))
    with pytest.raises(PipelineError, match="has no labelled images: give a folder with"):
        evaluate(modelled, folder, modelled / "photos/val/red")
    shutil.copytree(modelled / "cache/heads", tmp_path / "cache/heads")
    (path,) = (tmp_path / "cache/heads").glob("*/head.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "table": "/gone.h5"}))
    with pytest.raises(PipelineError, match=r"is not in the cache .* Name a table, or a folder"):
        evaluate(tmp_path, path.parent)


def test_in_python_it_gives_metrics_by_split(modelled):
    found = pipeline.evaluate(cache=modelled / "cache", split="val")
    assert found["val"].images == 24 and np.shape(found["val"].confusion) == (2, 2)


def test_remarks_and_unreadable_images_are_told_once_by_both_commands(modelled, tmp_path):
    paint(tmp_path / "p", splits=("train", "val"), each=4)
    for split in ("train", "val"):
        folder = tmp_path / "p" / split / "red"
        (folder / "cut.png").write_bytes((folder / "00.png").read_bytes()[:-30])
        with Image.open(folder / "00.png") as image:
            image.save(folder / "odd.png", exif=b"Exif\0\0junk")
    head, model = only(HEAD, modelled), only(MODEL, modelled)
    data = str(tmp_path / "p")
    bad = tuple((f"{split}/red/cut.png", "truncated") for split in ("train", "val"))
    for split, unread in ((None, bad[1:]), ("all", bad)):
        number = len(unread)
        such = "such as 'train/red/odd.png'" if number > 1 else "'val/red/odd.png'"
        told = (
            f"Orientation ignored: {counted(number, 'image')}, {such} (EXIF that cannot be read)."
        )
        one = evaluate(modelled, head, data, EvaluateOptions(split=split))
        both = pipeline.paired_test(head, model, data, split=split, cache=modelled / "cache")
        assert one.bad == both.bad == unread
        assert one.notes.count(told) == both.notes.count(told) == 1
        assert both.to_json()["bad"] == [{"path": p, "reason": r} for p, r in unread]
