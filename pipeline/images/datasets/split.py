"""Which image is for training, validation and testing: by a hash, so that it never changes.

Each image has a number in [0, 1) from its content and the seed: below `test` it is a test image,
below `test + val` a validation image, else one to train on. Equal files have equal numbers, and
adding images moves none. The price is that the fractions are met only about.

With groups the number comes from the group's name. Equal files in two groups tie these groups
together, and with them every group they are tied to; all take the number of the smallest name.
So adding an image can move a group only where it ties that group to another.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Sequence

import numpy as np

from pipeline.errors import UsageError
from pipeline.images.names import SPLITS, counted, joined, shown


def assign(
    digests: Sequence[bytes],
    labels: np.ndarray | Sequence[int],
    groups: Sequence[str] | None = None,
    *,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
) -> list[str]:
    """Return the split of each image.

    Args:
        digests: N digests of 32 bytes.
        labels: int [N]; an image with label -1 gets no split.
        groups: N names, "" for an image of its own; None for no groups.
        val: fraction for validation, from 0.
        test: fraction for testing, from 0; together below 1.
        seed: another seed, another split.

    Returns:
        N of `train`, `val`, `test`, or "" for an unlabelled image.

    Raises:
        UsageError: for fractions that leave nothing to train on.
    """
    check_fractions(val=val, test=test)
    keys = list(digests) if groups is None else _tied(digests, groups)
    splits = {key: _split(_number(key, seed), val=val, test=test) for key in set(keys)}
    unknown = np.asarray(labels) < 0
    return ["" if hide else splits[key] for key, hide in zip(keys, unknown, strict=True)]


def check_fractions(*, val: float, test: float) -> None:
    """Raise a `UsageError` for fractions that cannot be."""
    faults = [
        f"{option} must be at least 0 and below 1, not {value:g}"
        for option, value in (("--val-fraction", val), ("--test-fraction", test))
        if not (math.isfinite(value) and 0 <= value < 1)
    ]
    if not faults and val + test >= 1:
        faults = [
            f"--val-fraction {val:g} and --test-fraction {test:g} leave nothing to train on: "
            "together they must be below 1"
        ]
    if faults:
        raise UsageError("; ".join(faults) + ".")


def notes(
    splits: Sequence[str],
    labels: np.ndarray | Sequence[int],
    classes: Sequence[str],
    *,
    val: float = 0.15,
    test: float = 0.15,
) -> tuple[str, ...]:
    """Return sentences on the classes that are too small to be in every split.

    Args:
        splits: N, from `assign`.
        labels: int [N], index into `classes`.
        classes: K names.
        val: fraction for validation; with 0 no class is missed there.
        test: fraction for testing, likewise.
    """
    missing = []
    names, labels = np.array(splits, dtype=object), np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    wanted = {"train": 1.0 - val - test, "val": val, "test": test}
    for split in SPLITS:
        here = np.bincount(labels[(names == split) & (labels >= 0)], minlength=len(classes))
        lacking = np.flatnonzero((here == 0) & (counts > 0)).tolist()
        if wanted[split] > 0 and lacking:
            few = [f"'{shown(classes[i])}' ({counted(int(counts[i]), 'image')})" for i in lacking]
            missing.append(f"{split} has no image of {joined(few)}")
    if not missing:
        return ()
    return (
        f"Too few images of a class to be in every split: {'; '.join(missing)}. Images are split "
        "by a hash of their content; add images, give a split column, or try another --seed.",
    )


def leaks(digests: Sequence[bytes], splits: Sequence[str], files: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence a split on files that are in train too, for data that bring their own.

    Args:
        digests: N digests.
        splits: N of `train`, `val`, `test` or "".
        files: N paths, for people.
    """
    rows = list(zip(digests, splits, files, strict=True))
    train = {digest: file for digest, split, file in reversed(rows) if split == "train"}
    found = {
        name: [(file, train[digest]) for digest, split, file in rows
               if split == name and digest in train]
        for name in SPLITS[1:]
    }  # fmt: skip
    return tuple(
        f"{counted(len(also), 'image')} of {name} {'is' if len(also) == 1 else 'are'} also in "
        f"train, byte for byte (possible leak), such as {shlex.join(also[0])}."
        for name, also in found.items()
        if also
    )


def _number(key: bytes, seed: int) -> float:
    """Return a number in [0, 1), uniform over keys: 53 bits of sha256(seed, key)."""
    word = hashlib.sha256(b"split %d\0" % seed + key).digest()[:8]
    return (int.from_bytes(word, "big") >> 11) / (1 << 53)


def _split(number: float, *, val: float, test: float) -> str:
    if number < test:
        return "test"
    return "val" if number < test + val else "train"


def _tied(digests: Sequence[bytes], groups: Sequence[str]) -> list[bytes]:
    """Return for each image the key that its number comes from."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = [
        b"group " + name.encode("utf-8", "surrogateescape") if name else b"" for name in groups
    ]
    # Every file is tied to its group; of what is tied, the smallest group comes first.
    keys = [*sorted({*names} - {b""}), *dict.fromkeys(digests)]
    number = {key: at for at, key in enumerate(keys)}
    files = [number[digest] for digest in digests]
    held = [number[name or digest] for digest, name in zip(digests, names, strict=True)]
    graph = coo_array((np.ones(len(files)), (files, held)), shape=(len(keys),) * 2)
    part = connected_components(graph, directed=False)[1]
    first = np.unique(part, return_index=True)[1]
    return [keys[first[part[file]]] for file in files]
