"""torchvision's classification networks, by their own names."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.vision_transformer import interpolate_embeddings

from pipeline.errors import UsageError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.sources.downloads import download
from pipeline.trunks.sources.weights import read_weights
from pipeline.trunks.staging.architecture import Architecture, Pretrained
from pipeline.trunks.staging.graph import trace_forward

#: Patterns of names → the family, as its paper calls it.
FAMILIES = {
    "alexnet": "AlexNet",
    "vgg??": "VGG",
    "vgg*_bn": "VGG with BatchNorm",
    "resnet*": "ResNet",
    "resnext*": "ResNeXt",
    "wide_resnet*": "Wide ResNet",
    "regnet_*": "RegNet",
    "densenet*": "DenseNet",
    "squeezenet*": "SqueezeNet",
    "googlenet": "GoogLeNet",
    "inception_v3": "Inception v3",
    "mobilenet_v2": "MobileNet v2",
    "mobilenet_v3*": "MobileNet v3",
    "shufflenet_v2*": "ShuffleNet v2",
    "mnasnet*": "MnasNet",
    "efficientnet_b*": "EfficientNet",
    "efficientnet_v2*": "EfficientNet v2",
    "convnext*": "ConvNeXt",
    "vit_*": "Vision Transformer",
    "swin_?": "Swin Transformer",
    "swin_v2_*": "Swin Transformer v2",
    "maxvit*": "MaxViT",
}
#: Patterns of names → why the network is refused.
REFUSED = {"quantized_*": "a quantized network, which runs on integers"}
#: Modules whose averaged output is the feature: a classifier that is a convolution sees that.
_FEATURE = {"SqueezeNet": "features"}
#: What torchvision sets together with the ImageNet weights: they expect inputs scaled to ±1.
_INCEPTION = {"transform_input": True, "init_weights": True}
_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}


def names() -> list[str]:
    """Return the names of the classification networks."""
    return [name for name in list_models(module=torchvision.models) if not _matched(REFUSED, name)]


def find(name: str) -> Architecture | None:
    """Return the architecture of that name, None where torchvision has no such model.

    Raises:
        UsageError: torchvision has it, but it is no network that classifies images.
    """
    if name not in list_models():
        return None
    refusal = _matched(REFUSED, name)
    if refusal or name not in list_models(module=torchvision.models):
        kind = refusal or "no image classifier"
        raise UsageError(f"Trunk {name} is {kind}; trunks classify images.")
    return _architecture(name, None)


def _architecture(name: str, label: str | None) -> Architecture:
    """Return the architecture as the weights of a name want it; None: as the default ones do."""
    weights = get_model_weights(name)
    default = weights.__members__.get("IMAGENET1K_V1", weights.DEFAULT)
    family = _matched(FAMILIES, name) or "torchvision"
    preprocess = _preprocess(default if label is None else weights[label])
    arguments = dict(_ARGUMENTS.get(name, {}))
    if family == "Vision Transformer":  # as many position embeddings as the input has patches
        arguments["image_size"] = preprocess.crop
    return Architecture(
        name=name,
        family=family,
        build=partial(get_model, name, weights=None, **arguments),
        trace=partial(trace_forward, ends_at=_FEATURE.get(family)),
        weights=tuple(member.name for member in weights),
        default=default.name,
        pretrained=lambda label: _pretrained(name, weights[label]),
        preprocess=preprocess,
        rename=_present_name,
        convert=_interpolated if family == "Vision Transformer" else None,
        resize=partial(_resize, name),
        built_for=partial(_architecture, name),
    )


def _resize(name: str, model: nn.Module, side: int) -> nn.Module | None:
    """Return a model for an input of another side; None where it takes any.

    Raises:
        ValueError: it does not take that side.
    """
    state = model.state_dict()
    if name.startswith("vit_"):
        own: Any = model
        patch = int(own.patch_size)
        if side % patch:
            raise ValueError(f"its patches are {patch} px, and {side} is no multiple of that")
        other = get_model(name, weights=None, image_size=side)
        state = interpolate_embeddings(side, patch, state)
    elif name.startswith("maxvit"):
        other = get_model(name, weights=None, input_size=(side, side))
    else:
        return None
    other.load_state_dict(state)
    kept: nn.Module = other.requires_grad_(False)
    return kept


def _interpolated(tensors: Mapping[str, torch.Tensor], model: nn.Module) -> Any:
    """Return a ViT's tensors with position embeddings for the input that a model is built for."""
    own: Any = model
    return interpolate_embeddings(own.image_size, own.patch_size, OrderedDict(tensors))


def _matched(table: Mapping[str, str], name: str) -> str:
    return next((value for pattern, value in table.items() if fnmatchcase(name, pattern)), "")


def _present_name(name: str) -> str:
    """Return a tensor's name: DenseNet's files of 2017 say `norm.1` for what is now `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", name)


def _preprocess(weights: Any) -> Preprocess:
    preset = weights.transforms()
    return Preprocess(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _pretrained(name: str, weights: Any) -> Pretrained:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name

    def fetch() -> Mapping[str, torch.Tensor]:
        if not path.is_file():
            download(weights.url, path, f"{weights.name} of {name}")
        return read_weights(path)

    return Pretrained(_preprocess(weights), fetch, path.is_file)
