"""`predict`: the stored predictions again, from the files."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas
import pytest
from conftest import picture
from photos import stored
from PIL import Image

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning.model import Predictor, open_predictor
from pipeline.heads.resolve import find
from pipeline.images.datasets.picks import Picks
from pipeline.inference import logit_stream
from pipeline.inference.options import PredictOptions
from pipeline.inference.predict import BURST, Predicting, start
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL
from pipeline.trunks.spec import FeatureKey

PLAIN = PredictOptions(calibration=False)


def only(kind, work):
    return kind.folders(work / "cache")[0]


def predict(work, words, recipe=PLAIN, **options):
    return start([str(word) for word in words], recipe, Cache.at(work / "cache"), **options)


@pytest.fixture(scope="module")
def head(modelled):
    """Return a function that predicts with the head, opened once."""
    cache = Cache.at(modelled / "cache")
    opened = open_predictor(find(cache, only(HEAD, modelled)), cache)

    def over(words, recipe=PLAIN, lines=tuple):
        picks = Picks([str(word) for word in words], lines, cache.data)
        return Predicting(opened, "", recipe, picks, cache)

    return over


@pytest.mark.parametrize("kind", [HEAD, MODEL])
def test_what_is_printed_in_python_is_one_line(modelled, kind):
    cache = Cache.at(modelled / "cache")
    opened = open_predictor(find(cache, only(kind, modelled)), cache)
    assert repr(opened) == f"<{opened.title}>" and opened.id in opened.title
    assert len(repr(opened)) < 100
    if kind is HEAD:
        assert repr(pipeline.Head.open(only(kind, modelled))) == repr(opened)


@pytest.mark.parametrize(("kind", "near"), [(HEAD, 1e-5), (MODEL, 5e-3)])
def test_it_gives_the_stored_predictions_of_the_same_images(modelled, kind, near):
    folder = only(kind, modelled)
    paths, named, probabilities = stored(folder)
    files = [modelled / "photos" / path for path in paths]
    found = list(predict(modelled, [folder, *files]))
    assert [one.path for one in found] == [str(file) for file in files]
    classes = ("blue", "red")
    p = np.array([[dict(one.top)[name] for name in classes] for one in found])
    assert np.abs(p - probabilities).max() < near
    sure = np.abs(probabilities[:, 0] - 0.5) > near
    assert [one.prediction for one, keep in zip(found, sure, strict=True) if keep] == [
        name for name, keep in zip(named, sure, strict=True) if keep
    ]


def test_calibration_changes_probabilities_by_the_stored_temperature_alone(modelled, head):
    folder = only(HEAD, modelled)
    info = json.loads((folder / "head.json").read_text())
    file = modelled / "photos/val/blue/00.png"
    plain, fitted = (
        dict(next(iter(head([file], recipe))).top) for recipe in (PLAIN, PredictOptions())
    )
    odds = np.log(plain["blue"] / plain["red"]) / info["calibration"]["temperature"]
    assert fitted["blue"] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-6)


def test_it_writes_nothing_but_with_use_cache_which_computes_only_what_is_missing(
    modelled, tmp_path
):
    shutil.copytree(modelled, tmp_path / "w")
    work, folder = tmp_path / "w", only(HEAD, tmp_path / "w")
    (work / "more").mkdir()
    for n in range(3):
        (work / "more" / f"{n}.png").write_bytes(picture(n))
    words = [folder, work / "photos/val", work / "more", work / "more/0.png"]

    def state():
        return sorted((str(p), p.stat().st_mtime_ns) for p in work.rglob("*") if p.is_file())

    before = state()
    fresh = predict(work, words)
    want = [one.top for one in fresh]
    assert state() == before and fresh.tally.images == 28
    recipe = PredictOptions(calibration=False, use_cache=True)
    held = predict(work, words, recipe)
    got = [one.top for one in held]
    assert held.tally.reused == 24 and state() != before
    np.testing.assert_allclose([top[0][1] for top in got], [top[0][1] for top in want], atol=1e-5)
    again = predict(work, words, recipe)
    assert len(list(again)) == again.tally.reused == 28
    assert not list((work / "cache/runs").glob("*.h5"))  # nothing unfinished stays behind


def test_the_cache_is_for_heads_and_their_own_precision(modelled):
    with pytest.raises(UsageError, match=r"--use-cache is for heads: the model .* layer4 unfrozen"):
        predict(modelled, [only(MODEL, modelled), "x"], PredictOptions(use_cache=True))
    with pytest.raises(UsageError, match="was fitted on, in fp32; leave --precision out"):
        predict(modelled, [only(HEAD, modelled), "x"], PredictOptions(use_cache=True,
                precision="bf16"))  # fmt: skip


@pytest.mark.parametrize(
    ("arithmetic", "words"),
    [({"precision": "fp16"}, "fp16 needs"),
     ({"precision": "bf16", "decoder": "nvjpeg"}, "bf16 with nvJPEG needs")],
)  # fmt: skip
def test_a_gpus_rows_serve_on_a_cpu_and_only_computing_more_needs_a_gpu(
    modelled, tmp_path, arithmetic, words
):
    shutil.copytree(modelled / "cache", tmp_path / "cache")
    folder, cache = only(HEAD, tmp_path), Cache.at(tmp_path / "cache")
    info = json.loads((folder / "head.json").read_text())
    key = FeatureKey.of(HEAD.read(folder).features)
    held = cache.rows(key.fingerprint)
    half = cache.rows(replace(key, **arithmetic).fingerprint)
    for name in held.names():
        keys, _ = held.check(name)
        half.commit(keys, held.rows(name), engine="torch-cuda")
    info["features"] |= arithmetic
    (folder / "head.json").write_text(json.dumps(info))
    recipe = PredictOptions(use_cache=True, device="cpu")
    done = predict(tmp_path, [folder, modelled / "photos/val"], recipe)
    assert len(list(done)) == done.tally.reused == 24
    (tmp_path / "new.png").write_bytes(picture(1))
    with pytest.raises(UsageError, match=rf"1 image.* {words} a GPU.*leave --use-cache out"):
        list(predict(tmp_path, [folder, tmp_path / "new.png"], recipe))


@pytest.mark.parametrize("use_cache", [False, True])
def test_a_bad_image_is_told_by_itself_and_strays_in_folders_are_counted(
    modelled, tmp_path, use_cache
):
    shutil.copytree(modelled / "cache", tmp_path / "cache")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(1))
    (tmp_path / "in" / "half.png").write_bytes(picture(1)[:90])
    (tmp_path / "in" / "notes.txt").write_text("of no image")
    (tmp_path / "in" / "false.jpg").write_text("no image either")
    (tmp_path / "alone.txt").write_text("named by the person")
    words = [only(HEAD, tmp_path), tmp_path / "in", tmp_path / "alone.txt", tmp_path / "gone.png"]
    done = predict(tmp_path, words, PredictOptions(use_cache=use_cache))
    found = {one.path.rpartition("/")[2]: one for one in done}
    assert {name: one.error for name, one in found.items()} == {
        "a.png": "", "half.png": "truncated", "gone.png": "no such file",
        "false.jpg": "not a JPEG, PNG, WebP, GIF, BMP or TIFF file",
        "alone.txt": "not a JPEG, PNG, WebP, GIF, BMP or TIFF file",
    }  # fmt: skip
    assert found["half.png"].prediction is None and found["half.png"].top == ()
    assert (done.tally.images, done.tally.unreadable, done.tally.skipped) == (1, 4, 1)
    skipped, unlisted = sorted(done.notes, key=len)
    assert skipped == "Skipped in folders, being no images: 1 file."
    assert "alone.txt names is there" in unlisted  # it is no list either


@pytest.mark.parametrize("use_cache", [False, True])
def test_kinds_that_are_not_read_and_remarks_are_told_at_the_end(modelled, tmp_path, use_cache):
    shutil.copytree(modelled / "cache", tmp_path / "cache")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.psd").write_bytes(b"8BPS\0\1")
    moving = Image.open(io.BytesIO(picture(1))).convert("RGB")
    more = [Image.new("RGB", moving.size)]
    moving.save(tmp_path / "in" / "a.webp", save_all=True, append_images=more)
    (tmp_path / "named.pdf").write_bytes(b"%PDF-1.7")
    words = [only(HEAD, tmp_path), tmp_path / "in", tmp_path / "named.pdf"]
    done = predict(tmp_path, words, PredictOptions(use_cache=use_cache))
    assert [one.error for one in done] == ["", "PDF, which is not read"]
    assert done.notes[0] == "Skipped in folders, being no images: 1 file."
    assert [note.partition(":")[0] for note in done.notes[1:]] == [
        f"1 Photoshop file was left out ('{tmp_path}/in/x.psd')",
        f"1 PDF file was left out ('{tmp_path}/named.pdf')",
        "Only the first frame read",
    ]
    alone = predict(tmp_path, [words[0], tmp_path / "named.pdf"], PredictOptions())
    with pytest.raises(PipelineError, match=r"PDF, which is not read\. 1 PDF file was left out"):
        list(alone)


def test_predictions_come_as_batches_are_done_and_from_a_list_without_end(modelled, head):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield f"{modelled}/photos/val/red/00.png\n".encode()

    recipe = PredictOptions(batch_size=4)
    done = iter(head(["-"], recipe, endless))
    for _ in range(9):
        assert next(done).prediction
    assert taken <= 2 * BURST + 1
    done.close()


def test_below_min_confidence_it_abstains(modelled, head):
    done = head([modelled / "photos/val"], PredictOptions(min_confidence=1.0))
    found = list(done)
    assert done.tally.abstained == sum(one.abstains for one in found) > 0
    for one in found:
        assert one.abstains == (one.top[0][1] < 1.0) == (one.prediction is None)


def test_top_is_likeliest_first_and_no_more_than_there_are(modelled, head):
    words = [modelled / "photos/val/red"]
    assert all(len(one.top) == 1 for one in head(words, PredictOptions(top=1)))
    for one in head(words, PredictOptions(top=9)):
        (_, first), (_, second) = one.top
        assert first >= second and first + second == pytest.approx(1)


def test_nothing_to_predict_on_is_a_sentence(modelled, head, tmp_path):
    folder = only(HEAD, modelled)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"There are no images in .*empty\. Name files"):
        list(head([tmp_path / "empty"]))
    with pytest.raises(PipelineError, match=r"The one image could not be read: .*x: no such file"):
        list(head([tmp_path / "x"]))
    (tmp_path / "empty" / "a.txt").write_text("x")
    with pytest.raises(PipelineError, match=r"no images, and 1 file that are none"):
        list(head([tmp_path / "empty"]))
    with pytest.raises(UsageError, match="No images"):
        predict(modelled, [folder])
    bad = PredictOptions(top=0, min_confidence=2.0, device="gpu")
    with pytest.raises(UsageError, match=r"'gpu'.*--top 0 is below 1.*--min-confidence 2.0 is no"):
        predict(modelled, [folder, "x"], bad)


def test_in_python_it_takes_heads_and_models_as_they_are(modelled):
    cache = modelled / "cache"
    model = pipeline.Model.open(only(MODEL, modelled), cache=cache)
    files = sorted((modelled / "photos/val/red").glob("*.png"))
    found = pipeline.predict(files, model, cache=cache, calibration=False, precision="fp32")
    want = model.predict_proba(files, calibrated=False)
    np.testing.assert_allclose([one.top[0][1] for one in found], want.max(1), atol=1e-5)
    calibrated = model.predict_proba(files, calibrated=True)
    np.testing.assert_array_equal(calibrated.argmax(1), want.argmax(1))
    best = pipeline.predict(str(modelled / "photos/val/red"), cache=cache)
    assert len(best) == len(files)
    with pytest.raises(TypeError, match="topp"):
        pipeline.predict(files, model, cache=cache, topp=3)


@pytest.mark.parametrize("use_cache", [False, True])
def test_pictures_in_memory_get_the_answers_of_their_files(modelled, use_cache, tmp_path):
    shutil.copytree(modelled / "cache", cache := tmp_path / "cache")
    files = sorted((modelled / "photos/val").rglob("*.png"))[::5]
    head = pipeline.Head.open(only(HEAD, modelled))
    given = {"cache": cache, "use_cache": use_cache}
    likeliest = np.array([one.top[0][1] for one in pipeline.predict(files, head, **given)])
    pictures = [Image.open(file) for file in files]
    arrays = np.stack([np.asarray(one.convert("RGB")) for one in pictures])
    for images in (pictures, arrays, [file.read_bytes() for file in files], map(str, files),
                   pandas.DataFrame({"filename": files})):  # fmt: skip
        found = pipeline.predict(images, head, **given)
        np.testing.assert_allclose([one.top[0][1] for one in found], likeliest, atol=1e-5)
    (one,) = pipeline.predict(arrays[0], head, **given)
    assert one.path == "picture 0" and abs(one.top[0][1] - likeliest[0]) < 1e-5
    mixed = pipeline.predict([files[0], b"x", arrays[0]], head, **given)
    assert [one.path for one in mixed] == [str(files[0]), "picture 1", "picture 2"]
    assert mixed[1].error and mixed[0].prediction == mixed[2].prediction


def test_other_weights_than_those_of_the_features_are_refused(modelled, tmp_path):
    shutil.copytree(modelled / "cache", tmp_path / "cache")
    path = only(HEAD, tmp_path) / "head.json"
    info = json.loads(path.read_text())
    info["features"]["weights_digest"] = "0" * 64
    path.write_text(json.dumps(info))
    with pytest.raises(PipelineError, match="Put them back, or run `pipeline extract`"):
        list(predict(tmp_path, [path.parent, modelled / "photos/val"]))


def test_scores_that_are_not_numbers_are_refused(modelled, monkeypatch):
    done = predict(modelled, [only(HEAD, modelled), modelled / "photos/val"])
    object.__setattr__(done.predictor, "classify", lambda x: np.full((len(x), 2), np.nan))
    assert isinstance(done.predictor, Predictor) and isinstance(done.picks, Picks)
    with pytest.raises(PipelineError, match="scores that are not numbers on torch-cpu"):
        list(done)


def test_a_session_answers_as_predict_does_and_loads_once(modelled, monkeypatch):
    made = []
    real = logit_stream.engine_of
    monkeypatch.setattr(logit_stream, "engine_of", lambda *a, **o: made.append(1) or real(*a, **o))
    images = sorted((modelled / "photos/val").rglob("*.png"))[:3]
    folder, cache = only(HEAD, modelled), modelled / "cache"
    ask = pipeline.Session(folder, top=1, cache=cache)
    assert not made and ask.classes == ("blue", "red")
    one_by_one = [ask(image)[0] for image in images]
    assert made == [1]
    assert one_by_one == [
        pipeline.predict(image, folder, top=1, cache=cache)[0] for image in images
    ]
    with pytest.raises(PipelineError, match="could not be read"):
        ask(b"no image")
    assert ask(images[0]) == one_by_one[:1]
    with pytest.raises(UsageError, match="--top"):
        pipeline.Session(folder, top=0, cache=cache)
