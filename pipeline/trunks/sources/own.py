"""A person's own networks: `mypackage.mymodule:make`, or a module given in Python as `own/NAME`.

Their code cannot be hashed whole: it may call anything. What stands for it is the digest of the
tensors, the structure as PyTorch prints it, the source of the modules' classes, and the name.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Collection, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import fx, nn

from pipeline.arguments import named
from pipeline.errors import PipelineError, UsageError
from pipeline.images.names import safe
from pipeline.images.preprocess import Preprocess
from pipeline.trunks import permitted
from pipeline.trunks.sources.random_weights import SEED, seeded
from pipeline.trunks.staging.architecture import Architecture, Pretrained
from pipeline.trunks.staging.graph import trace_own, trace_pre_logits

LABEL = "own"
_WANTED = ("size", "mean", "std", "interpolation")
_FURTHER = ("resize", "squash")
#: Name to the networks that were given in this process, with their preprocessing.
_GIVEN: dict[str, tuple[nn.Module, Preprocess]] = {}


def names() -> list[str]:
    """Return none: one's own are not listed."""
    return []


def own_trunk(
    network: nn.Module,
    *,
    name: str | None,
    preprocess: Mapping[str, Any] | Preprocess | None = None,
) -> str:
    """Name a network of one's own, and return what stands for it wherever a trunk is named.

    It is copied, and known to this process alone: `extract`, `compare_trunks`, `TrunkFeatures` and
    what follows them find it there.

    Args:
        network: whose last Linear is the classifier, or whose output is the feature.
        name: of the person's choice, which can be part of a file's name. Its code cannot be hashed:
            two networks of one name, tensors, structure and classes' source are one.
        preprocess: a mapping with `size`, `mean`, `std` and `interpolation`, perhaps `resize` (else
            the size) and `squash`; None where the network has it as its attribute `preprocess`.

    Returns:
        `own/NAME`.

    Raises:
        UsageError: it is no `nn.Module`, the name is missing, or the preprocessing is not complete;
            a `ValueError` too.

    Example:
        >>> import pipeline
        >>> pipeline.own_trunk(net, name="mynet", preprocess=how)  # doctest: +SKIP
        'own/mynet'
    """
    if not isinstance(network, nn.Module):
        raise UsageError(f"The network must be an nn.Module, not {named(network)}.")
    if not isinstance(name, str) or name != safe(name):
        raise UsageError(
            "A network given as an object needs a name, since its code cannot be hashed: pass "
            "name='my-network', which can be part of a file's name."
        )
    key = permitted.PREFIX + name
    how: Any = getattr(network, "preprocess", None) if preprocess is None else preprocess
    _GIVEN[key] = (copy.deepcopy(network), as_preprocess(how, "preprocess"))
    permitted.permit(key)
    return key


def find(name: str) -> Architecture | None:
    """Return the architecture of a person's own network, None for any other name.

    Raises:
        UsageError: there is no such function, it makes no network, or it says nothing of how
            images are prepared.
        PipelineError: nobody permitted it, or it fails.
    """
    if not permitted.is_own(name):
        return None
    if name.startswith(permitted.PREFIX):
        if name not in _GIVEN:
            raise PipelineError(
                f"The network {name} was given as an object in Python, in another process: give it "
                f"again (pipeline.own_trunk(network, name={name.removeprefix(permitted.PREFIX)!r}, "
                "preprocess=…)), or use a function that makes it: --trunk mypackage.mymodule:make."
            )
        module, preprocess = _GIVEN[name]
    else:
        module, preprocess = _made(name)
    pretrained = Pretrained(preprocess, module.state_dict, lambda: True)
    return Architecture(
        name=name,
        family="own",
        build=lambda: copy.deepcopy(module),
        trace=_trace,
        weights=(LABEL,),
        default=LABEL,
        pretrained=lambda _: pretrained,
        preprocess=preprocess,
        structure=_structure(module),
        feature=partial(_feature, name, module),
    )


def as_preprocess(given: Any, what: str) -> Preprocess:
    """Return preprocessing from a mapping.

    Raises:
        UsageError: something of it is missing, unknown, or cannot be right.
    """
    if isinstance(given, Preprocess):
        return given
    example = "{'size': 224, 'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225), "
    example += "'interpolation': 'bicubic'}"
    if not isinstance(given, Mapping) or not set(_WANTED) <= set(given) <= {*_WANTED, *_FURTHER}:
        raise UsageError(f"{what} says how images are prepared, such as {example}.")
    try:
        size = int(given["size"])
        mean, std = ([float(v) for v in given[key]] for key in ("mean", "std"))
        resize = int(given.get("resize", size))
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{what} cannot be read: {error}; give {example}.") from error
    kernel = given["interpolation"]
    fits = len(mean) == len(std) == 3 and min(std) > 0 and 0 < size <= resize
    if not fits or kernel not in ("bilinear", "bicubic"):
        raise UsageError(
            f"{what} needs three means, three positive stds, a size that is not above resize, and "
            f"bilinear or bicubic; such as {example}."
        )
    (red, green, blue), (r, g, b) = mean, std
    squash = bool(given.get("squash", False))
    return Preprocess(resize, size, kernel, (red, green, blue), (r, g, b), squash)


def _made(name: str) -> tuple[nn.Module, Preprocess]:
    """Import a function and return what it makes, and how images are prepared for that."""
    permitted.check(name)
    where, _, function = name.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)  # as `python -m` has it
    try:
        try:
            make = getattr(import_module(where), function)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"--trunk {name}: {error}. Give module:function, of a module that Python finds "
                "here or that is installed."
            ) from error
        with seeded(SEED):
            module = make()
    except UsageError:
        raise
    except Exception as error:  # whatever a person's own code raises
        raise PipelineError(f"--trunk {name} fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(module, nn.Module):
        raise UsageError(f"--trunk {name} returns {type(module).__name__} and no nn.Module.")
    said = getattr(module, "preprocess", None) or getattr(make, "preprocess", None)
    if said is None:
        raise UsageError(
            f"--trunk {name} does not say how images are prepared: set `preprocess` on the network "
            f"or on {function}, a dictionary with {', '.join(_WANTED)}."
        )
    return module, as_preprocess(said, f"preprocess of {name}")


def _feature(name: str, module: nn.Module, kept: Collection[str]) -> str:
    """Return what of a network was taken for the feature, in a sentence.

    Args:
        name: of the network.
        module: it.
        kept: names of the tensors of the trunk.
    """
    dropped = [
        path for path, one in module.named_modules()
        if isinstance(one, nn.Linear) and f"{path}.weight" not in kept
    ]  # fmt: skip
    if dropped:
        return f"{name}: the feature is what enters {dropped[-1]}, taken for its classifier."
    return f"{name}: the feature is what it gives; no Linear at its end was taken for a classifier."


def _structure(module: nn.Module) -> str:
    """Return a network as PyTorch prints it, and the source of those of its classes that are known.

    Addresses in memory are left out: they are others in each process. Classes of torch, torchvision
    and timm are known by the versions of these.
    """
    own = {type(one) for one in module.modules()}
    sources = []
    for kind in sorted(own, key=lambda one: (one.__module__, one.__qualname__)):
        if kind.__module__.partition(".")[0] in ("torch", "torchvision", "timm"):
            continue
        try:
            sources.append(inspect.getsource(kind))
        except (OSError, TypeError):  # typed at a prompt, or compiled
            sources.append(kind.__qualname__)
    return "\0".join([re.sub(r" at 0x[0-9a-fA-F]+", "", str(module)), *sources])


def _trace(model: nn.Module) -> fx.Graph:
    like_timm = all(
        hasattr(model, part) for part in ("forward_features", "forward_head", "get_classifier")
    )
    return trace_pre_logits(model) if like_timm else trace_own(model)
