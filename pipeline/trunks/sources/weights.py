"""Weights: download a file, read it without running anything in it, match and hash its tensors.

A download that fails says so in one sentence and leaves nothing half written.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import PipelineError, UsageError
from pipeline.store import atomic

SUFFIXES = (".pth", ".pt", ".safetensors")
KEYS = ("name", "order")
#: Where training scripts keep the weights inside their checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "net")
#: What wrappers put in front of every name (DataParallel, torch.compile, Lightning).
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
_COUNTER = "num_batches_tracked"  # how often BatchNorm was trained: no number of the forward pass
_TIMEOUT = 15.0  # seconds without an answer
_AGENT = {"User-Agent": "headstart"}


def failed(what: str, reason: object) -> PipelineError:
    """Return the error that says what to pass instead of what could not be downloaded."""
    reason = getattr(reason, "reason", reason)  # urllib wraps the system's error
    reason = getattr(reason, "strerror", None) or reason
    return PipelineError(
        f"The weights {what} could not be downloaded ({reason}). Pass --weights FILE with a file "
        "downloaded elsewhere, --weights random, or use the built-in trunk "
        "(--trunk efficientnet_lite0), which needs no download."
    )


def check_reachable(url: str, what: str) -> None:
    """Raise at once where there is no network, by asking for the head of a page.

    Raises:
        PipelineError: no answer.
    """
    request = urllib.request.Request(url, method="HEAD", headers=_AGENT)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return
    except urllib.error.HTTPError:
        return  # the host answers; what it says about this page is for the one who fetches
    except (OSError, HTTPException) as error:
        raise failed(what, error) from error


def download(url: str, target: Path, what: str) -> None:
    """Download a file whose name carries the start of its sha256 (`resnet18-f37072fd.pth`).

    `target` exists only once all of it is there and hashes right.

    Raises:
        PipelineError: it could not be had, or could not be written.
    """
    expected = target.stem.rpartition("-")[2]
    atomic.write_pieces(target, _received(url, expected, what), what=f"the weights {what}")


def _received(url: str, expected: str, what: str) -> Iterator[bytes]:
    """Yield what a server sends, and raise at the end where its sha256 begins otherwise."""
    request = urllib.request.Request(url, headers=_AGENT)
    sha = hashlib.sha256()
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            while piece := answer.read(1 << 20):
                sha.update(piece)
                yield piece
    except (OSError, HTTPException) as error:
        raise failed(what, error) from error
    if not sha.hexdigest().startswith(expected):
        raise failed(what, f"its sha256 begins with {sha.hexdigest()[:8]} instead of {expected}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, in the file's order.

    Args:
        path: `.pth`, `.pt` (read with `weights_only=True`) or `.safetensors`.

    Raises:
        UsageError: there is no such file, or it is of another kind.
        PipelineError: it is damaged, or holds something besides tensors; nothing of it was run.
    """
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"Weights file {path} {why}; give a file in {', '.join(SUFFIXES)}.")
    if path.suffix not in SUFFIXES:
        raise UsageError(f"Weights file {path} should end in {', '.join(SUFFIXES)}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle's protocol; what fails raises
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PipelineError(
            f"Weights file {path} holds something besides tensors{_refused(error)}; it is refused "
            "and nothing in it was run. Save the weights alone: torch.save(model.state_dict(), "
            f"{path.name!r})."
        ) from error
    except SafetensorError as error:
        raise PipelineError(f"Weights file {path} is no safetensors file: {error}.") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0].rstrip(".")
        reason = reason or "it ends too early"
        raise PipelineError(f"Weights file {path} cannot be read: {reason}.") from error
    return _unwrapped(held, path)


def _refused(error: Exception) -> str:
    """Return what a file wanted to load, in brackets, where torch says it."""
    found = re.search(r"GLOBAL\s+(\S+)", str(error))
    return f" ({found[1]})" if found else ""


def _unwrapped(held: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(held, Mapping):
        inner = next((held[k] for k in _WRAPPERS if isinstance(held.get(k), Mapping)), None)
        if inner is None:
            break
        held = inner
    if not isinstance(held, Mapping):
        raise PipelineError(
            f"Weights file {path} holds a {type(held).__name__} and no tensors by name; save "
            "model.state_dict()."
        )
    tensors = {str(k): v.detach() for k, v in held.items() if isinstance(v, Tensor)}
    if not tensors:
        raise PipelineError(f"Weights file {path} holds no tensors; save model.state_dict().")
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in tensors)), None):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


def fill(
    target: Mapping[str, Tensor],
    own: Collection[str],
    given: Mapping[str, Tensor],
    *,
    source: str,
    keys: str = "name",
    rename: Callable[[str], str] = str,
) -> None:
    """Copy tensors into a trunk, all of them or none.

    Args:
        target: every tensor of the library's model by name, in its order; `own` are written to.
        own: the names of the trunk's tensors; the others are the classifier's.
        given: the tensors at hand, by name.
        source: what to call them in errors.
        keys: `name`, or `order`: the first with the first, whatever they are called.
        rename: from names of old files to present ones.

    Raises:
        UsageError: they do not fit; the message says what is missing, left over or of another
            shape.
    """
    wanted = [name for name in target if name in own and not name.endswith(_COUNTER)]
    by_order = keys == "order"
    if by_order:
        matched = _by_order(target, wanted, given, source)
    else:
        matched = {rename(name): (name, tensor) for name, tensor in given.items()}
    heads = _classifier_prefixes(target, own)
    missing = [name for name in wanted if name not in matched]
    spare = [
        name
        for name in matched
        if name not in target and not name.endswith(_COUNTER) and not name.startswith(heads)
    ]
    shaped = [
        f"{theirs} is {_shape(tensor)}{f', {name} is' if by_order else ' instead of'} "
        f"{_shape(target[name])}"
        for name, (theirs, tensor) in matched.items()
        if name in wanted and tensor.shape != target[name].shape
    ]
    faults = [
        f"{_some(missing)} missing" if missing else "",
        f"{_some(spare)} left over" if spare else "",
        _some(shaped),
    ]
    if any(faults):
        hint = " (--keys order matches by order)" if missing and spare else ""
        raise UsageError(
            f"{source} does not fit this trunk{' by order' if by_order else ''}: "
            f"{'; '.join(fault for fault in faults if fault)}{hint}."
        )
    with torch.no_grad():
        for name in wanted:
            target[name].copy_(matched[name][1])


def _by_order(
    target: Mapping[str, Tensor], wanted: list[str], given: Mapping[str, Tensor], source: str
) -> dict[str, tuple[str, Tensor]]:
    """Return the model's names → the file's names and tensors, the first with the first."""
    tensors = [(name, t) for name, t in given.items() if not name.endswith(_COUNTER)]
    every = [name for name in target if not name.endswith(_COUNTER)]
    names = every if len(tensors) == len(every) else wanted
    if len(tensors) != len(names):
        raise UsageError(
            f"{source} does not fit this trunk by order: it holds {len(tensors)} tensors, the "
            f"trunk {len(wanted)} ({len(every)} with its classifier)."
        )
    return dict(zip(names, tensors, strict=True))


def _classifier_prefixes(target: Mapping[str, Tensor], own: Collection[str]) -> tuple[str, ...]:
    """Return the module names, with a dot, under which the trunk has no tensor."""
    spare = [name for name in target if name not in own]
    prefixes = {name[: dot.end()] for name in spare for dot in re.finditer(r"\.", name)}
    return tuple(p for p in prefixes if not any(name.startswith(p) for name in own))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def _some(items: list[str], most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def digest(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of tensors, whatever their order.

    BatchNorm's counters are left out: they change no feature.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(dict(tensors).items()):
        if not name.endswith(_COUNTER):
            values = tensor.detach().cpu().contiguous()
            sha.update(f"{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
            sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
