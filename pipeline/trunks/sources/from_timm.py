"""timm's networks, as `timm/NAME` or, with the tag of pretrained weights, `timm/NAME.TAG`."""

from __future__ import annotations

import math
import sys
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
from pipeline.trunks.sources.downloads import check_reachable, failed
from pipeline.trunks.staging.architecture import Architecture, Pretrained
from pipeline.trunks.staging.graph import trace_pre_logits

PREFIX = "timm/"
#: Why a network is refused → timm's modules, and patterns of `module.name` where only some of a
#: module's networks are. `scripts/make_trunks.py` tries every module against this table.
REFUSED = {
    "more than one tensor runs from block to block": (
        "coat crossvit gemma4_vit mvitv2 naflexvit pit tnt efficientvim"
    ),
    "its class token joins late, so that no block is followed by what the next one takes": (
        "cait convit volo xcit"
    ),
    "all its blocks are one module, which cannot be parted": "deepseek_vit qwen3_vit",
    "its last blocks turn maps into tokens": "efficientformer levit",
    "what it does depends on its input's shape": "twins vision_transformer_sam",
    "it is an encoder without a feature vector": "mobilenetv5.*_enc",
    "it is a recurrent network": "sequencer",
}
_FILES = ("model.safetensors", "pytorch_model.bin")
#: Why nothing is downloaded, where huggingface_hub is told not to.
OFFLINE = "HF_HUB_OFFLINE is set, and it is not in the hub's cache, whose place HF_HOME names"


def names() -> list[str]:
    """Return the names of the networks that can be cut into stages, without tags."""
    return [PREFIX + name for name in timm.list_models() if not _refusal(name)]


def find(name: str) -> Architecture | None:
    """Return the architecture of that name, None where timm has no such model.

    Args:
        name: with `timm/`, with or without a tag.

    Raises:
        UsageError: timm has it, but it cannot be cut into stages, or has no weights of that tag.
    """
    base, _, tag = name.removeprefix(PREFIX).partition(".")
    if not name.startswith(PREFIX) or not timm.is_model(base):
        return None
    check_allowed(base)
    tags = {
        full.partition(".")[2] or "pretrained": config
        for full, config in get_arch_pretrained_cfgs(base).items()
        if config.has_weights
    }
    usual = get_pretrained_cfg(base)
    default = tag or (usual.tag or "pretrained" if usual is not None else None)
    if default not in tags and not tag:
        default = next(iter(tags), None)
    preprocess = preprocess_of(tags.get(default or "", usual))
    architecture = Architecture(
        name=PREFIX + base,
        family=f"timm {module_of(base)}",
        build=partial(build, f"{base}.{tag}" if tag else base, preprocess.crop),
        trace=trace_pre_logits,
        tag=tag,
        convert=partial(convert, base),
        weights=tuple(tags),
        default=default,
        pretrained=lambda label: _pretrained(base, label, tags[label]),
        preprocess=preprocess,
        resize=resize,
        built_for=partial(_tagged, base),
        licence=getattr(tags.get(default or ""), "license", None) or "",
    )
    if tag:
        architecture.label(tag)  # complains where there is no such tag
    return architecture


def _tagged(base: str, tag: str) -> Architecture:
    """Return the architecture of a network with a tag that it has."""
    found = find(f"{PREFIX}{base}.{tag}")
    assert found is not None
    return found


def build(name: str, side: int, **options: Any) -> nn.Module:
    """Return a fresh model; one that takes any size is built for this one.

    What it would compute of the size in every pass (DINOv3's rotary positions) is then known
    beforehand, and one tensor alone runs from block to block.

    Args:
        name: timm's.
        side: of the input, in pixels.
        options: of timm's `create_model`.
    """
    model: nn.Module = timm.create_model(name, pretrained=False, **options)
    if getattr(model, "dynamic_img_size", False):
        fixed = {**options, "dynamic_img_size": False, "img_size": side}
        model = timm.create_model(name, pretrained=False, **fixed)
    return model


def convert(base: str, tensors: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Return tensors as timm's own loader has them for a model; it may raise anything.

    Args:
        base: timm's name of the model.
        tensors: of a file, by name.
        model: that they are for.
    """
    module = sys.modules[timm.model_entrypoint(base).__module__]
    given = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    return tensors if given is None else cast(Mapping[str, Tensor], given(dict(tensors), model))


def resize(model: nn.Module, side: int) -> nn.Module | None:
    """Return a model for an input of another side; None where it takes any.

    Raises:
        ValueError: it does not take that side.
    """
    own: Any = model
    if not hasattr(model, "set_input_size"):  # one that is for one size says so when it runs
        return model if own.pretrained_cfg.get("fixed_input_size") else None
    given = getattr(getattr(model, "patch_embed", None), "patch_size", None) or 1
    patch = given if isinstance(given, int) else given[0]
    if side % patch:
        raise ValueError(f"its patches are {patch} px, and {side} is no multiple of that")
    own.set_input_size(img_size=(side, side))
    return model.requires_grad_(False)


def module_of(name: str) -> str:
    """Return the module of timm that defines a model."""
    return str(timm.model_entrypoint(name).__module__).rpartition(".")[2]


def _refusal(name: str) -> str:
    """Return why a model is refused, an empty string where it is not."""
    module = module_of(name)
    for kind, patterns in REFUSED.items():
        for pattern in patterns.split():
            if pattern == module or fnmatchcase(f"{module}.{name}", pattern):
                return kind
    return ""


def check_allowed(base: str) -> None:
    """Refuse a network of timm that cannot be cut into stages.

    Raises:
        UsageError: it cannot, and why.
    """
    if refusal := _refusal(base):
        raise UsageError(f"Trunk {PREFIX}{base} cannot be cut into stages: {refusal}.")


def preprocess_of(config: Any) -> Preprocess:
    """Return what timm's own evaluation does with the input (`resolve_data_config`)."""
    resolve = cast(Any, data).resolve_data_config
    values = config.to_dict() if config is not None else {}
    values = resolve(pretrained_cfg=values or {"input_size": (3, 224, 224)})
    size = values["input_size"][1]
    return Preprocess(
        resize=math.floor(size / values["crop_pct"]),
        crop=size,
        interpolation="bilinear" if values["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        squash=values["crop_mode"] == "squash",
    )


def _pretrained(base: str, label: str, config: Any) -> Pretrained:
    full = base if label == "pretrained" else f"{base}.{label}"

    def fetch() -> Mapping[str, Tensor]:
        what = f"{label} of {PREFIX}{base}"
        file = _downloaded(config)
        if file is None:
            hub = config.hf_hub_id
            if hub and constants.HF_HUB_OFFLINE:
                raise failed(what, OFFLINE)
            check_reachable(f"{constants.ENDPOINT}/{hub}" if hub else config.url, what)
        # A file that is here is named outright: asking the hub about it takes a network.
        overlay: dict[str, Any] = {}
        if file is not None:
            overlay = {"file": str(file), "custom_load": file.suffix == ".npz"}
        try:
            model: nn.Module = timm.create_model(
                full, pretrained=True, pretrained_cfg_overlay=overlay
            )
        except Exception as error:  # every client below timm has errors of its own
            reason = str(error).split("\n")[0].rstrip(".")
            if file is not None:
                raise PipelineError(f"Weights file {file} cannot be read: {reason}.") from error
            raise failed(what, reason) from error
        return model.state_dict()

    return Pretrained(preprocess_of(config), fetch, lambda: _downloaded(config) is not None)


def _downloaded(config: Any) -> Path | None:
    """Return the file of earlier downloads that holds the weights."""
    if config.hf_hub_id:
        files = [config.hf_hub_filename] if config.hf_hub_filename else _FILES
        found = [huggingface_hub.try_to_load_from_cache(config.hf_hub_id, name) for name in files]
        return next((Path(path) for path in found if isinstance(path, str)), None)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url or "-").name
    return path if path.is_file() else None
