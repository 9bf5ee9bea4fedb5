"""torchvision's classification CNNs, by their own names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from pipeline.errors import UsageError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.sources.download import download
from pipeline.trunks.sources.families import NOT_CNN, Family, family_of
from pipeline.trunks.sources.weights import read_weights
from pipeline.trunks.staging.architecture import Architecture, Pretrained
from pipeline.trunks.staging.graph import trace_forward


def names() -> list[str]:
    """Return the names of the classification CNNs."""
    return [name for name in list_models(module=torchvision.models) if not _refusal(name)]


def find(name: str) -> Architecture | None:
    """Return the architecture of that name, None where torchvision has no such model.

    Raises:
        UsageError: torchvision has it, but it is no classification CNN.
    """
    if name not in list_models():
        return None
    if name not in list_models(module=torchvision.models):
        kind = next((k for p, k in NOT_CNN.items() if fnmatchcase(name, p)), "no image classifier")
        raise UsageError(f"Trunk {name} is {kind}; trunks are classification CNNs.")
    if refusal := _refusal(name):
        raise UsageError(f"Trunk {name} is {refusal}; trunks are CNNs.")
    enum = get_model_weights(name)
    labels = tuple(enum.__members__)
    family = family_of(name)
    default = next(
        (label for label in ("IMAGENET1K_V1", "DEFAULT", *labels) if label in labels), None
    )
    if default is not None:
        default = enum[default].name  # DEFAULT is an alias
    return Architecture(
        name=name,
        family=family.title if family else "torchvision",
        build=partial(_build, name, family),
        trace=partial(trace_forward, ends_at=family.feature if family else None),
        weights=tuple(member.name for member in enum),
        default=default,
        pretrained=lambda label: _pretrained(name, enum[label]),
        preprocess=_preprocess(enum[default]) if default else Preprocess(256, 224),
        rename=family.renamed if family else str,
    )


def _refusal(name: str) -> str:
    return next((kind for pattern, kind in NOT_CNN.items() if fnmatchcase(name, pattern)), "")


def _build(name: str, family: Family | None) -> nn.Module:
    model: nn.Module = get_model(name, weights=None, **(family.arguments if family else {}))
    return model


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

    def fetch() -> dict[str, torch.Tensor]:
        if not path.is_file():
            download(weights.url, path, f"{weights.name} of {name}")
        return read_weights(path)

    return Pretrained(_preprocess(weights), fetch, path.is_file)
