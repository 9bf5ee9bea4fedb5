"""Weights: which tensors of a file fit a network, put into it; and what they hash to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.images.names import counted
from pipeline.trunks.sources.checkpoint import USUAL, Tensors, read_sets

KEYS = ("name", "order")
#: Which of two encoders in one set is the one that was trained (MoCo v1 to v3).
_TRAINED = ("encoder_q.", "base_encoder.")
_COUNTER = "num_batches_tracked"  # how often BatchNorm was trained: no number of the forward pass


@dataclass(frozen=True, eq=False)
class Wanted:
    """The tensors of a network that are to be had from a file.

    Attributes:
        target: every tensor of the library's model by name, in its order; `own` are written to.
        own: the names of the trunk's tensors; the others are the classifier's.
        keys: `name`, or `order`: the first with the first, whatever they are called.
        rename: from names of old files to present ones.
    """

    target: Mapping[str, Tensor]
    own: Collection[str]
    keys: str = "name"
    rename: Callable[[str], str] = str

    @property
    def names(self) -> list[str]:
        """Return the names of the trunk's tensors that count."""
        return [n for n in self.target if n in self.own and not n.endswith(_COUNTER)]

    def faults(self, given: Tensors) -> str:
        """Return what is missing, left over or of another kind; empty where all fits."""
        if self.keys == "order" and (fault := self._counts(given)):
            return fault
        matched, wanted = self.matched(given), set(self.names)
        heads = _classifier_prefixes(self.target, self.own)
        missing = [name for name in self.names if name not in matched]
        spare = [
            name for name in matched
            if name not in self.target and not name.endswith(_COUNTER)
            and not name.startswith(heads)
        ]  # fmt: skip
        strange = [
            fault for name, (theirs, tensor) in matched.items()
            if name in wanted and (fault := self._strange(name, theirs, tensor))
        ]  # fmt: skip
        faults = [
            f"{_some(missing)} missing" if missing else "",
            f"{_some(spare)} left over" if spare else "",
            _some(strange),
        ]
        return "; ".join(fault for fault in faults if fault)

    def fitting(self, given: Tensors) -> int:
        """Return how many of the trunk's tensors are there under their names, in their shape."""
        matched = self.matched(given)
        return sum(n in matched and not self._strange(n, *matched[n]) for n in self.names)

    def matched(self, given: Tensors) -> dict[str, tuple[str, Tensor]]:
        """Return the model's names to the file's names and tensors."""
        if self.keys == "name":
            return {self.rename(name): (name, tensor) for name, tensor in given.items()}
        return dict(zip(*self._ordered(given), strict=False))

    def _ordered(self, given: Tensors) -> tuple[list[str], list[tuple[str, Tensor]]]:
        """Return what stands for each other: the model's names, and the file's with tensors."""
        tensors = [(name, t) for name, t in given.items() if not name.endswith(_COUNTER)]
        every = [name for name in self.target if not name.endswith(_COUNTER)]
        return (every if len(tensors) == len(every) else self.names), tensors

    def _counts(self, given: Tensors) -> str:
        names, tensors = self._ordered(given)
        if len(names) == len(tensors):
            return ""
        every = sum(not name.endswith(_COUNTER) for name in self.target)
        return (
            f"it holds {len(tensors)} tensors, the trunk {len(self.names)} ({every} with its "
            "classifier)"
        )

    def _strange(self, name: str, theirs: str, tensor: Tensor) -> str:
        """Return what is wrong with the tensor that is meant for a name."""
        own = self.target[name]
        if tensor.shape != own.shape:
            instead = f", {name} is" if self.keys == "order" else " instead of"
            return f"{theirs} is {_shape(tensor)}{instead} {_shape(own)}"
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


@dataclass(frozen=True, eq=False)
class Choice:
    """Tensors of a checkpoint that may be a network's.

    Attributes:
        key: that leads to their set; empty for the file itself.
        prefix: that their names had in front.
        tensors: by name, without it.
        beside: names in the set without the prefix.
    """

    key: str
    prefix: str
    tensors: Tensors
    beside: tuple[str, ...]


def choose(sets: Mapping[str, Tensors], wanted: Wanted, path: Path) -> tuple[Choice, str]:
    """Return the tensors of a checkpoint for a network, and what a person should know of it.

    The first set fits in most files. Where it does not, another set is taken if it is the only one
    that does. In a set, a prefix is taken off where exactly the tensors with it fit.

    Args:
        sets: from `read_sets`.
        wanted: of the network.
        path: of the file, for people.

    Raises:
        UsageError: none fits, with what is wrong with the nearest; or several do, none of them the
            usual one.
    """
    fits = {
        key: found for key, tensors in sets.items()
        if (found := [c for c in _choices(key, tensors, wanted) if not wanted.faults(c.tensors)])
    }  # fmt: skip
    if not fits:
        every = [one for key, held in sets.items() for one in _choices(key, held, wanted)]
        nearest = max(every, key=lambda one: wanted.fitting(one.tensors))
        several = f" ({_quoted(nearest.key)} of {', '.join(map(_quoted, sets))})"
        raise _unfit(wanted, nearest.tensors, f"Weights file {path}{several * (len(sets) > 1)}")
    usual = next((key for key in sets if not {*filter(None, key.split("."))} - {*USUAL}), None)
    if usual not in fits and len(fits) > 1:
        raise _ambiguous(path, [found[0] for found in fits.values()])
    found = fits[usual] if usual in fits else next(iter(fits.values()))
    if found[0].beside and len(found) > 1:
        trained = [one for one in found if one.prefix.endswith(_TRAINED)]
        if len(trained) != 1:
            raise _ambiguous(path, found)
        found = [*trained, *(one for one in found if one is not trained[0])]
    others = [other[0] for key, other in fits.items() if key != found[0].key]
    return found[0], _told(found[0], others, [key for key in sets if key not in fits], path)


def _choices(key: str, tensors: Tensors, wanted: Wanted) -> Iterator[Choice]:
    """Yield a set as it is, and with each prefix that could be taken off."""
    yield Choice(key, "", tensors, ())
    if wanted.keys == "order":
        return
    starts = [(wanted.rename(name), first) for name in tensors for first in wanted.names[:3]]
    for prefix in dict.fromkeys(n.removesuffix(w) for n, w in starts if n.endswith(f".{w}")):
        inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        beside = tuple(name for name in tensors if not name.startswith(prefix))
        yield Choice(key, prefix, inside, beside)
        yield Choice(key, "", {name: tensors[name] for name in beside}, tuple(inside))


def _ambiguous(path: Path, fitting: list[Choice]) -> UsageError:
    same = len({one.key for one in fitting}) == 1
    names = [
        (f"'{one.prefix}…'" if one.prefix else "names without it") if same else _quoted(one.key)
        for one in fitting
    ]
    return UsageError(
        f"Weights file {path} holds several sets of tensors that fit this trunk: "
        f"{', '.join(names)}. Save the one that you want by itself and give that file: "
        f"{_alone(path, fitting[0])}."
    )


def _quoted(key: str) -> str:
    return f"'{key}'" if key else "the tensors beside them"


def _alone(path: Path, one: Choice) -> str:
    """Return the Python that makes a file of one set."""
    held = f"torch.load({path.name!r}){''.join(f'[{key!r}]' for key in one.key.split('.') if key)}"
    name = one.key or one.prefix.rstrip(".") or "one"
    if one.beside and one.prefix:
        held = f"{{k: v for k, v in {held}.items() if k.startswith({one.prefix!r})}}"
    return f"torch.save({held}, '{name}.pth')"


def _told(taken: Choice, others: list[Choice], unfit: list[str], path: Path) -> str:
    """Return what was taken of a file, where it was not simply all of it."""
    kinds = {
        str(t.dtype).removeprefix("torch.") for t in taken.tensors.values()
        if t.is_floating_point() and t.dtype != torch.float32
    }  # fmt: skip
    beside = [name for name in taken.beside if not name.endswith(_COUNTER)]
    used = [
        f"'{taken.key}' is used" if taken.key else "its tensors are used",
        f" without '{taken.prefix}' in front of the names" if taken.prefix else "",
        f" from {' and '.join(sorted(kinds))} to float32" if kinds else "",
    ]
    rest = [
        f"{counted(len(beside), 'tensor')} beside left out ({_some(beside)})" if beside else "",
        f"{_some([_quoted(key) for key in unfit])} left out, as it does not fit" if unfit else "",
        f"{_some([_quoted(one.key) for one in others])} fits too: to use it, give the file that "
        f"{_alone(path, others[0])} makes" if others else "",
    ]  # fmt: skip
    if not (taken.key or any(used[1:]) or any(rest)):
        return ""
    return f"Weights file {path.name}: {'; '.join(filter(None, [''.join(used), *rest]))}."


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
        raise _unfit(wanted, given, source)
    matched = wanted.matched(given)
    with torch.no_grad():
        for name in wanted.names:
            wanted.target[name].copy_(matched[name][1])


def _unfit(wanted: Wanted, given: Tensors, source: str) -> UsageError:
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
