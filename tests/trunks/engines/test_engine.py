import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError, UsageError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.engines import devices
from pipeline.trunks.engines.copies import DirectCopies
from pipeline.trunks.engines.devices import choose_device, choose_precision
from pipeline.trunks.engines.fuse import fuse
from pipeline.trunks.engines.torch_engine import TorchEngine
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.registry import load

PREPROCESS = Preprocess(40, 32)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    return load("resnet18", "random", state_dir=tmp_path_factory.mktemp("weights"))


def crops(count=3, size=32):
    return torch.randint(
        0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1)
    ).to(torch.uint8)


def engine(trunk, precision="fp32", layer="feature", pool="own") -> TorchEngine:
    import copy

    net = FeatureNet(copy.deepcopy(trunk.module), PREPROCESS, layer, pool)
    return TorchEngine(net, device="cpu", precision=precision, size=32)


def rows_of(engine, x):
    (rows,) = engine.run([x])
    return rows


def plain(trunk, x):
    mean = torch.tensor(PREPROCESS.mean).view(1, 3, 1, 1)
    std = torch.tensor(PREPROCESS.std).view(1, 3, 1, 1)
    with torch.inference_mode():
        return trunk.module((x.float() / 255 - mean) / std).numpy()


def cosine(a, b):
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.999)])
def test_rows_agree_with_the_plain_trunk_in_fp32(trunk, precision, least):
    rows = rows_of(engine(trunk, precision), crops())
    assert rows.dtype == np.float32 and rows.shape == (3, 512)
    assert cosine(rows, plain(trunk, crops())) >= least


def test_a_row_does_not_depend_on_its_place_or_its_neighbours(trunk):
    one, x = engine(trunk, "bf16"), crops(4)
    rows = rows_of(one, x)
    shuffled = rows_of(one, torch.stack([x[3], torch.zeros_like(x[0]), x[0], x[1]]))
    assert rows[[3, 0, 1]].tobytes() == shuffled[[0, 2, 3]].tobytes()


@pytest.mark.parametrize(
    ("layer", "pool", "dim"),
    [
        ("stem", "avg", 64),
        ("layer2", "max", 128),
        ("layer3", "gem", 256),
        ("layer4", "flat", 512),
        ("layer4", "avg", 512),
    ],
)
def test_a_layer_and_a_pooling_give_their_number_of_features(trunk, layer, pool, dim):
    rows = rows_of(engine(trunk, layer=layer, pool=pool), crops())
    assert rows.shape == (3, dim) and np.isfinite(rows).all()
    assert np.ptp(rows, axis=0).max() > 0


def test_poolings_are_what_their_names_say(trunk):
    flat = rows_of(engine(trunk, layer="layer3", pool="flat"), crops()).reshape(3, 256, -1)
    np.testing.assert_allclose(
        rows_of(engine(trunk, layer="layer3", pool="avg"), crops()), flat.mean(2), rtol=1e-4
    )
    np.testing.assert_allclose(
        rows_of(engine(trunk, layer="layer3", pool="max"), crops()), flat.max(2), rtol=1e-4
    )
    gem = (np.clip(flat, 1e-6, None) ** 3).mean(2) ** (1 / 3)
    np.testing.assert_allclose(
        rows_of(engine(trunk, layer="layer3", pool="gem"), crops()), gem, rtol=1e-3
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_several_layers_stand_side_by_side_each_block_of_length_one(trunk, precision):
    rows = rows_of(engine(trunk, precision, "layer2+layer3+feature", "avg"), crops())
    want = []
    for layer, pool in (("layer2", "avg"), ("layer3", "avg"), ("feature", "own")):
        block = rows_of(engine(trunk, precision, layer, pool), crops())
        want.append(block / np.linalg.norm(block, axis=1, keepdims=True))
    np.testing.assert_allclose(rows, np.concatenate(want, 1), atol=1e-6)


def test_a_block_of_zeros_stays_zeros(trunk):
    import copy

    module = copy.deepcopy(trunk.module)
    module.stages["layer3"] = nn.Sequential(module.stages["layer3"], Nothing())
    net = FeatureNet(module, PREPROCESS, "layer2+layer3", "avg")
    with torch.no_grad():
        rows = net(crops()).numpy()
    assert not rows[:, 128:].any() and np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows[:, :128], axis=1), 1, rtol=1e-5)


class Nothing(nn.Module):
    def forward(self, x):
        return x * 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_pass_gives_the_same_bits_for_several_features_as_a_pass_for_each(trunk, precision):
    features = [("layer3", "gem"), ("feature", "own"), ("layer2", "max"), ("stem+layer4", "avg")]
    net = FeatureNet(trunk.module, PREPROCESS, *features[0], also=features[1:])
    widths = net.widths(32)
    rows = rows_of(TorchEngine(net, device="cpu", precision=precision, size=32), crops())
    assert widths == [256, 512, 128, 64 + 512] and rows.shape == (3, sum(widths))
    parts = np.split(rows, np.cumsum(widths)[:-1], 1)
    for part, (layer, pool) in zip(parts, features, strict=True):
        alone = rows_of(engine(trunk, precision, layer, pool), crops())
        assert part.tobytes() == alone.tobytes(), layer


def test_batch_norm_is_folded_into_every_convolution_of_a_resnet(trunk):
    net = engine(trunk).net
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


class PreActivation(nn.Module):
    """The convolution's output is used twice: folding would change the shortcut."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.bn.running_mean.fill_(2.0)

    def forward(self, x):
        y = self.conv(x)
        return y + self.bn(y)


def test_a_fold_that_would_change_the_result_is_not_made():
    net = PreActivation().eval()
    assert fuse(net, torch.rand(2, 3, 8, 8)) is net


class Hungry(nn.Module):
    """Runs out of memory above so many images, as a GPU does."""

    def __init__(self, most):
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x.float().mean((2, 3))


def hungry(most) -> TorchEngine:
    made = TorchEngine.__new__(TorchEngine)
    made.name, made.notes, made.limit = "torch-fake", [], None
    made.device, made.precision, made.net = torch.device("cpu"), "fp32", Hungry(most)
    made.copies = DirectCopies(made.device)
    return made


def test_a_batch_that_does_not_fit_is_halved_for_good_and_told():
    one, x = hungry(3), crops(10)
    np.testing.assert_allclose(rows_of(one, x), x.float().mean((2, 3)).numpy())
    assert one.net.seen == [10, 5, 3, 3, 3, 1]
    assert one.notes == [
        "Out of memory on cpu with 10 images at once; going on with 5.",
        "Out of memory on cpu with 5 images at once; going on with 3.",
    ]
    one.net.seen.clear()
    rows_of(one, x)
    assert one.net.seen == [3, 3, 3, 1]


def test_an_image_that_does_not_fit_alone_ends_in_a_sentence():
    with pytest.raises(PipelineError, match="One image does not fit the memory"):
        rows_of(hungry(0), crops(2))


@pytest.mark.parametrize(
    ("cuda", "mps", "want"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_device_there_is(monkeypatch, cuda, mps, want):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == want


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="has no cuda; it has cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("device", "hardware", "want"),
    [
        ("cuda", True, "bf16"),
        ("cuda", False, "fp32"),
        ("cpu", True, "bf16"),
        ("cpu", False, "fp32"),
        ("mps", True, "fp32"),
    ],
)
def test_precision_auto_is_bf16_where_the_hardware_has_it(monkeypatch, device, hardware, want):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kw: hardware)
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: hardware)
    assert choose_precision("auto", device) == want
    assert choose_precision("fp32", device) == "fp32"


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        choose_precision("fp16", "cpu")


@pytest.mark.parametrize(
    ("flags", "want"),
    [("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("fpu avx2", False)],
)
def test_bf16_is_read_from_the_cpu_flags(tmp_path, flags, want):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert devices.cpu_has_bf16(path) is want
    assert devices.cpu_has_bf16(tmp_path / "none") is False


def test_on_a_gpu_the_stem_is_cast_with_the_other_stages(trunk, monkeypatch):
    """The CPU stands in for a GPU: what is under test is the network and not the copies."""
    import copy

    net = FeatureNet(copy.deepcopy(trunk.module), PREPROCESS, "feature", "own")
    made = net.cast(torch.bfloat16, stem=True)
    kinds = {
        name: {p.dtype for p in stage.parameters()} for name, stage in made.trunk.stages.items()
    }
    assert set.union(*kinds.values()) == {torch.bfloat16}
    with torch.no_grad():
        rows = made(crops())
    assert rows.dtype == torch.float32 and cosine(rows.numpy(), plain(trunk, crops())) > 0.999


@pytest.mark.slow
def test_a_compiled_engine_gives_the_same_rows(trunk):
    import copy
    import shutil

    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    net = FeatureNet(copy.deepcopy(trunk.module), PREPROCESS, "layer1", "avg")
    made = TorchEngine(net, device="cpu", precision="fp32", size=32, compiled=True)
    assert made.name == "torch-cpu-compiled"
    assert (
        cosine(rows_of(made, crops()), rows_of(engine(trunk, layer="layer1", pool="avg"), crops()))
        > 0.999999
    )


def test_what_cannot_be_compiled_ends_in_a_sentence(trunk, monkeypatch):
    def broken(net):
        def run(x):
            raise RuntimeError("InvalidCxxCompiler: no C++ compiler found\nmore")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    net = FeatureNet(trunk.module, PREPROCESS, "feature", "own")
    with pytest.raises(
        UsageError, match=r"does not work here \(InvalidCxxCompiler: .* found\)\. G"
    ):
        TorchEngine(net, device="cpu", precision="fp32", size=32, compiled=True)
