"""`export`: every format gives the stored predictions again, and runs without this package."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fitting import fitted
from photos import OPTIONS, paint, stored, tune
from safetensors.numpy import load_file
from tables import make_table

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning.model import open_predictor
from pipeline.heads.head import Head
from pipeline.heads.metrics import softmax
from pipeline.heads.resolve import find
from pipeline.images.decoding.decode import decode
from pipeline.inference.exporting import onnx_file, openvino_file, safetensors_file
from pipeline.inference.exporting.export import export_predictor
from pipeline.inference.options import ExportOptions
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL

#: Runs a README's code where neither torch nor this package can be imported.
ALONE = """
import re, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "pipeline"):
            raise ImportError(name + " is refused")
sys.meta_path.insert(0, Refuse())
code = re.search("```python\\n(.*?)```", open("README.md").read(), re.S)[1]
exec(compile(code, "README.md", "exec"), {})
"""


def only(kind, work):
    return kind.folders(work / "cache")[0]


def export(work, folder, output, **options):
    cache = Cache.at(work / "cache")
    return export_predictor(
        find(cache, folder), ExportOptions(output=str(output), **options), cache
    )


def alone(folder, argument, program=ALONE):
    """Return class → probability, as the README's code prints them."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(argument)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: float(p) for p, name in (line.split() for line in done.stdout.splitlines())}


def crops(work, folder, paths):
    predictor = open_predictor(find(Cache.at(work / "cache"), folder), Cache.at(work / "cache"))
    pictures = [decode((work / "photos" / path).read_bytes()) for path in paths]
    return predictor, [
        np.ascontiguousarray(predictor.preprocess.apply(one).permute(1, 2, 0)) for one in pictures
    ]


@pytest.mark.parametrize("kind", [HEAD, MODEL], ids=lambda kind: kind.name)
@pytest.mark.parametrize("form", ["onnx", "openvino", "safetensors"])
def test_each_format_gives_the_stored_predictions_again(modelled, tmp_path, kind, form):
    folder = only(kind, modelled)
    done = export(modelled, folder, tmp_path / "out", format=form)
    assert done.info["checked"]["difference"] < 1e-4
    assert done.info["checked"]["on"] == "the table's images"
    paths, named, probabilities = stored(folder)
    predictor, inputs = crops(modelled, folder, paths)
    if form == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
        logits, calibrated = session.run(["logits", "probabilities"], {"images": np.stack(inputs)})
        assert np.abs(softmax(logits) - probabilities).max() < 5e-3
        np.testing.assert_allclose(predictor.probabilities(logits), calibrated, atol=1e-5)
    elif form == "openvino":
        calibrated = openvino_file.probabilities(tmp_path / "out", inputs)
    else:
        tensors = load_file(tmp_path / "out/model.safetensors")
        assert tensors["fc.weight"].shape == (2, 512) and "layer4.1.bn2.running_var" in tensors
        assert done.info["library"]["make"] == "torchvision.models.get_model"
        return
    back = softmax(np.log(calibrated) * predictor.temperature)
    assert np.abs(back - probabilities).max() < 5e-3
    sure = np.abs(probabilities[:, 0] - 0.5) > 5e-3
    right = np.array(predictor.classes)[calibrated.argmax(1)] == np.array(named)
    assert right[sure].all()


@pytest.mark.parametrize(
    ("form", "inside"),
    [
        ("onnx", False),
        pytest.param("openvino", False, marks=pytest.mark.slow),
        pytest.param("onnx", True, marks=pytest.mark.slow),
        ("openvino", True),
    ],
)
def test_the_readmes_lines_run_where_neither_torch_nor_this_package_can_be_imported(
    modelled, tmp_path, form, inside
):
    folder = only(MODEL, modelled)
    export(modelled, folder, tmp_path / "out", format=form, with_preprocess=inside)
    image = modelled / "photos/val/red/03.png"
    found = alone(tmp_path / "out", image)
    predictor, _ = crops(modelled, folder, [])
    want = predictor.predict_proba([image])[0]
    assert found == pytest.approx(dict(zip(("blue", "red"), want, strict=True)), abs=0.02)


def test_the_import_blocker_can_fail(tmp_path):
    (tmp_path / "README.md").write_text("```python\nimport torch\n```")
    with pytest.raises(AssertionError, match="torch is refused"):
        alone(tmp_path, "x")


@pytest.mark.parametrize("form", ["onnx", "openvino", "safetensors"])
def test_the_head_alone_takes_a_few_kilobytes_and_features(modelled, tmp_path, form):
    folder = only(HEAD, modelled)
    done = export(modelled, folder, tmp_path / "out", format=form, head_only=True)
    assert sum(done.sizes.values()) < 50_000 and done.info["input"] == "features"
    table = Cache.at(modelled / "cache").open_table()
    np.save(tmp_path / "x.npy", table.features[0])
    found = alone(tmp_path / "out", tmp_path / "x.npy")
    want = Head.open(folder).predict_proba(table.features[:1], calibrated=True)[0]
    assert found == pytest.approx(dict(zip(("blue", "red"), want, strict=True)), abs=1e-5)


def test_names_classes_preprocessing_and_temperature_are_in_the_files(modelled, tmp_path):
    folder = only(HEAD, modelled)
    done = export(modelled, folder, tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
    inside = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])
    info = json.loads((tmp_path / "out/headstart.json").read_text())
    assert inside == {name: value for name, value in info.items() if name != "checked"}
    assert info["classes"] == ["blue", "red"] and info["opset"] == 20
    assert info["temperature"] == HEAD.read(folder).calibration.temperature
    assert info["preprocess"]["crop"] == 64 and info["input"] == "crops"
    assert session.get_inputs()[0].shape == ["batch", 64, 64, 3]
    import onnx

    kinds = {node.op_type for node in onnx.load(tmp_path / "out/model.onnx").graph.node}
    assert "BatchNormalization" not in kinds and "Conv" in kinds
    assert done.to_json()["path"] == str(tmp_path / "out")


def test_openvino_is_written_without_onnx(modelled, tmp_path, monkeypatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    folder = only(HEAD, modelled)
    for inside in (False, True):
        out = tmp_path / str(inside)
        export(modelled, folder, out, format="openvino", with_preprocess=inside)
        info = json.loads((out / "headstart.json").read_text())
        (text,) = re.findall(r'<headstart value="(.*?)" />', (out / "model.xml").read_text())
        assert json.loads(html.unescape(text))["classes"] == info["classes"] == ["blue", "red"]
    with pytest.raises(ImportError):
        import onnx  # noqa: F401


def test_beyond_the_tolerance_nothing_is_kept(modelled, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "probabilities", lambda folder, inputs: np.ones((16, 2)))
    with pytest.raises(PipelineError, match=r"differ by up to .* and 0.001 is allowed\. Nothing"):
        export(modelled, only(HEAD, modelled), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_where_the_images_are_gone_it_is_checked_on_the_digits(modelled, tmp_path):
    import shutil

    shutil.copytree(modelled / "cache/heads", tmp_path / "cache/heads")
    shutil.copytree(modelled / "cache/weights", tmp_path / "cache/weights")
    path = only(HEAD, tmp_path) / "head.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "table": "/gone.h5"}))
    done = export(tmp_path, path.parent, tmp_path / "out", format="safetensors")
    assert done.info["checked"]["on"] == "the built-in digits"
    assert done.info["checked"]["images"] >= 16


def test_a_folder_of_other_files_is_never_replaced_and_an_earlier_export_is(modelled, tmp_path):
    head, out = only(HEAD, modelled), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(PipelineError, match="holds other files; name a new or empty one"):
        export(modelled, head, out, format="safetensors", head_only=True)
    (out / "mine.txt").unlink()
    for _ in range(2):
        export(modelled, head, out, format="safetensors", head_only=True)
    (tmp_path / "file").touch()
    with pytest.raises(PipelineError, match="is a file; name a folder"):
        export(modelled, head, tmp_path / "file", format="safetensors")


def test_a_head_that_is_not_linear_is_refused(tmp_path):
    cache = Cache.at(tmp_path / "cache")
    head = fitted(make_table(tmp_path / "t.h5", val=20), cache, "knn").heads[0]
    for form in ("onnx", "openvino", "safetensors"):
        with pytest.raises(PipelineError, match=r"is not linear .* linear, logreg.*head\.skops"):
            export_predictor(
                find(cache, head), ExportOptions(format=form, output=str(tmp_path / "o")), cache
            )


@pytest.mark.parametrize(
    ("form", "missing"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("onnx", "onnxscript")]
)
def test_a_package_that_is_missing_is_told_with_what_to_install(
    modelled, tmp_path, monkeypatch, form, missing
):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == missing else found(name, *a)
    )
    text = re.escape(f"needs {missing}: `pip install 'headstart[{form}]'`.")
    with pytest.raises(PipelineError, match=text):
        export(modelled, only(HEAD, modelled), tmp_path / "o", format=form)


def test_options_that_cannot_go_together_are_refused():
    with pytest.raises(UsageError, match=r"'onxx' is not one of .*Did you mean onnx"):
        ExportOptions(format="onxx").check()
    with pytest.raises(UsageError, match="nothing to preprocess"):
        ExportOptions(with_preprocess=True, head_only=True).check()
    with pytest.raises(UsageError, match="tensors and no graph"):
        ExportOptions(with_preprocess=True, format="safetensors").check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trunk", "layer"),
    [("timm/resnet10t", None), ("resnet18", "layer3")],  # the last is no model of the library
)
def test_trunks_of_other_makes_are_exported_in_every_format(tmp_path, trunk, layer):
    folder = only(HEAD, make(tmp_path, trunk, "random", layer))
    for form in ("onnx", "openvino", "safetensors"):
        done = export(tmp_path, folder, tmp_path / form, format=form)
        assert done.info["checked"]["difference"] < 1e-4, form
        assert ("library" in done.info) == (form == "safetensors" and layer is None)
    assert Path(tmp_path / "safetensors/README.md").read_text().count("```") == 2


def make(work, trunk, weights, layer=None):
    """Make photos and a cache with a table and a head."""
    paint(work / "photos", each=6)
    options = {**OPTIONS, "trunk": trunk, "weights": weights, "layer": layer}
    table = pipeline.extract(work / "photos", cache=work / "cache", **options)
    normalize = "l2" if layer else None
    pipeline.fit_head(
        table, clf="logreg", cache=work / "cache", folds=2, jobs=1, normalize=normalize
    )
    return work


#: Besides a ResNet, of which `modelled` is: the default trunk, and one with a neck.
OTHERS = [("efficientnet_lite0", "default"), ("mobilenet_v3_small", "random")]


@pytest.fixture(scope="module", params=OTHERS, ids=lambda pair: pair[0])
def other(request, tmp_path_factory):
    """Return photos and a cache with a table, a head and a model of another trunk."""
    work = make(tmp_path_factory.mktemp("other"), *request.param)
    tune(work, epochs=1, views=1, lr=1e-3)
    return work


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HEAD, MODEL], ids=lambda kind: kind.name)
def test_every_trunk_predicts_and_exports_its_stored_predictions_in_every_format(
    other, tmp_path, kind
):
    folder = only(kind, other)
    paths, named, probabilities = stored(folder)
    files = [str(other / "photos" / path) for path in paths]
    predictor, inputs = crops(other, folder, paths)
    near = 1e-5 if kind is HEAD else 5e-3
    assert np.abs(predictor.predict_proba(files, calibrated=False) - probabilities).max() < near
    pictures = [decode(Path(file).read_bytes()).permute(1, 2, 0).numpy() for file in files]
    forms = [("onnx", False), ("openvino", False), ("safetensors", False)]
    forms += [("onnx", True), ("openvino", True)] if kind is MODEL else []
    for form, inside in forms:
        out = tmp_path / f"{form}{inside}"
        done = export(other, folder, out, format=form, with_preprocess=inside)
        if form == "safetensors":
            found = safetensors_file.probabilities(predictor, out, done.info.get("library"), inputs)
        else:
            read = onnx_file if form == "onnx" else openvino_file
            found = read.probabilities(out, list(map(np.ascontiguousarray, pictures))
                                       if inside else inputs)  # fmt: skip
        back = softmax(np.log(found) * predictor.temperature)  # the stored are not calibrated
        assert np.abs(back - probabilities).max() < (0.02 if inside else 5e-3), (form, inside)
        right = np.array(predictor.classes)[back.argmax(1)] == np.array(named)
        assert right[np.abs(probabilities[:, 0] - 0.5) > 0.02].all(), (form, inside)
