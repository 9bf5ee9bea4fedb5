"""A small member of each family of transformers, with random weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import timm
from torch import nn

from pipeline.trunks.registry import find
from pipeline.trunks.staging.architecture import Architecture

_NARROW: dict[str, Any] = {"embed_dim": 48, "num_heads": 3}
_FOUR: dict[str, Any] = {"depth": 4, **_NARROW}
_SWIN: dict[str, Any] = {"embed_dim": 24, "num_heads": (1, 2, 3, 4), "depths": (1, 1, 2, 1)}
#: timm's name → side in pixels, and what makes the member small.
SMALL: dict[str, tuple[int, dict[str, Any]]] = {
    "vit_tiny_patch16_224": (64, {"depth": 12, **_NARROW}),
    "vit_small_patch14_reg4_dinov2": (56, _FOUR),
    "vit_base_patch16_clip_224": (64, _FOUR),
    "vit_base_patch16_siglip_224": (64, {**_FOUR, "depth": 6}),
    "vit_relpos_small_patch16_224": (64, _FOUR),
    "deit3_small_patch16_224": (64, _FOUR),
    "beit_base_patch16_224": (64, _FOUR),
    "beitv2_base_patch16_224": (64, {**_FOUR, "depth": 2, "use_shared_rel_pos_bias": True}),
    "eva02_tiny_patch14_224": (56, _FOUR),
    "vit_small_patch16_dinov3": (64, _FOUR),
    "swin_tiny_patch4_window7_224": (96, _SWIN),
    "swinv2_tiny_window8_256": (64, _SWIN),
    "swinv2_cr_tiny_224": (64, _SWIN),
    "test_maxvit": (64, {}),
    "test_coatnet": (64, {}),
    "caformer_s18": (64, {}),
    "hiera_tiny_224": (224, {"embed_dim": 24, "num_heads": 1}),
    "davit_tiny": (64, {}),
    "pvt_v2_b0": (64, {}),
    "tiny_vit_5m_224": (64, {}),
    "test_mambaout": (64, {}),
}
TRANSFORMERS = [f"timm/{name}" for name in SMALL if timm.is_model(name)]


def member(name: str) -> tuple[Architecture, int]:
    """Return the architecture of a small member, and the side in pixels that it is tried at."""
    architecture = find(name)
    side, options = SMALL[name.removeprefix("timm/")]
    if options:
        architecture = replace(architecture, build=partial(_build, name, options))
    return architecture, architecture.preprocess.crop if _has_one_size(architecture) else side


def _has_one_size(architecture: Architecture) -> bool:
    """Tell whether this timm has the network for its own size alone, as 1.0.19 has BEiT."""
    model: Any = architecture.build()
    strict = getattr(getattr(model, "patch_embed", None), "strict_img_size", False)
    return strict and not hasattr(model, "set_input_size")


def _build(name: str, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(name.removeprefix("timm/"), **options)
    if getattr(model, "dynamic_img_size", False):
        fixed = {"dynamic_img_size": False, "img_size": 256}
        model = timm.create_model(name.removeprefix("timm/"), **options, **fixed)
    return model
