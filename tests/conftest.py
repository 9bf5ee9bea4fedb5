"""Small images and a trunk that costs nothing, for the tests of everything around them."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

#: Tests import OpenVINO by themselves, too; see `pipeline.trunks.openvino_import`.
sys.modules.setdefault("openvino_telemetry", None)
DATA = Path(__file__).parents[2] / "shared" / "data"


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
    from pipeline.images.preprocess import Preprocess
    from pipeline.trunks import spec
    from pipeline.verbs import engines

    engine = FakeEngine()

    def resolve(name, weights, keys, *, memo, state_dir):
        stages = ("stem", "layer1", "layer2", "layer3", "layer4")
        digest = "d" * 64 if weights == "default" else "e" * 64
        return spec.TrunkFacts(name, weights, digest, Preprocess(10, 8), 11, stages, False), None

    def make_engine(trunk, key, recipe, cache):
        return engine

    monkeypatch.setattr(spec, "resolve", resolve)
    monkeypatch.setattr(engines, "make_engine", make_engine)
    monkeypatch.setattr(engines, "BATCH_SIZE", dict.fromkeys(engines.BATCH_SIZE, 4))
    return engine
