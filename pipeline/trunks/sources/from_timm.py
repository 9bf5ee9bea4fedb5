"""timm's CNNs, as `timm/NAME` or, with the tag of pretrained weights, `timm/NAME.TAG`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from timm import data
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor, nn

from pipeline.errors import PipelineError, UsageError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.sources.download import failed, reach
from pipeline.trunks.sources.families import TIMM_NOT_CNN
from pipeline.trunks.staging.architecture import Architecture, Pretrained
from pipeline.trunks.staging.graph import trace_pre_logits

PREFIX = "timm/"
_FILES = ("model.safetensors", "pytorch_model.bin")


def names() -> list[str]:
    """Return the names of the CNNs, without tags."""
    modules = _modules()
    return [PREFIX + n for n in timm.list_models() if not _refusal(n, modules.get(n, ""))]


def find(name: str) -> Architecture | None:
    """Return the architecture of that name, None where timm has no such model.

    Args:
        name: with `timm/`, with or without a tag.

    Raises:
        UsageError: timm has it, but it is no CNN or has no weights of that tag.
    """
    base, _, tag = name.removeprefix(PREFIX).partition(".")
    if not name.startswith(PREFIX) or not timm.is_model(base):
        return None
    if refusal := _refusal(base, _modules().get(base, "")):
        raise UsageError(f"Trunk {PREFIX}{base} is {refusal}; trunks are CNNs on C×H×W maps.")
    architecture = _architecture(base, tag or None)
    if tag:
        architecture.label(tag)  # complains where there is no such tag
    return architecture


def _architecture(base: str, tag: str | None) -> Architecture:
    tags = {
        name.partition(".")[2] or "pretrained": cfg
        for name, cfg in get_arch_pretrained_cfgs(base).items()
        if cfg.has_weights
    }
    usual = get_pretrained_cfg(base)
    default = tag or (usual.tag or "pretrained" if usual is not None else None)
    if default not in tags and tag is None:
        default = next(iter(tags), None)
    chosen = tags.get(default or "", usual)
    return Architecture(
        name=PREFIX + base,
        family=f"timm {_modules().get(base, '')}".strip(),
        build=partial(timm.create_model, base, pretrained=False),
        trace=trace_pre_logits,
        weights=tuple(tags),
        default=default,
        pretrained=lambda label: _pretrained(base, label, tags[label]),
        preprocess=_preprocess(chosen),
    )


def _modules() -> dict[str, str]:
    """Return model name → the module of timm that defines it."""
    return {
        name: module
        for module in timm.list_modules()
        for name in timm.models.list_models(module=module)
    }


def _refusal(name: str, module: str) -> str:
    pattern, kind = TIMM_NOT_CNN.get(module, ("", ""))
    return kind if pattern and fnmatchcase(name, pattern) else ""


def _preprocess(cfg: Any) -> Preprocess:
    """Return what timm's own evaluation does with the input (`resolve_data_config`)."""
    resolve = cast(Any, data).resolve_data_config
    values = cfg.to_dict() if cfg is not None else {}
    config = resolve(pretrained_cfg=values or {"input_size": (3, 224, 224)})
    size = config["input_size"][1]
    return Preprocess(
        resize=math.floor(size / config["crop_pct"]),
        crop=size,
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        squash=config["crop_mode"] == "squash",
    )


def _pretrained(base: str, label: str, cfg: Any) -> Pretrained:
    full = base if label == "pretrained" else f"{base}.{label}"

    def fetch() -> Mapping[str, Tensor]:
        what = f"{label} of {PREFIX}{base}"
        held = _held(cfg)
        if held is None:
            reach(_address(cfg), what)
        # A file that is here is named outright: asking the hub about it takes a network.
        overlay = {} if held is None else {"file": str(held)}
        try:
            model: nn.Module = timm.create_model(
                full, pretrained=True, pretrained_cfg_overlay=overlay
            )
        except Exception as error:  # every client below timm has errors of its own
            reason = str(error).split("\n")[0].rstrip(".")
            if held is not None:
                raise PipelineError(f"Weights file {held} cannot be read: {reason}.") from error
            raise failed(what, reason) from error
        return model.state_dict()

    return Pretrained(_preprocess(cfg), fetch, lambda: _held(cfg) is not None)


def _address(cfg: Any) -> str:
    return f"{constants.ENDPOINT}/{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url


def _held(cfg: Any) -> Path | None:
    """Return the file of earlier downloads that holds the weights."""
    if cfg.hf_hub_id:
        files = [cfg.hf_hub_filename] if cfg.hf_hub_filename else _FILES
        found = [huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, name) for name in files]
        return next((Path(path) for path in found if isinstance(path, str)), None)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(cfg.url or "-").name
    return path if path.is_file() else None
