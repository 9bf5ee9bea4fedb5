"""Which engine a head or model predicts with, and that its answers stay the stored ones."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from photos import Heard, stored
from safetensors.numpy import load_file, save_file

from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning.model import open_predictor
from pipeline.heads.resolve import find
from pipeline.images.resizing import alike
from pipeline.inference import logit_stream
from pipeline.inference.evaluate import evaluate_predictor as evaluate
from pipeline.inference.options import ComputeOptions, EvaluateOptions, PredictOptions
from pipeline.inference.predict import start
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL
from pipeline.trunks import registry
from pipeline.trunks.engines import choice, openvino_engine

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install headstart[openvino]")


@pytest.fixture(autouse=True)
def there(monkeypatch):
    """OpenVINO is installed, which the other tests of the verbs do not see."""
    monkeypatch.setattr(openvino_engine, "available", lambda: True)


@pytest.fixture
def work(modelled, tmp_path):
    shutil.copytree(
        modelled / "cache", tmp_path / "cache", ignore=shutil.ignore_patterns("compiled")
    )
    return SimpleNamespace(cache=Cache.at(tmp_path / "cache"), photos=modelled / "photos")


@pytest.fixture
def names(monkeypatch):
    """Return the names of the engines that were made."""
    made = []
    real = choice.engine_for

    def noting(*args, **options):
        engine = real(*args, **options)
        made.append(engine.name)
        return engine

    monkeypatch.setattr(logit_stream, "engine_for", noting)
    return made


def only(kind, work):
    return kind.folders(work.cache.root)[0]


def predict(work, kind, images=None, **options):
    """Return the probability of `blue` for the validation images, or others."""
    folder = only(kind, work)
    files = images or [work.photos / path for path in stored(folder)[0]]
    recipe = PredictOptions(calibration=False, **options)
    done = start([str(folder), *map(str, files)], recipe, work.cache)
    return np.array([dict(one.top)["blue"] for one in done])


@pytest.mark.parametrize(("kind", "near"), [(HEAD, 1e-4), (MODEL, 5e-3)])
def test_openvino_gives_the_stored_predictions_and_what_it_converted_is_kept(
    work, names, kind, near, monkeypatch
):
    want = stored(only(kind, work))[2][:, 0]
    assert np.abs(predict(work, kind, engine="openvino") - want).max() < near
    assert len(list(work.cache.compiled.glob("*.ov"))) == 1
    monkeypatch.setattr(openvino_engine, "_convert", None)
    if kind is HEAD:
        monkeypatch.setattr(registry, "load", None)  # nor is the trunk needed any more
    assert np.abs(predict(work, kind) - want).max() < near  # few, but it is there
    assert names == ["openvino-cpu"] * 2


WITHOUT_TORCH = """
import sys
from pipeline.cli import main
try:
    main()
finally:
    assert not {"torch", "torchvision", "timm", "sklearn", "scipy"} & {*sys.modules}
"""


@pytest.mark.parametrize("kind", [HEAD, MODEL])
def test_a_converted_network_answers_without_torch_what_it_answers_with_it(work, kind):
    folder = only(kind, work)
    images = sorted((work.photos / "val").rglob("*.png"))[:3]
    want = predict(work, kind, images, engine="openvino")
    if not alike(open_predictor(find(work.cache, folder), work.cache).preprocess):
        pytest.skip("torchvision resizes in floating point here")
    words = ["predict", folder, *images, "--jsonl", "--no-calibration", "--cache", work.cache.root]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rows = [json.loads(line)["top"] for line in done.stdout.splitlines()]
    got = [next(one["probability"] for one in top if one["class"] == "blue") for top in rows]
    assert got == want.tolist()


@pytest.mark.parametrize(("few", "taken"), [(True, "torch-cpu"), (False, "openvino-cpu")])
def test_few_images_do_not_wait_for_a_conversion(work, names, monkeypatch, few, taken):
    images = sorted((work.photos / "val").rglob("*.png"))[:4]
    monkeypatch.setattr(logit_stream, "MANY", 5 if few else 4)
    predict(work, HEAD, images, batch_size=2)
    assert names == [taken] and bool(list(work.cache.root.rglob("*.ov"))) is not few


def test_features_that_are_kept_come_from_the_engine_of_extract(work, names, tmp_path):
    shutil.copy(work.photos / "val/red/00.png", tmp_path / "x.png")
    with (tmp_path / "x.png").open("ab") as file:
        file.write(b"another digest")
    predict(work, HEAD, [tmp_path / "x.png"], use_cache=True)
    assert names == ["openvino-cpu"]


def test_pytorch_is_taken_where_it_is_asked_for(work, names):
    predict(work, HEAD, engine="torch")
    assert names == ["torch-cpu"] and not work.cache.compiled.exists()


def test_a_model_that_learned_again_is_converted_again(work, names):
    before = predict(work, MODEL, engine="openvino")
    folder = only(MODEL, work)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("conv1.weight"))
    save_file({**tensors, name: -tensors[name]}, folder / "model.safetensors")
    MODEL.write(folder, MODEL.read(folder))
    after = predict(work, MODEL, engine="openvino")
    assert len(list(work.cache.compiled.glob("*.ov"))) == 2
    assert np.abs(after - before).max() > 1e-3
    assert np.abs(after - predict(work, MODEL, engine="torch")).max() < 1e-4


def test_evaluate_takes_the_engine_too(work, names):
    wanted = MODEL.read(only(MODEL, work)).metrics["val"].model.log_loss
    found = find(work.cache, only(MODEL, work))
    recipe = EvaluateOptions(calibration=False, engine="openvino", data=str(work.photos))
    done = evaluate(found, None, recipe, work.cache)
    assert names == ["openvino-cpu"]
    assert done.metrics["val"].log_loss == pytest.approx(wanted, abs=5e-3)


def test_a_cache_that_cannot_be_written_still_predicts_and_says_what_is_missing(work, monkeypatch):
    def refuse(*args, **options):
        raise PipelineError("Cannot write it: Read-only file system.")

    monkeypatch.setattr(openvino_engine, "write_bytes", refuse)
    shutil.rmtree(work.cache.decoding, ignore_errors=True)  # of a run whose end was not read
    work.cache.decoding.touch()  # a file: no notes can be made below it
    heard, folder = Heard(), only(HEAD, work)
    files = [str(work.photos / path) for path in stored(folder)[0]]
    recipe = PredictOptions(engine="openvino")
    done = start([str(folder), *files], recipe, work.cache, progress=heard)
    assert len(list(done)) == len(files)
    (said,) = heard.said
    assert "decoding" in said and "would not be found out" in said
    assert not list(work.cache.root.rglob("*.ov"))


@pytest.mark.parametrize("kind", [HEAD, MODEL], ids=lambda kind: kind.name)
def test_predict_and_evaluate_make_no_cache_where_there_is_none(work, tmp_path, kind):
    """Not for many images either, for which a network is converted."""
    (tmp_path / "elsewhere").mkdir()
    none, folder = Cache.at(tmp_path / "elsewhere" / "cache"), only(kind, work)
    files = [str(work.photos / path) for path in stored(folder)[0]]
    many = files * (logit_stream.MANY // len(files) + 1)
    done = start([str(folder), *many], PredictOptions(), none)
    assert len(list(done)) == len(many)
    evaluate(find(none, folder), None, EvaluateOptions(data=str(work.photos)), none)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert len(list(start([str(folder), *many], PredictOptions(), work.cache))) == len(many)
    assert list(work.cache.compiled.iterdir()), "where there is one, it is kept"


def test_what_the_engine_has_to_say_is_told(work, monkeypatch):
    def refuse(*args, **kwargs):
        raise openvino_engine.ConversionError("OpenVINO cannot run this trunk (a reason).")

    monkeypatch.setattr(openvino_engine, "converted", refuse)
    monkeypatch.setattr(logit_stream, "MANY", 1)
    heard, folder = Heard(), only(HEAD, work)
    image = str(work.photos / "val/red/00.png")
    assert list(start([str(folder), image], PredictOptions(), work.cache, progress=heard))
    assert heard.said == ["OpenVINO cannot run this trunk (a reason). Going on with PyTorch."]
    with pytest.raises(UsageError, match=r"a reason.*Give --engine torch"):
        list(start([str(folder), image], PredictOptions(engine="openvino"), work.cache))


def test_an_engine_that_is_not_there_or_not_known_is_a_sentence(work, monkeypatch):
    monkeypatch.setattr(openvino_engine, "available", lambda: False)
    with pytest.raises(UsageError, match=r"not installed: `pip install 'headstart\[openvino\]'`"):
        predict(work, HEAD, engine="openvino")
    for recipe in (PredictOptions(engine="onenvino"), EvaluateOptions(engine="onenvino")):
        with pytest.raises(UsageError, match=r"--engine 'onenvino' is not .*Did you mean openvino"):
            recipe.check()


def test_half_precision_of_a_gpu_is_single_on_a_cpu_unless_it_is_asked_for(work):
    folder = only(HEAD, work)
    info = json.loads((folder / "head.json").read_text())
    info["features"]["precision"] = "fp16"
    (folder / "head.json").write_text(json.dumps(info))
    predictor = open_predictor(find(work.cache, folder), work.cache)
    assert predictor.precision_on("cpu") == "fp32" and predictor.precision_on("cuda") == "fp16"
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        logit_stream.engine_of(
            predictor, ComputeOptions(precision="fp16", device="cpu"), work.cache, many=True
        )
