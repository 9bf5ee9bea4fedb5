"""Weights: which tensors of a file fit a network, put into it; and what they hash to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.trunks.sources.checkpoint import Tensors, read_sets

KEYS = ("name", "order")
#: How names begin of what pretraining learns beside the network: MAE's decoder, DINOv2's mask
#: token, SimCLR's, BYOL's and SwAV's projections.
_PRETRAINING = (
    "mask_token", "decoder", "predictor", "projector", "projection", "prototypes", "queue",
    "dino_head", "ibot_head",
)  # fmt: skip
COUNTER = "num_batches_tracked"  # how often BatchNorm was trained: no number of the forward pass


@dataclass(frozen=True, eq=False)
class Wanted:
    """The tensors of a network that are to be had from a file.

    Attributes:
        target: every tensor of the library's model by name, in its order; `own` are written to.
        own: the names of the trunk's tensors; the others are the classifier's.
        keys: `name`, or `order`: the first with the first, whatever they are called.
        rename: from names of old files to present ones.
        convert: gives tensors as the library's own loader has them, or None. It may raise anything.
    """

    target: Mapping[str, Tensor]
    own: Collection[str]
    keys: str = "name"
    rename: Callable[[str], str] = str
    convert: Callable[[Tensors], Tensors] | None = None

    @property
    def names(self) -> list[str]:
        """Return the names of the trunk's tensors that count."""
        return [n for n in self.target if n in self.own and not n.endswith(COUNTER)]

    def faults(self, given: Tensors) -> str:
        """Return what is missing, left over or of another kind; empty where all fits."""
        if self.keys == "order" and (fault := self._counts(given)):
            return fault
        matched, wanted = self.matched(given), set(self.names)
        passed = (*_classifier_prefixes(self.target, self.own), *self._pretraining)
        missing = [name for name in self.names if name not in matched]
        spare = [
            name for name in matched
            if name not in self.target and not name.endswith(COUNTER)
            and not name.startswith(passed)
        ]  # fmt: skip
        strange = [
            fault for name, (theirs, tensor) in matched.items()
            if name in wanted and (fault := self._strange(name, theirs, tensor))
        ]  # fmt: skip
        faults = [
            f"{some(missing)} missing" if missing else "",
            f"{some(spare)} left over" if spare else "",
            some(strange),
        ]
        return "; ".join(fault for fault in faults if fault)

    def fitting(self, given: Tensors) -> int:
        """Return how many of the trunk's tensors are there under their names, in their shape."""
        matched = self.matched(given)
        return sum(n in matched and not self._strange(n, *matched[n]) for n in self.names)

    def left_out(self, given: Tensors) -> list[str]:
        """Return the names of tensors that only pretraining needed, which the network has not."""
        return [name for name in given if name.startswith(self._pretraining)]

    @property
    def _pretraining(self) -> tuple[str, ...]:
        own = {re.split(r"[._]", name)[0] for name in self.target}
        return tuple(part for part in _PRETRAINING if re.split(r"[._]", part)[0] not in own)

    def matched(self, given: Tensors) -> dict[str, tuple[str, Tensor]]:
        """Return the model's names to the file's names and tensors."""
        if self.keys == "name":
            return {self.rename(name): (name, tensor) for name, tensor in given.items()}
        return dict(zip(*self._ordered(given), strict=False))

    def _ordered(self, given: Tensors) -> tuple[list[str], list[tuple[str, Tensor]]]:
        """Return what stands for each other: the model's names, and the file's with tensors."""
        tensors = [(name, t) for name, t in given.items() if not name.endswith(COUNTER)]
        every = [name for name in self.target if not name.endswith(COUNTER)]
        return (every if len(tensors) == len(every) else self.names), tensors

    def _counts(self, given: Tensors) -> str:
        names, tensors = self._ordered(given)
        if len(names) == len(tensors):
            return ""
        every = sum(not name.endswith(COUNTER) for name in self.target)
        return (
            f"it holds {len(tensors)} tensors, the trunk {len(self.names)} ({every} with its "
            "classifier)"
        )

    def _strange(self, name: str, theirs: str, tensor: Tensor) -> str:
        """Return what is wrong with the tensor that is meant for a name."""
        own = self.target[name]
        if tensor.shape != own.shape:
            instead = f", {name} is" if self.keys == "order" else " instead of"
            return f"{theirs} is {shape_of(tensor)}{instead} {shape_of(own)}"
        if tensor.is_quantized or (own.is_floating_point() and not tensor.is_floating_point()):
            kind = str(tensor.dtype).removeprefix("torch.")
            hint = (
                "" if tensor.is_complex() else ": give the weights from before they were quantised"
            )
            return f"{theirs} is {kind}{hint}"
        if tensor.layout != torch.strided or tensor.is_meta:
            return f"{theirs} is {'without its values' if tensor.is_meta else 'sparse'}"
        if tensor.float().isnan().any():
            return f"{theirs} holds NaN"
        return ""


def read_weights(path: Path) -> Tensors:
    """Return the tensors of a library's own weights file by name, in the file's order.

    Raises:
        UsageError, PipelineError: as `read_sets`.
    """
    return next(iter(read_sets(path).values()))


def fill(wanted: Wanted, given: Tensors, *, source: str) -> None:
    """Copy tensors into a trunk, all of them or none.

    Args:
        wanted: of the trunk.
        given: the tensors at hand, by name.
        source: what to call them in errors.

    Raises:
        UsageError: they do not fit; the message says what is missing, left over or of another
            shape.
    """
    if wanted.faults(given):
        raise unfit(wanted, given, source)
    matched = wanted.matched(given)
    with torch.no_grad():
        for name in wanted.names:
            wanted.target[name].copy_(matched[name][1])


def unfit(wanted: Wanted, given: Tensors, source: str) -> UsageError:
    """Return the error that says what of some tensors does not fit; `source` is their name."""
    hint = ""
    if wanted.keys == "name" and not replace(wanted, keys="order").faults(given):
        hint = " (--keys order matches by order)"
    elif part := re.search(r"-0*(\d+)-of-0*(\d+)\.", source):
        hint = f" (the file is part {part[1]} of {part[2]}: give one file with all of them)"
    how = " by order" if wanted.keys == "order" else ""
    return UsageError(f"{source} does not fit this trunk{how}: {wanted.faults(given)}{hint}.")


def _classifier_prefixes(target: Mapping[str, Tensor], own: Collection[str]) -> tuple[str, ...]:
    """Return the module names, with a dot, under which the trunk has no tensor."""
    spare = [name for name in target if name not in own]
    prefixes = {name[: dot.end()] for name in spare for dot in re.finditer(r"\.", name)}
    return tuple(p for p in prefixes if not any(name.startswith(p) for name in own))


def shape_of(tensor: Tensor) -> str:
    """Return a tensor's shape for people: `64×3×7×7`."""
    return "×".join(map(str, tensor.shape)) or "a scalar"


def some(items: list[str], most: int = 3) -> str:
    """Return the first few, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def digest(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of tensors, whatever their order.

    BatchNorm's counters are left out: they change no feature.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(dict(tensors).items()):
        if not name.endswith(COUNTER):
            values = tensor.detach().cpu().contiguous()
            sha.update(f"{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
            sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
