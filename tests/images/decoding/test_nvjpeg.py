"""Which files go to the GPU's decoder, and what happens where it refuses; the GPU is a fake."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from decoded import no_decoder
from PIL import Image

from pipeline.errors import BadImage
from pipeline.images.decoding import decode as cpu
from pipeline.images.decoding import nvjpeg
from pipeline.images.decoding.colour import matrix_profile
from pipeline.images.decoding.crops import crops
from pipeline.images.decoding.loader import load
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.engines.choice import decoder_on
from pipeline.trunks.spec import LIBJPEG, NVJPEG, PRECISIONS

PRE = Preprocess(40, 32)
DIGEST = bytes(32)


WIDE = matrix_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.3127, 0.3290), None)


class Gpu:
    """libjpeg-turbo in nvJPEG's place, some levels brighter, without the EXIF orientation."""

    def __init__(self, brighter=0):
        self.brighter, self.decoded = brighter, 0

    def __call__(self, given, device="cpu"):
        if device == "cpu":
            return REAL(given)
        self.decoded += len(given)
        return [(REAL(one).int() + self.brighter).clamp(0, 255).to(torch.uint8) for one in given]


REAL = cpu.decode_jpeg


@pytest.fixture
def gpu(monkeypatch):
    fake = Gpu()
    monkeypatch.setattr(cpu, "decode_jpeg", fake)
    monkeypatch.setattr(nvjpeg, "_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    stream = SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    nvjpeg.is_right.cache_clear()
    yield fake
    nvjpeg.is_right.cache_clear()


def same(data, numbers=(0, 1, 2)):
    found = nvjpeg.crops_on_gpu(data, PRE, DIGEST, numbers)
    wanted = crops(data, PRE, DIGEST, numbers)
    pairs = zip(found.crops, wanted.crops, strict=True)
    return found.remarks == wanted.remarks and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("orientation", range(10))
def test_a_plain_jpeg_is_decoded_there_upright(gpu, picture, encode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert same(encode(picture, "JPEG", exif=exif)) and gpu.decoded == 1


def test_grey_jpegs_too(gpu, picture, encode):
    assert same(encode(Image.fromarray(picture).convert("L"), "JPEG")) and gpu.decoded == 1


def test_a_broken_profile_is_told_there_too(gpu, picture, encode):
    data = encode(picture, "JPEG", icc_profile=b"broken")
    assert same(data) and gpu.decoded == 1
    assert nvjpeg.crops_on_gpu(data, PRE, DIGEST, [0]).remarks == (
        "Colour profile ignored (damaged)",
    )


def others(picture, encode):
    image = Image.fromarray(picture)
    plain = encode(picture, "JPEG")
    return {
        "png": encode(picture, "PNG"),
        "progressive": encode(picture, "JPEG", progressive=True),
        "cmyk": encode(image.convert("CMYK"), "JPEG"),
        "rgb": encode(picture, "JPEG", keep_rgb=True),
        "more behind the end": plain + b"more",
        "colours of its own": encode(picture, "JPEG", icc_profile=WIDE),
    }


@pytest.mark.parametrize(
    "kind", ["png", "progressive", "cmyk", "rgb", "more behind the end", "colours of its own"]
)
def test_every_other_file_is_decoded_on_the_cpu(gpu, picture, encode, kind):
    assert same(others(picture, encode)[kind]) and gpu.decoded == 0


def test_a_large_picture_is_decoded_there_once_and_whole(gpu, encode):
    rows, columns = np.mgrid[0:900, 0:1200] / 10
    waves = 127 + 100 * np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=-1)
    data = encode(waves.astype(np.uint8), "JPEG")
    there = nvjpeg.crops_on_gpu(data, PRE, DIGEST, [0, 1]).crops
    assert gpu.decoded == 1 and [
        cpu.reduction(cpu.jpeg_header_of(data), least) for least in (100, 200)
    ] == [8, 4]
    apart = [(a.float() - b.float()).abs().mean() for a, b in
             zip(there, crops(data, PRE, DIGEST, [0, 1]).crops, strict=True)]  # fmt: skip
    assert max(apart) < 8


@pytest.mark.parametrize("kind", ["truncated", "nothing", "headless"])
def test_the_cpu_says_what_is_a_bad_image(gpu, picture, encode, kind):
    plain = encode(picture, "JPEG")
    data = {"truncated": plain[:-400], "nothing": b"", "headless": b"\xff\xd8\xff\xd9"}[kind]
    with pytest.raises(BadImage):
        nvjpeg.crops_on_gpu(data, PRE, DIGEST, [0])
    assert gpu.decoded == 0


def test_very_large_pictures_stay_on_the_cpu(gpu, picture, encode, monkeypatch):
    monkeypatch.setattr(nvjpeg, "LARGE", 48 * 64 - 1)
    assert same(encode(picture, "JPEG")) and gpu.decoded == 0


@pytest.mark.parametrize("error", [RuntimeError("unsupported"), torch.OutOfMemoryError("CUDA")])
def test_what_the_gpu_refuses_the_cpu_decodes(gpu, picture, encode, monkeypatch, error):
    def refuse(files):
        gpu.decoded += 1
        raise error

    monkeypatch.setattr(nvjpeg._together, "decode", refuse)
    assert same(encode(picture, "JPEG")) and gpu.decoded == 1


def test_it_is_used_in_half_precision_alone(gpu):
    used = [name for name in PRECISIONS if decoder_on("cuda", name) == NVJPEG]
    assert used == ["bf16", "fp16"] and decoder_on("cpu", "bf16") == LIBJPEG
    assert gpu.decoded == 1  # looked at once


@pytest.mark.parametrize("fault", ["other pixels", "another shape", "no nvJPEG", "no decoder"])
def test_a_decoder_that_is_not_there_or_wrong_is_not_used(gpu, monkeypatch, fault):
    def refuse(data):
        raise RuntimeError("compile torchvision with nvJPEG support")

    if fault == "other pixels":
        gpu.brighter = 3
    elif fault == "another shape":
        monkeypatch.setattr(nvjpeg, "_nvjpeg", lambda files: [torch.zeros((1, 96, 128))])
    elif fault == "no nvJPEG":
        monkeypatch.setattr(nvjpeg, "_nvjpeg", refuse)
    else:
        monkeypatch.setattr(cpu, "decode_jpeg", no_decoder)
    assert not nvjpeg.is_right()


def test_the_loader_takes_its_crops(gpu, picture, encode):
    gpu.brighter = 1
    data = encode(picture, "JPEG")
    options = {"batch_size": 2, "workers": 2, "pad": False}
    (plain,) = load([(data, None, 0)], PRE, **options)
    (there,) = load([(data, None, 0)], PRE, cut=nvjpeg.crops_on_gpu, **options)
    assert gpu.decoded == 1
    apart = there.crops.int() - plain.crops.int()
    assert np.isclose(float(apart.float().mean()), 1, atol=0.1)


@pytest.mark.parametrize("faulty", [None, 3])
def test_what_threads_ask_for_while_a_call_runs_is_decoded_in_the_next_one(faulty):
    calls = []

    def decode(files):
        calls.append(len(files))
        until = time.monotonic() + 30
        while len(calls) == 1 and len(together.waiting) < 5 and time.monotonic() < until:
            time.sleep(0.001)
        if bytes([faulty or 99]) in files:
            raise RuntimeError("unsupported")
        return [torch.tensor(list(data)) for data in files]

    together = nvjpeg.Together(decode)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(together, bytes([0]))
        while not calls:
            time.sleep(0.001)
        asked = [first, *(pool.submit(together, bytes([n])) for n in range(1, 6))]
    assert calls == [1, 5] + [1] * 5 * (faulty is not None)
    for n, one in enumerate(asked):
        if n == faulty:
            assert str(one.exception()) == "unsupported"
        else:
            assert one.result().tolist() == [n]


def test_a_batch_of_the_loader_keeps_a_fault_to_its_image(gpu, picture, encode, monkeypatch):
    whole, real = [encode(np.roll(picture, n, 1), "JPEG") for n in range(12)], gpu.__call__
    broken = whole[5][:-400] + b"\xff\xd9"  # plain by its header

    def decode(given, device="cpu"):
        if device == "cuda" and any(len(one) == len(broken) for one in given):
            raise RuntimeError("corrupt")
        return real(given, device)

    monkeypatch.setattr(cpu, "decode_jpeg", decode)
    files = [*whole[:5], broken, *whole[6:]]
    options = {"batch_size": 12, "workers": 6}
    (batch,) = load([(one, None, 0) for one in files], PRE, cut=nvjpeg.crops_on_gpu, **options)
    (plain,) = load([(one, None, 0) for one in files], PRE, **options)
    assert batch.bad == plain.bad and set(batch.bad) <= {5}
    assert torch.equal(batch.crops, plain.crops) and gpu.decoded == 11
