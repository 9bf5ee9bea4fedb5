"""The preprocessing inside an exported file is that of training, to two grey levels."""

import numpy as np
import onnxruntime
import pytest
import torch

from pipeline.images.preprocess import MAX_ASPECT, Preprocess
from pipeline.inference.exporting import onnx_file, openvino_file

SIZES = [(64, 64), (33, 50), (51, 32), (200, 133), (97, 300), (40, 401), (500, 37), (3, 90), (1, 1)]


def onnx_session(preprocess):
    """Return a function from uint8 images [B, H, W, 3] to crops, by ONNX."""
    model = onnx_file.preprocess_model(preprocess)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(None, {"images": images})[0]


def openvino_session(preprocess):
    """Return the same by OpenVINO."""
    openvino = pytest.importorskip("openvino")
    images, crops = openvino_file._prepared(preprocess)
    model = openvino.Core().compile_model(openvino.Model([crops], [images]), "CPU")
    return lambda images: model(images)[0]


@pytest.fixture(params=[onnx_session, openvino_session], ids=["onnx", "openvino"])
def session(request):
    return request.param


def smooth(height, width, seed=0):
    """Return a picture [3, H, W] that is no noise: noise is all that resizing takes away."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(1, 25, (3, 3))]
    return torch.from_numpy((127.5 * (1 + np.array(waves))).astype(np.uint8))


def both(run, preprocess, image):
    got = run(np.ascontiguousarray(image.permute(1, 2, 0).numpy())[None])[0]
    want = preprocess.apply(image).permute(1, 2, 0).numpy()
    assert got.shape == want.shape and got.dtype == np.uint8
    return np.abs(got.astype(int) - want.astype(int))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("squash", [False, True])
def test_every_shape_of_picture_gives_the_same_crop(session, interpolation, squash):
    preprocess = Preprocess(48, 41, interpolation=interpolation, squash=squash)
    run = session(preprocess)
    for height, width in SIZES:
        off = both(run, preprocess, smooth(height, width))
        assert off.max() <= 2 and off.mean() < 0.3, (height, width)


def test_where_nothing_is_resized_it_is_exact_with_odd_and_even_margins(session):
    for crop in (30, 31, 32):
        preprocess = Preprocess(32, crop)
        run = session(preprocess)
        for sides in ((32, 32), (32, 35), (32, 36), (37, 32)):
            assert both(run, preprocess, smooth(*sides)).max() == 0, (crop, sides)


def test_a_strip_is_cut_to_its_middle_first(session):
    preprocess = Preprocess(16, 14)  # margins of which the order of rounding can be told
    run = session(preprocess)
    for more in (1, 3, 257):
        image = smooth(16, 16 * MAX_ASPECT + more)
        assert both(run, preprocess, image).max() == 0, more


def test_a_batch_is_of_any_size(session):
    preprocess = Preprocess(20, 16)
    run = session(preprocess)
    images = np.stack([smooth(30, 40, seed).permute(1, 2, 0).numpy() for seed in range(3)])
    whole = run(images).copy()
    each = [run(image[None])[0].copy() for image in images]
    np.testing.assert_array_equal(whole, np.stack(each))
