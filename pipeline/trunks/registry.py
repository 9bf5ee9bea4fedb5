"""Names → trunks: the built-in one, torchvision's and timm's."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.arguments import file_and_key, path_of
from pipeline.compiler import import_library
from pipeline.errors import PipelineError, UsageError, nearest
from pipeline.images.names import safe
from pipeline.images.preprocess import Preprocess
from pipeline.trunks import listed
from pipeline.trunks.sources import random_weights
from pipeline.trunks.sources.checkpoint import read_sets
from pipeline.trunks.sources.choosing import choose
from pipeline.trunks.sources.containers import SUFFIXES, is_safetensors, kind_of
from pipeline.trunks.sources.weights import KEYS, Wanted, digest, fill
from pipeline.trunks.staging.architecture import Architecture, Weightless
from pipeline.trunks.staging.cutting import stage_trunk
from pipeline.trunks.staging.stages import StagedTrunk

#: Where trunks come from, asked in this order: modules of `sources` with `names()` and
#: `find(name)`, imported when they are asked; torchvision's networks need no timm.
SOURCES = ("builtin", "from_torchvision", "from_timm", "from_address", "own")
#: Part of the name under which random weights are kept: raise it when they would be others.
_RECIPE = 1


@dataclass(frozen=True)
class LoadedTrunk:
    """A trunk with its weights, ready to run.

    Attributes:
        name: canonical: `efficientnet_lite0`, `resnet18`, `timm/resnet10t`; with timm's tag where
            it was named with one and has other weights.
        weights: `IMAGENET1K_V1`, a timm tag, `random`, or a file's name.
        weights_asked: what to ask for to load it again: their name, `random`, or a file, absolute.
        weights_digest: sha256 over the trunk's own tensors, wherever they came from.
        notes: sentences on what was taken of a file.
        preprocess: what the weights want.
        module: in eval mode, fp32, nothing trainable.
    """

    name: str
    weights: str
    weights_asked: str
    weights_digest: str
    notes: tuple[str, ...]
    preprocess: Preprocess
    module: StagedTrunk


@dataclass(frozen=True)
class TrunkInfo:
    """What there is to say of a trunk without its weights.

    Attributes:
        name: canonical.
        family: for people.
        stages: stage → native modules that it is made of.
        channels: stage → C.
        strides: stage → input side divided by its activation's, nominally.
        neck: native modules between pooling and the last Linear.
        dim: D of the feature.
        parameters: of stages, pooling and neck, without the classifier.
        multiply_adds: for one image of `input_size`, without the classifier.
        input_size: side that the default weights want, in pixels.
        patch: side of a patch in pixels; None where activations are maps.
        tokens: T for one image of `input_size`, class and register tokens included; else None.
        blocks: of a transformer of one resolution; 0 for other trunks.
        licence: of the default weights, where the library tells it; else empty.
        weights: names of pretrained weights, the default first.
        at_hand: whether the default weights need no download.
    """

    name: str
    family: str
    stages: dict[str, tuple[str, ...]]
    channels: dict[str, int]
    strides: dict[str, int]
    neck: tuple[str, ...]
    dim: int
    parameters: int
    multiply_adds: int
    input_size: int
    patch: int | None
    tokens: int | None
    blocks: int
    licence: str
    weights: tuple[str, ...]
    at_hand: bool


def names(pattern: str | None = None) -> list[str]:
    """Return all names, or those that match.

    Args:
        pattern: part of a name, or a pattern with `*` and `?`; capitals do not count.
    """
    every = [name for source in SOURCES for name in _source(source).names()]
    return listed.matching(every, pattern)


def find(name: str) -> Architecture:
    """Return the architecture of a name.

    Raises:
        UsageError: there is none, or it cannot be cut into stages.
    """
    for source in SOURCES:
        architecture: Architecture | None = _source(source).find(name)
        if architecture:
            return architecture
    raise listed.unknown(name, names())


def _source(name: str) -> Any:
    return import_library(f"pipeline.trunks.sources.{name}")


def load(
    name: str,
    weights: str | Path = "default",
    *,
    keys: str = "name",
    size: int | None = None,
    state_dir: Path,
) -> LoadedTrunk:
    """Return a trunk with its weights.

    Args:
        name: of `names()`; timm's may carry a tag (`timm/resnet18.a1_in1k`).
        weights: `default`, the name of pretrained weights, `random`, a file, or `FILE::KEY` for
            one of several sets of tensors in it.
        keys: how a file's tensors are matched: `name` or `order`.
        size: side of the input, in pixels; None for the weights' own. A transformer's position
            embeddings are resampled as its library does it.
        state_dir: where calibrated random weights are kept.

    Raises:
        UsageError: no such trunk, weights or file, weights that do not fit, or a size that the
            trunk does not take.
        PipelineError: a download that fails, a damaged file, a network that cannot be cut.
    """
    if keys not in KEYS:
        raise UsageError(f"--keys is name or order, not {keys!r}.{nearest(keys, KEYS)}")
    architecture = find(name)
    name, path = architecture.name, _as_path(weights, architecture)
    path, key = (None, None) if path is None else file_and_key(path)
    if keys == "order" and (path is None or is_safetensors(path)):
        raise UsageError(
            "--keys order is for weights files of torch.save: a safetensors file keeps its "
            "tensors sorted by name, and other weights are matched by name."
        )
    if path is not None:
        label, source = _address(Path(path.name), key, whole=False), f"Weights file {path}"
        kind_of(path)  # what is none is refused before the network is built
    else:
        label = source = "random" if weights == "random" else architecture.label(str(weights))
        if label not in ("random", architecture.default) and architecture.built_for:
            architecture = architecture.built_for(label)
    if architecture.tag and (path is not None or label == "random"):
        name = f"{name}.{architecture.tag}"
    with random_weights.seeded(random_weights.SEED):
        model = architecture.build().float().eval()
    trunk = stage_trunk(architecture, model)
    tensors = trunk.native_state()
    preprocess = architecture.preprocess
    wanted = Wanted({**model.state_dict(), **tensors}, set(tensors), keys, architecture.rename)
    if convert := architecture.convert:
        wanted = replace(wanted, convert=lambda given: convert(given, model))
    given: Mapping[str, Tensor] | Path
    if path is not None:
        given = path
    elif weights == "random":
        file = state_dir / f"{_random_id(architecture)}.safetensors"
        given = random_weights.load_or_make(file, lambda: _calibrated(architecture, trunk))
    else:
        pretrained = architecture.pretrained(label)
        preprocess, given = pretrained.preprocess, pretrained.fetch()
        wanted = replace(wanted, keys=pretrained.keys)
    note, came = "", None
    if isinstance(given, Path):
        choice, note = choose(read_sets(given), wanted, given, key)
        given, came = choice.tensors, choice.came
    fill(wanted, given, source=source)
    loaded = LoadedTrunk(
        name=name,
        weights=label,
        weights_asked=label if path is None else _address(path, key),
        weights_digest=_identity(tensors if came is None else came, architecture.structure),
        notes=(*filter(None, [note, architecture.feature(tensors)]), *_zero(trunk, source)),
        preprocess=preprocess,
        module=trunk,
    )
    if size in (None, preprocess.crop):
        return loaded
    return replace(loaded, module=_resized(architecture, model, trunk, size))


def _resized(
    architecture: Architecture, model: nn.Module, trunk: StagedTrunk, size: int
) -> StagedTrunk:
    """Return a trunk for an input of another side, cut as before.

    Args:
        architecture: of the trunk.
        model: the library's, with its weights; it may be changed.
        trunk: made of it.
        size: the side, in pixels.

    Raises:
        UsageError: it does not take that side.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # timm's, of its own code
            other = architecture.resize(model, size)
        return trunk if other is None else stage_trunk(architecture, other.eval(), size)
    except (ValueError, AssertionError, RuntimeError, PipelineError) as error:
        reason = (str(error) or "what it computes does not fit").split("\n")[0].rstrip(".")
        raise UsageError(
            f"{architecture.name} does not take images of {size} px: {reason}. Give another "
            f"--image-size, or leave it out for its own {architecture.preprocess.crop} px."
        ) from error


def _zero(trunk: StagedTrunk, source: str) -> list[str]:
    """Return the sentence on stages whose filters and matrices are zero throughout."""
    filters = {
        stage: [p for p in module.parameters() if p.ndim > 1]
        for stage, module in trunk.stages.items()
    }
    zero = [stage for stage, held in filters.items() if held and not any(p.any() for p in held)]
    if not zero:
        return []
    where = (
        "" if all(s in zero for s, held in filters.items() if held) else f" in {', '.join(zero)}"
    )
    return [f"{source}: all weights{where} are zero, so the features tell no images apart."]


def check_weights(
    trunk: LoadedTrunk, weights_digest: str, *, asked: str, made: str, otherwise: str
) -> None:
    """Refuse a trunk that has other weights now than something was made with.

    Args:
        trunk: as it was loaded again.
        weights_digest: of the trunk that it was made with.
        asked: weights as they were asked for.
        made: what was made, for people.
        otherwise: what to do where those weights are gone, for people.

    Raises:
        PipelineError: the digests differ.
    """
    if trunk.weights_digest != weights_digest:
        raise PipelineError(
            f"{asked} of {trunk.name} now holds other weights ({trunk.weights_digest[:12]}) than "
            f"made {made} ({weights_digest[:12]}). Put them back, or {otherwise}."
        )


def _as_path(weights: str | Path, architecture: Architecture) -> Path | None:
    """Return the file that is meant, None where it is a name; a `Path` is always a file."""
    if isinstance(weights, Path):
        return path_of(weights, "--weights")
    if weights in ("default", "random") or weights in architecture.weights:
        return None
    path = path_of(weights, "--weights")
    file, key = file_and_key(path)
    looks = file.suffix.lower() in SUFFIXES or file.exists() or key is not None
    looks = looks or "/" in weights or "\\" in weights
    return path if looks else None


def _identity(tensors: Mapping[str, Tensor], structure: str) -> str:
    """Return what tells a trunk from others of its name."""
    of_tensors = digest(tensors)
    if not structure:
        return of_tensors
    return hashlib.sha256(f"{of_tensors}\0{structure}".encode()).hexdigest()


def _address(path: Path, key: str | None, *, whole: bool = True) -> str:
    """Return a file, absolute where the `whole` path is wanted, and the key in it."""
    return f"{path.absolute() if whole else path}{'' if key is None else f'::{key}'}"


def _random_id(architecture: Architecture) -> str:
    parts = [architecture.name, _RECIPE, random_weights.SEED, architecture.preprocess.crop]
    parts += [version(package) for package in ("torch", "torchvision", "timm")]
    if architecture.structure:  # a name of a person's own may be that of another network now
        parts.append(architecture.structure)
    sha = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
    return f"random-{safe(architecture.name.replace('/', '-'))}-{sha[:12]}"


def _calibrated(architecture: Architecture, trunk: StagedTrunk) -> dict[str, Tensor]:
    side = architecture.preprocess.crop
    random_weights.calibrate(trunk, side=side)
    with torch.no_grad():
        features = trunk(random_weights.noise(4, side))
    if not random_weights.tell_images_apart(features):
        raise PipelineError(
            f"Random weights of {architecture.name} give every image the same feature; pass "
            "--weights FILE."
        )
    return trunk.native_state()


def describe(name: str) -> TrunkInfo:
    """Return what there is to say of a trunk; reads no weights and computes nothing.

    Raises:
        UsageError: no such trunk.
        PipelineError: it cannot be cut into stages.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    architecture = find(name)
    size = architecture.preprocess.crop
    with random_weights.seeded(random_weights.SEED), Weightless():
        model = architecture.build()
    trunk = stage_trunk(architecture, model.to("meta").eval())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        trunk(torch.empty(1, 3, size, size, device="meta"))
    modules = {
        place: tuple(name for name, where in trunk.native.items() if where == place)
        for place in (*trunk.stages, "neck")
    }
    default, patch = architecture.default, trunk.strides["stem"]
    tokens = None if trunk.prefix is None else trunk.prefix + (size // patch) ** 2
    return TrunkInfo(
        name=architecture.name,
        family=architecture.family,
        stages={stage: modules[stage] for stage in trunk.stages},
        channels=trunk.channels,
        strides=trunk.strides,
        neck=modules["neck"],
        dim=trunk.dim,
        parameters=sum(p.numel() for p in trunk.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        input_size=size,
        patch=None if tokens is None else patch,
        tokens=tokens,
        blocks=len(trunk.blocks),
        licence=architecture.licence,
        weights=tuple(sorted(architecture.weights, key=lambda label: label != default)),
        at_hand=default is not None and architecture.pretrained(default).at_hand(),
    )
