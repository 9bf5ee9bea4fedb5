"""Images that are the same picture: the same file, or nearly the same features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.heads.linear import unit_length

#: Two images are nearly the same picture when the cosine of their centred features is at least
#: `SURE`, or at least `LIKELY` while the next nearest image is over `MARGIN` times as far. Measured
#: on flower photos of 128 px: re-encoded as JPEG of quality 70 the least cosine was 0.91, while
#: different pictures of simple things (digits) reach 0.95 with many others as near.
SURE, LIKELY, MARGIN = 0.97, 0.8, 3.0
#: Multiply-adds above which only files are compared, and a note says so: minutes on two cores.
MOST_WORK = 3e13
_ROWS = 2048
#: Whose images are compared with whose.
ACROSS = (("val", "train"), ("test", "train"), ("test", "val"))
WITHIN = (("train", "train"), ("val", "val"), ("test", "test"), ("", ""))


@dataclass(frozen=True)
class NearDuplicate:
    """Two rows that are the same picture.

    Attributes:
        row: where both are in different splits, the one that is reported.
        other: the one that it was found beside, nearest.
        cosine: of their centred features; 1 for equal files.
        same_file: whether their bytes are equal.
    """

    row: int
    other: int
    cosine: float
    same_file: bool


@dataclass(frozen=True)
class Leak:
    """Two images of different splits that are the same or nearly so.

    Attributes:
        path: in `split`.
        other: in `other_split`.
        split: val or test.
        other_split: train, or val.
        cosine: of their centred features; 1 for equal files.
        same_file: whether their bytes are equal.
    """

    path: str
    other: str
    split: str
    other_split: str
    cosine: float
    same_file: bool


def leaks(
    duplicates: Sequence[NearDuplicate], paths: Sequence[str], splits: Sequence[str]
) -> list[Leak]:
    """Return near-duplicates across splits by their names, the surest first.

    Args:
        duplicates: from `find_near_duplicates`.
        paths: N.
        splits: N names.
    """
    named = [
        Leak(paths[one.row], paths[one.other], splits[one.row], splits[one.other], one.cosine,
             one.same_file)
        for one in duplicates
    ]  # fmt: skip
    return sorted(named, key=lambda leak: (not leak.same_file, -leak.cosine, leak.path))


def too_many(splits: Sequence[str], dim: int, *, within: bool = False) -> str | None:
    """Return a note where so many features [N, dim] are not compared, only files."""
    counts = {name: sum(split == name for split in splits) for name in set(splits)}
    pairs = ACROSS + WITHIN * within
    if sum(counts.get(a, 0) * counts.get(b, 0) for a, b in pairs) * dim <= MOST_WORK:
        return None
    where = "" if within else " across splits"
    return f"Too many images to compare features{where}; only equal files were looked for."


def find_near_duplicates(
    features: np.ndarray, digests: Sequence[str], splits: Sequence[str], *, within: bool = False
) -> list[NearDuplicate]:
    """Return rows that are the same picture as another.

    Of each row the nearest other is named, in each split that it is compared with. Where there are
    `too_many`, equal files alone are found.

    Args:
        features: [N, D] float32.
        digests: N sha256 of the files.
        splits: N names; images without a split are compared with each other alone.
        within: compare inside each split too, and images without a split with each other.
    """
    names = np.array(splits, dtype=object)
    rows = {name: np.flatnonzero(names == name) for name in ("train", "val", "test", "")}
    files_alone = too_many(splits, features.shape[1], within=within) is not None
    centre = rows["train"] if len(rows["train"]) else np.arange(len(features))
    mean = features[centre].mean(0) if len(centre) else 0.0
    duplicates = []
    for split, other in ACROSS + WITHIN * within:
        own, others = rows[split], rows[other]
        same = _same_files(digests, own, others)
        if split == other:  # of equal files one is compared with the others
            own = others = np.setdiff1d(own, np.array(sorted(same), np.int64))
        near = {} if files_alone else _near(features, mean, own, others)
        for row in sorted({*same, *near}):
            match, cosine = (same[row], 1.0) if row in same else near[row]
            mutual = row not in same and split == other and near.get(match, (-1, 0))[0] == row
            if not mutual or row < match:  # two that are each other's nearest are named once
                duplicates.append(NearDuplicate(row, match, cosine, row in same))
    return duplicates


def _same_files(digests: Sequence[str], rows: np.ndarray, others: np.ndarray) -> dict[int, int]:
    """Return row → the first other row with its digest, where that is not itself."""
    first = {digests[other]: other for other in others[::-1].tolist()}
    equal = ((row, first.get(digests[row], row)) for row in rows.tolist())
    return {row: other for row, other in equal if row != other}


def _near(
    features: np.ndarray, mean: np.ndarray | float, rows: np.ndarray, others: np.ndarray
) -> dict[int, tuple[int, float]]:
    """Return row → (nearest other, cosine) for rows whose nearest is nearly the same picture."""
    best = np.full((len(rows), 2), -1.0, np.float32)  # the two largest cosines
    match = np.zeros(len(rows), np.int64)
    for start in range(0, len(others), _ROWS):
        columns = others[start : start + _ROWS]
        right = unit_length(features[columns] - mean)
        for low in range(0, len(rows), _ROWS):
            part = slice(low, low + _ROWS)
            cosines = unit_length(features[rows[part]] - mean) @ right.T  # [n, m]
            if rows is others:
                cosines[rows[part][:, None] == columns] = -1.0  # nothing is its own duplicate
            nearest = cosines.argmax(1)
            better = cosines.max(1) > best[part, 0]
            match[part][better] = columns[nearest[better]]
            both = np.concatenate([best[part], cosines], axis=1)
            best[part] = -np.partition(-both, 1, axis=1)[:, :2]
    first, second = best.T
    alone = (first >= LIKELY) & (1 - second > MARGIN * (1 - first))
    return {
        int(rows[i]): (int(match[i]), float(first[i]))
        for i in np.flatnonzero((first >= SURE) | alone)
    }


_OTHERS = 1024


def nearest(
    features: np.ndarray, group_ids: np.ndarray, *, near_duplicates: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other image of each, and which images have a duplicate.

    Duplicates and images of one group are never anybody's nearest: an image would vote for itself.

    Args:
        features: [N, D] float32, raw; their mean is subtracted.
        group_ids: int64 [N] from `folds.make_group_ids`: equal files and images of one group.
        near_duplicates: whether a cosine of `near_duplicates.SURE` or more makes a duplicate too.

    Returns:
        int64 [N], −1 where there is no other image; bool [N].
    """
    x = unit_length(features - features.mean(0, dtype=np.float64).astype(np.float32))
    neighbours = np.full(len(x), -1, np.int64)
    duplicated = np.zeros(len(x), bool)
    for start in range(0, len(x), _OTHERS):
        part = slice(start, start + _OTHERS)
        cosines = x[part] @ x.T  # [n, N]
        same = group_ids[part, None] == group_ids[None]
        if near_duplicates:
            same |= cosines >= SURE
        duplicated[part] = same.sum(1) > 1
        cosines[same] = -np.inf
        neighbours[part] = np.where(same.all(1), -1, cosines.argmax(1))
    return neighbours, duplicated
