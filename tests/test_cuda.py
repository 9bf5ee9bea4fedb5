"""What only a GPU can show; skipped where there is none."""

import numpy as np
import pytest
import torch
from conftest import make_folder

import pipeline

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA on this machine")


def cosine(a, b):
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()


@pytest.mark.parametrize(
    ("precision", "least"), [("fp32", 0.9999), ("bf16", 0.999), ("fp16", 0.999)]
)
def test_extraction_equals_the_cpus(tmp_path, precision, least):
    folder = make_folder(tmp_path / "photos", each=20)
    options = {"trunk": "resnet18", "weights": "random", "image_size": 96}
    cpu = pipeline.extract(folder, cache=tmp_path / "a", precision="fp32", device="cpu", **options)
    gpu = pipeline.extract(
        folder, cache=tmp_path / "b", precision=precision, device="cuda", **options
    )
    assert gpu.provenance.engine.startswith("torch-cuda")
    assert cosine(cpu.features, gpu.features) >= least


def test_jpegs_decoded_on_the_gpu_look_as_on_the_cpu():
    import io

    from PIL import Image

    from pipeline.images.decoding import nvjpeg
    from pipeline.images.decoding.crops import crops
    from pipeline.images.preprocess import Preprocess

    if not nvjpeg.is_right():
        pytest.skip("torchvision's build has no nvJPEG")
    rows, columns = np.mgrid[0:375, 0:500] / 40
    waves = 127 + 100 * np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=-1)
    file = io.BytesIO()
    Image.fromarray(waves.astype(np.uint8)).save(file, "JPEG")
    asked = (file.getvalue(), Preprocess(256, 224), bytes(32), [0, 1, 2])
    for there, here in zip(nvjpeg.crops_on_gpu(*asked).crops, crops(*asked).crops, strict=True):
        assert (there.float() - here.float()).abs().mean() <= nvjpeg.ALIKE


def test_jpegs_decoded_in_one_call_are_those_decoded_one_by_one():
    import io

    from PIL import Image

    from pipeline.images.decoding import nvjpeg

    if not nvjpeg.is_right():
        pytest.skip("torchvision's build has no nvJPEG")
    files = []
    for height, width in ((375, 500), (64, 48), (200, 200)):
        file, rows = io.BytesIO(), np.mgrid[0:height, 0:width][0]
        Image.fromarray((rows % 256).astype(np.uint8)).convert("RGB").save(file, "JPEG")
        files.append(file.getvalue())
    for one, data in zip(nvjpeg._nvjpeg(files), files, strict=True):
        assert torch.equal(one, nvjpeg._nvjpeg([data])[0])
    for one in nvjpeg._nvjpeg(files):
        assert one.device.type == "cuda" and one.shape[0] == 3


def test_a_real_out_of_memory_halves_the_batch(tmp_path):
    from pipeline.images.preprocess import Preprocess
    from pipeline.trunks.engines.torch_engine import TorchEngine
    from pipeline.trunks.feature_net import FeatureNet
    from pipeline.trunks.registry import load

    trunk = load("resnet18", "random", state_dir=tmp_path)
    net = FeatureNet(trunk.module, Preprocess(256, 224), "feature", "own")
    engine = TorchEngine(net, device="cuda", precision="fp32", size=224)
    crops = torch.zeros((256, 3, 224, 224), dtype=torch.uint8)
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.5e9 / total))
    try:
        (rows,) = engine.run([crops])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert rows.shape == (256, 512) and engine.limit is not None and engine.notes


def test_fine_tuning_takes_the_cpus_steps(tmp_path):
    from pipeline.finetuning.finetune import finetune_head
    from pipeline.finetuning.options import FinetuneOptions
    from pipeline.store.cache import Cache

    folder = make_folder(tmp_path / "photos", each=20)
    options = {"trunk": "resnet18", "weights": "random", "image_size": 96, "precision": "fp32"}
    losses = []
    for device in ("cpu", "cuda"):
        cache = tmp_path / device
        table = pipeline.extract(folder, cache=cache, device="cpu", **options)
        pipeline.fit_head(table, clf="logreg", cache=cache, folds=2)
        options = FinetuneOptions(epochs=2, views=2, device=device, precision="fp32")
        history = finetune_head(None, options, Cache.at(cache)).info.history
        losses.append([epoch["loss"] for epoch in history])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
