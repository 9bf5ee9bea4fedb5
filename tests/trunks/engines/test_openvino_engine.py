import copy
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import engines
from pipeline.extraction.options import ExtractOptions
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache
from pipeline.trunks.engines import openvino_engine
from pipeline.trunks.engines.choice import engine_for
from pipeline.trunks.engines.torch_engine import TorchEngine
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.registry import load
from pipeline.trunks.spec import FeatureKey

openvino = pytest.importorskip(
    "openvino", reason="OpenVINO is not installed: pip install headstart[openvino]"
)

SIDE = 64
PREPROCESS = Preprocess(72, SIDE)
TRUNKS = ["resnet18", "mobilenet_v2", "densenet121", "mobilenet_v3_small", "efficientnet_lite0",
          "timm/convnext_atto", "timm/mobilenetv3_small_050"]  # fmt: skip
#: Least cosine to fp32 eager of noise, on which bfloat16 does worse than on photos.
LEAST = {"fp32": 0.99999, "bf16": 0.99}


@pytest.fixture(scope="module", params=TRUNKS)
def net(request, tmp_path_factory) -> FeatureNet:
    weights = "default" if request.param == "efficientnet_lite0" else "random"
    trunk = load(request.param, weights, state_dir=tmp_path_factory.mktemp("weights"))
    return FeatureNet(trunk.module, PREPROCESS, "feature", "own").eval()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> FeatureNet:
    trunk = load("resnet18", "random", state_dir=tmp_path_factory.mktemp("weights"))
    return FeatureNet(trunk.module, PREPROCESS, "feature", "own").eval()


def key(precision="fp32", layer="feature", pool="own") -> FeatureKey:
    return FeatureKey("some", "d" * 64, layer, pool, PREPROCESS, precision)


def make(net, folder, precision="fp32"):
    model = openvino_engine.converted(lambda: net, key(precision), folder=folder)
    return openvino_engine.OpenVINOEngine(model, precision=precision, cores=2)


def crops(count=6, seed=1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    return noise.contiguous(memory_format=torch.channels_last)


def cosine(a, b) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_engine_agrees_with_the_plain_trunk_in_fp32(net, precision, tmp_path):
    x = crops()
    with torch.no_grad():
        want = net(x).numpy()
    torches = TorchEngine(copy.deepcopy(net), device="cpu", precision=precision, size=SIDE)
    for engine in (torches, make(net, tmp_path, precision)):
        (rows,) = engine.run([x])
        assert rows.dtype == np.float32 and rows.shape == want.shape
        assert cosine(rows, want) >= LEAST[precision], engine.name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_several_features_in_one_pass_agree_with_the_plain_trunk_in_fp32(
    small, precision, tmp_path
):
    features = [("layer2+layer3+layer4", "avg"), ("layer3", "max"), ("feature", "own")]
    net = FeatureNet(small.trunk, PREPROCESS, *features[0], also=features[1:]).eval()
    (rows,) = make(net, tmp_path, precision).run([crops()])
    with torch.no_grad():
        want = [part.numpy() for part in net.parts(crops())]
    parts = np.split(rows, np.cumsum([part.shape[1] for part in want])[:-1], 1)
    for part, wanted in zip(parts, want, strict=True):
        assert cosine(part, wanted) >= LEAST[precision]
    for block in np.split(parts[0], [128, 128 + 256], 1):
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, atol=0.02)


def test_a_conversion_is_checked_feature_by_feature(small, tmp_path, monkeypatch):
    """A small feature must not hide behind a large one."""
    net = FeatureNet(small.trunk, PREPROCESS, "layer3", "avg", also=[("layer4", "avg")]).eval()
    parts = net.parts

    def scaled(x):
        first, second = parts(x)
        return [first * 1e6, second * (1 if torch.jit.is_tracing() else 1.1)]

    monkeypatch.setattr(net, "parts", scaled)
    with pytest.raises(openvino_engine.ConversionError, match="differently"):
        make(net, tmp_path)


def test_a_row_does_not_depend_on_its_place_its_neighbours_or_the_stream(small, tmp_path):
    engine, x = make(small, tmp_path, "bf16"), crops(11)
    (rows,) = engine.run([x])
    turned = list(engine.run([x.flip(0)[:3], x.flip(0)[3:]]))
    assert np.concatenate(turned)[::-1].tobytes() == rows.tobytes()


def test_rows_of_many_batches_come_in_order(small, tmp_path):
    engine = make(small, tmp_path)
    batches = [crops(count, seed) for seed, count in enumerate((8, 5, 1, 8, 3))]
    found = list(engine.run(iter(batches)))
    for rows, batch in zip(found, batches, strict=True):
        (alone,) = engine.run([batch])
        assert rows.tobytes() == alone.tobytes()


def test_a_run_that_is_given_up_leaves_an_engine_that_works(small, tmp_path):
    engine, x = make(small, tmp_path), crops(8)
    (want,) = engine.run([x])
    given_up = engine.run([x, x, x])
    next(given_up)
    given_up.close()
    (rows,) = engine.run([x])
    assert rows.tobytes() == want.tobytes()


def test_activations_come_channels_last(small, tmp_path):
    trunk = FeatureNet(small.trunk, PREPROCESS, "layer3", "map").eval()
    model = openvino_engine.converted(
        lambda: trunk, key(layer="layer3", pool="map"), folder=tmp_path
    )
    (rows,) = openvino_engine.OpenVINOEngine(model, precision="fp32", cores=2).run([crops()])
    with torch.no_grad():
        want = trunk(crops()).numpy()
    assert rows.shape == want.shape == (6, 4, 4, 256)
    np.testing.assert_allclose(rows, want, atol=1e-3)


def never() -> FeatureNet:
    raise AssertionError("converted again")


def test_a_converted_trunk_is_kept_for_the_next_time(small, tmp_path):
    (want,) = make(small, tmp_path).run([crops()])
    again = openvino_engine.converted(never, key(), folder=tmp_path)
    (rows,) = openvino_engine.OpenVINOEngine(again, precision="fp32", cores=2).run([crops()])
    assert rows.tobytes() == want.tobytes()
    with pytest.raises(AssertionError, match="converted again"):
        openvino_engine.converted(never, replace(key(), precision="bf16"), folder=tmp_path)


@pytest.mark.parametrize("fault", ["flipped", "truncated", "other versions", "nonsense"])
def test_a_kept_trunk_that_is_damaged_or_of_other_versions_is_made_again(
    small, tmp_path, fault, monkeypatch
):
    make(small, tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    if fault == "flipped":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif fault == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif fault == "nonsense":
        path.write_bytes(b"\xff\n")
    else:
        monkeypatch.setattr(openvino_engine, "installed", lambda: {"torch": "9"})
    with pytest.raises(AssertionError, match="converted again"):
        openvino_engine.converted(never, key(), folder=tmp_path)


ALONE = """
import sys
for name in ("onnx", "onnxscript", "onnxruntime"):
    sys.modules[name] = None  # importing it fails
import pathlib, torch
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.engines.openvino_engine import OpenVINOEngine, converted
from pipeline.trunks.spec import FeatureKey

class Net(torch.nn.Module):
    def forward(self, x):
        return x.float().mean((2, 3))

    def parts(self, x):
        return [self(x)]

key = FeatureKey("some", "d" * 64, "feature", "own", Preprocess(9, 8), "fp32")
model = converted(Net, key, folder=pathlib.Path(sys.argv[1]))
(rows,) = OpenVINOEngine(model, precision="fp32", cores=1).run([torch.full((2, 3, 8, 8), 7).byte()])
print(rows.tolist())
"""


def test_neither_converting_nor_running_needs_onnx(tmp_path):
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[[7.0, 7.0, 7.0], [7.0, 7.0, 7.0]]"


class Random(torch.nn.Module):
    """Gives other numbers each time, as no conversion can."""

    def forward(self, x):
        return x.mean((2, 3)) * torch.rand(1)

    def parts(self, x):
        return [self(x)]


def test_a_conversion_that_differs_from_pytorch_is_refused(tmp_path, monkeypatch):
    with pytest.raises(openvino_engine.ConversionError, match=r"differently|cannot run"):
        openvino_engine.converted(Random, key(), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_temporary_folder_is_named_with_the_way_out(small, tmp_path, monkeypatch):
    def serialize(*given):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr("openvino.serialize", serialize)
    with pytest.raises(openvino_engine.ConversionError, match="set TMPDIR to a disk with room"):
        openvino_engine.converted(lambda: small, key(), folder=tmp_path)


def test_auto_goes_on_with_pytorch_where_openvino_cannot_run_the_trunk(
    small, tmp_path, monkeypatch
):
    def refuse(*args, **kwargs):
        raise openvino_engine.ConversionError("OpenVINO cannot run this trunk (a reason).")

    monkeypatch.setattr(openvino_engine, "converted", refuse)
    trunk = load("resnet18", "random", state_dir=tmp_path)
    cache, recipe = Cache.at(tmp_path / "cache"), ExtractOptions(device="cpu")
    own = replace(key(), weights_digest=trunk.weights_digest)
    engine = engines.make_engine(trunk, own, recipe, cache)
    assert engine.name == "torch-cpu"
    assert engine.notes == ["OpenVINO cannot run this trunk (a reason). Going on with PyTorch."]
    with pytest.raises(UsageError, match=r"a reason.*--engine torch"):
        engines.make_engine(trunk, own, replace(recipe, engine="openvino"), cache)


def test_without_openvino_auto_is_pytorch_and_asking_for_it_says_what_to_install(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(openvino_engine, "available", lambda: False)
    trunk = load("resnet18", "random", state_dir=tmp_path)
    cache = Cache.at(tmp_path / "cache")
    own = replace(key(), weights_digest=trunk.weights_digest)
    assert engines.make_engine(trunk, own, ExtractOptions(device="cpu"), cache).name == "torch-cpu"
    with pytest.raises(UsageError, match=r"pip install 'headstart\[openvino\]'"):
        engines.make_engine(trunk, own, ExtractOptions(device="cpu", engine="openvino"), cache)


def test_openvino_is_not_for_a_gpu(tmp_path, monkeypatch):
    def choose(asked):
        engine_for(never, key(), compiled=tmp_path, device="cuda", asked=asked, precision="fp32")

    with pytest.raises(UsageError, match="not on cuda"):
        choose("openvino")
    monkeypatch.setattr(openvino_engine, "converted", None)
    with pytest.raises(AssertionError, match="converted again"):  # asks for the network itself
        choose("auto")


def test_what_openvino_reports_ends_in_a_sentence(small, tmp_path):
    engine = make(small, tmp_path)

    class Broken:
        def start_async(self, *args, **kwargs):
            pass

        def wait(self):
            raise RuntimeError("Exception from src/inference: no memory\nstack")

    engine.idle[0] = Broken()
    with pytest.raises(PipelineError, match=r"OpenVINO failed: .*no memory Give --engine torch"):
        list(engine.run([crops(8)]))


def test_a_run_that_was_stopped_and_goes_on_gives_the_same_bits(tmp_path, monkeypatch):
    from photos import paint

    from pipeline.extraction import plan
    from pipeline.extraction.extract import extract_table
    from pipeline.progress import Silent

    monkeypatch.setattr(plan, "SHARD_ROWS", 8)
    folder = paint(tmp_path / "photos", ("train",), each=22)
    recipe = ExtractOptions(trunk="resnet18", weights="random", image_size=32, batch_size=4,
                    precision="bf16", device="cpu", engine="openvino")  # fmt: skip
    whole = extract_table(folder, recipe, Cache.at(tmp_path / "whole"))
    cache = Cache.at(tmp_path / "cache")

    class Stopping(Silent):
        batches = -1  # none before images are extracted

        def start(self, what, total):
            self.batches = 0 if what == "extracting" else -1

        def advance(self, *args):
            self.batches += self.batches >= 0
            if self.batches == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_table(folder, recipe, cache, Stopping())
    rest = extract_table(folder, recipe, cache)
    assert 0 < rest.extracted < whole.extracted == 44
    assert rest.table.provenance.engine == "openvino-cpu"
    assert rest.table.features.tobytes() == whole.table.features.tobytes()


def test_openvino_tells_nobody_what_runs_here(tmp_path):
    teller = tmp_path / "openvino_telemetry" / "__init__.py"
    teller.parent.mkdir()
    teller.write_text("raise SystemExit('telemetry was imported')")
    code = (
        "import sys; from pipeline.trunks.engines.openvino_import import openvino; openvino()\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "print(telemetry_utils.tm.__name__, 'openvino_telemetry' in sys.modules)"
    )
    place = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": place}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"], done.stderr


@pytest.mark.filterwarnings("error")
def test_the_comparison_is_not_fooled_by_what_is_not_finite():
    relative = openvino_engine._relative
    want = np.full((4, 6), 3e38, np.float32)
    assert relative(want, want) == 0
    some = want.copy()
    some[0, 0], some[1, 1] = np.inf, np.nan
    assert relative(some, some) == relative(want, some) == 0
    assert relative(want * np.float32(0.9), some) == pytest.approx(0.1, rel=1e-3)
    assert relative(some, want) == np.inf  # OpenVINO alone overflows
    none = np.full((4, 6), np.nan, np.float32)
    assert relative(none, none) == relative(want, none) == np.inf


class Compiled:
    """A compiled network that says what it runs in, as on a CPU that is not here."""

    def __init__(self, said, *layers):
        self.said, self.layers = said, layers

    def get_property(self, name):
        assert name == "INFERENCE_PRECISION_HINT"
        return openvino.Type(np.float32) if self.said == "f32" else openvino.Type.bf16

    def get_runtime_model(self):
        return self

    def get_ops(self):
        return [Layer(name) for name in self.layers]


class Layer:
    def __init__(self, name):
        self.name = name

    def get_rt_info(self):
        return {"runtimePrecision": self} if self.name else {}

    def astype(self, kind):
        return self.name


@pytest.mark.parametrize(
    ("said", "layers", "precision"),
    [("bf16", ["f32", "", "bf16"], "bf16"), ("bf16", ["f32"], "fp32"), ("f32", ["f32"], "fp32")],
)
def test_the_precision_is_that_of_the_layers_that_run_and_not_the_one_asked_for(
    said, layers, precision
):
    assert openvino_engine.executed(Compiled(said, *layers)) == precision


def test_an_engine_says_that_it_computes_in_another_precision(small, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_engine, "_HINTS", {"fp32": "f32", "bf16": "f32"})
    engine = make(small, tmp_path, "bf16")
    assert engine.precision == "fp32"
    assert engine.notes == ["OpenVINO computes in fp32 on this CPU, which has no bf16."]
