"""Which tensors of a checkpoint are a network's, among its sets and behind which prefix."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipeline.errors import UsageError, nearest
from pipeline.images.names import counted
from pipeline.trunks.sources.checkpoint import USUAL, Tensors
from pipeline.trunks.sources.weights import COUNTER, Wanted, shape_of, some, unfit

#: Which of two encoders in one set is the one that was trained (MoCo v1 to v3).
_TRAINED = ("encoder_q.", "base_encoder.")


@dataclass(frozen=True, eq=False)
class Choice:
    """Tensors of a checkpoint that may be a network's.

    Attributes:
        key: that leads to their set; empty for the file itself.
        prefix: that their names had in front.
        tensors: by name, without it.
        beside: names in the set without the prefix.
        came: as they stand in the file, where the library's loader converted them; else None.
    """

    key: str
    prefix: str
    tensors: Tensors
    beside: tuple[str, ...]
    came: Tensors | None = None

    @property
    def names(self) -> set[str]:
        """Return what may stand behind `FILE::` for these tensors."""
        prefix = self.prefix.rstrip(".")
        whole = ".".join(filter(None, (self.key, prefix)))
        return {prefix, whole} if prefix and self.beside else {self.key, prefix or self.key}


def choose(
    sets: Mapping[str, Tensors], wanted: Wanted, path: Path, key: str | None = None
) -> tuple[Choice, str]:
    """Return the tensors of a checkpoint for a network, and what a person should know of it.

    The first set fits in most files. Where it does not, another set is taken if it is the only one
    that does. In a set, a prefix is taken off where exactly the tensors with it fit. Where none
    fits as it is, what the library's own loader makes of it may.

    Args:
        sets: from `read_sets`.
        wanted: of the network.
        path: of the file, for people.
        key: of the tensors that are meant: the keys that lead to their set, joined by dots, or
            what stands in front of their names; None for those that are usually meant.

    Raises:
        UsageError: none fits, with what is wrong with the nearest; several do, none of them the
            usual one; or there is nothing under that key.
    """
    if key is not None:
        return _under(key, sets, wanted, path)
    every = [one for key, held in sets.items() for one in _choices(key, held, wanted)]
    fits = _fitting(every, wanted)
    if not fits:
        best = max(every, key=lambda one: wanted.fitting(one.tensors))
        several = f" ({_quoted(best.key)} of {', '.join(map(_quoted, sets))})"
        raise unfit(wanted, best.tensors, f"Weights file {path}{several * (len(sets) > 1)}")
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
    unfit_keys = [key for key in sets if key not in fits]
    return found[0], _told(found[0], others, unfit_keys, path, wanted)


def _under(key: str, sets: Mapping[str, Tensors], wanted: Wanted, path: Path) -> tuple[Choice, str]:
    """Return the tensors that a person names, and what they should know of it."""
    every = [one for name, held in sets.items() for one in _choices(name, held, wanted)]
    meant = [one for one in every if key in one.names]
    if not meant:
        known = dict.fromkeys(name for one in every for name in sorted(one.names) if name)
        raise UsageError(
            f"Weights file {path} holds no tensors under {key!r}; there are "
            f"{', '.join(map(repr, known)) or 'none with a key'}.{nearest(key, known)}"
        )
    fits = [one for found in _fitting(meant, wanted).values() for one in found]
    if not fits and _fitting([one for one in every if one.key == key], wanted):
        return choose({key: sets[key]}, wanted, path)  # tensors beside them, such as a head's
    if len({one.key for one in fits}) > 1:
        raise _ambiguous(path, fits)
    if not fits:
        best = max(meant, key=lambda one: wanted.fitting(one.tensors))
        raise unfit(wanted, best.tensors, f"Weights file {path}::{key}")
    return fits[0], _told(fits[0], [], [], path, wanted)


def _fitting(every: list[Choice], wanted: Wanted) -> dict[str, list[Choice]]:
    """Return those that fit by their key: as they are, else as the library's loader has them."""
    found: dict[str, list[Choice]] = {}
    for one in every:
        if not wanted.faults(one.tensors):
            found.setdefault(one.key, []).append(one)
    if found or wanted.convert is None or wanted.keys == "order":
        return found
    for one in every:
        try:
            with warnings.catch_warnings(action="ignore"):
                made = wanted.convert(one.tensors)
        except Exception:  # code for certain files meets any file: what it cannot read does not fit
            continue
        if not wanted.faults(made):
            found.setdefault(one.key, []).append(replace(one, tensors=made, came=one.tensors))
    return found


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
        f"{', '.join(names)}. Name the one that you want: --weights {_address(path, fitting[0])}."
    )


def _quoted(key: str) -> str:
    return f"'{key}'" if key else "the tensors beside them"


def _address(path: Path, one: Choice) -> str:
    """Return what `--weights` takes for one of several."""
    prefix = one.prefix.rstrip(".") if one.beside else ""
    return f"{path.name}::{'.'.join(filter(None, (one.key, prefix)))}"


def _told(taken: Choice, others: list[Choice], unfit: list[str], path: Path, wanted: Wanted) -> str:
    """Return what was taken of a file, where it was not simply all of it."""
    kinds = {
        str(t.dtype).removeprefix("torch.") for t in taken.tensors.values()
        if t.is_floating_point() and t.dtype != torch.float32
    }  # fmt: skip
    beside = [name for name in taken.beside if not name.endswith(COUNTER)]
    beside += wanted.left_out(taken.tensors)
    used = [
        f"'{taken.key}' is used" if taken.key else "its tensors are used",
        f" without '{taken.prefix}' in front of the names" if taken.prefix else "",
        f" from {' and '.join(sorted(kinds))} to float32" if kinds else "",
        _converted(taken),
    ]
    rest = [
        f"{counted(len(beside), 'tensor')} beside left out ({some(beside)})" if beside else "",
        f"{some([_quoted(key) for key in unfit])} left out, as it does not fit" if unfit else "",
        f"{some([_quoted(one.key) for one in others])} fits too: to use it, give --weights "
        f"{_address(path, others[0])}" if others else "",
    ]  # fmt: skip
    if not (taken.key or any(used[1:]) or any(rest)):
        return ""
    return f"Weights file {path.name}: {'; '.join(filter(None, [''.join(used), *rest]))}."


def _converted(taken: Choice) -> str:
    """Return what the library's loader made of tensors, where it had to."""
    if taken.came is None:
        return ""
    resampled = [
        f"{name} from {shape_of(taken.came[name])} to {shape_of(tensor)}"
        for name, tensor in taken.tensors.items()
        if name in taken.came and taken.came[name].shape != tensor.shape
    ]
    what = f": {some(resampled)}" if resampled else ""
    return f" as its library's loader converts {len(taken.tensors)} of {len(taken.came)}{what}"
