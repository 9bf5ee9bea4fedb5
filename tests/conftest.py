"""Small images and a trunk that costs nothing, for the tests of everything around them."""

import ctypes
import gc
import io
import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from functools import partialmethod
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings
from PIL import Image
from threadpoolctl import threadpool_limits

from pipeline.store.cache import Cache

if "mix_stderr" in signature(CliRunner).parameters:  # click 8.1, where it is on
    CliRunner.__init__ = partialmethod(CliRunner.__init__, mix_stderr=False)
    Result.output = property(lambda result: result.stdout + result.stderr)

# On a busy machine a test that takes milliseconds takes seconds.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

#: Tests import OpenVINO by themselves, too; see `pipeline.trunks.engines.openvino_import`.
sys.modules.setdefault("openvino_telemetry", None)
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with the longest files: workers take whole ones, and wait for the last to end."""
    weight = Counter()
    for item in items:
        weight[item.path] += 20 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: (-weight[item.path], item.path))


def shared(name: str) -> Path:
    """Return a data set beside the repository, or skip with a reason."""
    if not (DATA / name).is_dir():
        pytest.skip(f"the development data set {name} is not beside the repository")
    return DATA / name


def picture(seed: int, *, size: tuple[int, int] = (24, 20), kind: str = "PNG") -> bytes:
    """Return the bytes of a small random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def make_folder(root: Path, *, classes=("ants", "bees"), each: int = 10, start: int = 0) -> Path:
    """Make a folder with a folder of pictures for each class."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for n in range(each):
            (root / name / f"{n:03}.png").write_bytes(picture(start + 1000 * k + n))
    return root


class FakeEngine:
    """Features that say which picture they come from: means of the crop's channels and rows."""

    def __init__(self, name: str = "fake"):
        self.name = name
        self.precision = ""
        self.notes: list[str] = []
        self.batches: list[int] = []

    def run(self, batches):
        for crops in batches:
            self.batches.append(len(crops))
            x = crops.numpy().astype(np.float32)
            yield np.concatenate([x.mean((2, 3)), x.mean((1, 3))], axis=1)


@pytest.fixture
def fake_trunk(monkeypatch):
    """Replace the trunk by `FakeEngine`; return the engine, whose `batches` tell what it ran."""
    from pipeline.extraction import engines
    from pipeline.images.preprocess import Preprocess
    from pipeline.trunks import spec
    from pipeline.trunks.engines import choice

    engine = FakeEngine()

    def resolve(name, weights, keys, *, size, memo, state_dir):
        stages = ("stem", "layer1", "layer2", "layer3", "layer4")
        digest = "d" * 64 if weights == "default" else "e" * 64
        size = Preprocess(10, 8)
        return spec.TrunkFacts(name, weights, digest, size, 11, stages, False, weights, ()), None

    def make_engine(trunk, key, recipe, cache):
        return engine

    monkeypatch.setattr(spec, "resolve", resolve)
    monkeypatch.setattr(engines, "make_engine", make_engine)
    monkeypatch.setattr(choice, "BATCH_SIZE", dict.fromkeys(choice.BATCH_SIZE, 4))
    return engine


@contextmanager
def without_openvino():
    """Converting a trunk for OpenVINO takes longer than running it on a few small pictures."""
    from pipeline.trunks.engines import openvino_engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_engine, "available", lambda: False)
        yield


@pytest.fixture(autouse=True, scope="module")
def torch_alone():
    """PyTorch runs every trunk; tests of OpenVINO put it back."""
    with without_openvino():
        yield


def resident() -> int:
    """Return the memory that this process holds, in MB; 0 where that is not told."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) >> 8 if told.exists() else 0  # pages of 4 KB


@pytest.fixture(autouse=True, scope="module")
def memory_given_back():
    """Networks lie in cycles, which Python collects late: workers would grow to several GB."""
    before = resident()
    yield
    if resident() > before + 100:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)


@pytest.fixture(scope="module")
def one_thread():
    """Small problems are faster on one thread, and other work may run beside the tests."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def cache(tmp_path):
    return Cache.at(tmp_path / "cache")


@pytest.fixture
def two_threads():
    """Let torch have two threads, as it has where nobody limits them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def table(tmp_path):
    from tables import make_table

    return make_table(tmp_path / "t.h5", train=60, val=24, test=24, dim=32)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Return photos and a cache with their table and head, not to be changed."""
    from photos import prepare

    with without_openvino():
        return prepare(tmp_path_factory.mktemp("tune"))


@pytest.fixture
def work(prepared, tmp_path):
    """Return a copy of them that a test may change; the table still names the first photos."""
    shutil.copytree(prepared, tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture(scope="session")
def modelled(prepared, tmp_path_factory):
    """Return photos and a cache with their table, head and model, not to be changed."""
    from photos import prepare_model

    with without_openvino():
        return prepare_model(tmp_path_factory.mktemp("model"), prepared)
