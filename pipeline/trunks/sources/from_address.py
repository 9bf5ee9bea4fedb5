"""timm's networks by its own notation: `timm/local-dir:FOLDER`, `timm/hf-hub:OWNER/NAME`.

The folder, or what the hub has under that name, is what timm's `save_for_hf` and `push_to_hf_hub`
write: `config.json` beside the weights. timm reads the configuration; the weights are read as any
other file, so that nothing in them is run.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
from huggingface_hub import constants
from timm.models._hub import load_model_config_from_path
from timm.models._pretrained import PretrainedCfg

from pipeline.arguments import path_of
from pipeline.errors import PipelineError, UsageError, nearest
from pipeline.trunks.addresses import FOLDER, address_of
from pipeline.trunks.sources import from_timm
from pipeline.trunks.sources.downloads import reason_of, unreachable
from pipeline.trunks.staging.architecture import Architecture, Pretrained
from pipeline.trunks.staging.graph import trace_pre_logits

LABEL = "pretrained"
_CONFIG = "config.json"
#: Weights files, the first that is there first, as timm looks for them; then by their endings.
_FILES = (
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "*.safetensors", "*.pth", "*.pth.tar", "*.bin",
)  # fmt: skip


def names() -> list[str]:
    """Return none: there is no list of folders."""
    return []


def find(name: str) -> Architecture | None:
    """Return the architecture of a name in timm's own notation, None for any other name.

    Raises:
        UsageError: there is no such folder, it describes no network of timm, or one that cannot be
            cut into stages.
        PipelineError: what the hub has cannot be had.
    """
    address = address_of(name)
    if address is None:
        return None
    where = address.where
    if address.kind == FOLDER:
        folder = path_of(where, "--trunk").absolute()
        where = str(folder)
        if not (folder / _CONFIG).is_file():
            raise UsageError(
                f"--trunk {name}: there is no file {folder / _CONFIG}. Give a folder that timm's "
                f"save_for_hf wrote, or that was downloaded from the hub: {_CONFIG} beside the "
                "weights."
            )
    else:
        folder = _from_hub(where, _CONFIG).parent
    name = f"{from_timm.PREFIX}{address.kind}:{where}"
    base, config, options = _read(folder, name)
    preprocess = from_timm.preprocess_of(config)
    fetch = partial(_weights_in, folder)
    at_hand = partial(_has_weights, folder)
    if address.kind != FOLDER:
        fetch = partial(_weights_of_hub, where, folder)
    pretrained = Pretrained(preprocess, fetch, at_hand)
    return Architecture(
        name=name,
        family=f"timm {from_timm.module_of(base)}",
        build=partial(
            from_timm.build, base, preprocess.crop, pretrained_cfg=config.to_dict(), **options
        ),
        trace=trace_pre_logits,
        convert=partial(from_timm.convert, base),
        weights=(LABEL,),
        default=LABEL,
        pretrained=lambda _: pretrained,
        preprocess=preprocess,
        resize=from_timm.resize,
        licence=getattr(config, "license", None) or "",
        structure=json.dumps([base, options], sort_keys=True),
    )


def _read(folder: Path, name: str) -> tuple[str, Any, dict[str, Any]]:
    """Return timm's name of the network, its configuration, and how it is built.

    Raises:
        UsageError: the file is none of timm's, or of a network that is no trunk.
    """
    try:
        config, base, options = load_model_config_from_path(folder)
        config = {k: v for k, v in config.items() if k not in ("file", "source", "hf_hub_id")}
        made = PretrainedCfg(**config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise UsageError(
            f"--trunk {name}: its {_CONFIG} is not as timm writes it ({what}). Networks of other "
            "libraries (transformers, open_clip) are not read; timm has most of them under its own "
            "names: `pipeline trunks`."
        ) from error
    if not timm.is_model(base):
        raise UsageError(
            f"--trunk {name}: timm {timm.__version__} has no network {base!r}."
            f"{nearest(str(base), timm.list_models())}"
        )
    from_timm.check_allowed(base)
    return base, made, options


def _weights_in(folder: Path) -> Path:
    """Return the weights file of a folder.

    Raises:
        PipelineError: there is none.
    """
    for pattern in _FILES:
        if files := sorted(folder.glob(pattern)):
            return files[0]
    raise PipelineError(
        f"{folder} has no weights beside {_CONFIG}, such as model.safetensors; pass --weights FILE "
        "or --weights random."
    )


def _has_weights(folder: Path) -> bool:
    return any(path for pattern in _FILES for path in folder.glob(pattern))


def _weights_of_hub(where: str, folder: Path) -> Path:
    """Return the weights file of a name on the hub, downloaded where it must be."""
    if _has_weights(folder):
        return _weights_in(folder)
    try:
        return _from_hub(where, _FILES[0])
    except _Missing:
        return _from_hub(where, _FILES[1])


class _Missing(PipelineError):
    """The hub answers, and has no such file."""


def _from_hub(where: str, file: str) -> Path:
    """Return a file of a name on the hub: from its cache, or downloaded.

    Raises:
        PipelineError: it cannot be had, and why.
    """
    repository, _, tail = where.partition("@")
    revision = tail or None
    kept = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(kept, str):
        return Path(kept)
    missing = False
    reason: object = from_timm.OFFLINE
    if not constants.HF_HUB_OFFLINE:
        reason = unreachable(f"{constants.ENDPOINT}/{repository}")
    if not reason:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
        except Exception as error:  # of the hub's client, which has errors of its own for all
            reason = str(error).split("\n")[0].rstrip(".")
            missing = isinstance(error, huggingface_hub.errors.EntryNotFoundError)
    raise (_Missing if missing else PipelineError)(
        f"{file} of hf-hub:{where} could not be had ({reason_of(reason)}). Download {_CONFIG} and "
        "the weights elsewhere into one folder, and give --trunk timm/local-dir:FOLDER."
    )
