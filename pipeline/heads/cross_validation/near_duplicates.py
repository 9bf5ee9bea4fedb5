"""Images that are the same picture: the same file, or nearly the same features."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.heads.linear import unit_length

#: Two images are nearly the same picture when the cosine of their centred features is at least
#: `SURE`, or at least `LIKELY` while the next nearest image is over `MARGIN` times as far; so are
#: the two to four nearest of an image at `SEVERAL`, where the next is so far from it. Measured
#: on flower photos of 128 px: re-encoded as JPEG of quality 70 the least cosine was 0.91, while
#: different pictures of simple things (digits) reach 0.95 with many others as near.
SURE, LIKELY, SEVERAL, MARGIN = 0.97, 0.8, 0.9, 3.0
#: Images above which only files are compared, unless it is asked for: seconds on two cores.
MOST_IMAGES = 20_000
#: Near-copies of one picture that are always kept in one fold.
FEW = 5
#: How many of the nearest others are looked at for near-copies.
NEIGHBOURS = 10
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
        if splits[one.row] != splits[one.other]
    ]  # fmt: skip
    return sorted(named, key=lambda leak: (not leak.same_file, -leak.cosine, leak.path))


def too_many(images: int, compare_all: bool) -> str | None:
    """Return a note where the features of so many images are not compared, only their files."""
    if compare_all or images <= MOST_IMAGES:
        return None
    return (
        f"The features of {images:,} images were not compared for near-copies, only their files: "
        "--compare-all does, in time that grows with their square."
    )


def find_near_duplicates(
    features: np.ndarray,
    digests: Sequence[str],
    splits: Sequence[str],
    *,
    pairs: Sequence[tuple[str, str]] = ACROSS,
    compare_all: bool = False,
) -> list[NearDuplicate]:
    """Return rows that are the same picture as another.

    Across splits the nearest other of each row is named. Within a split so many pairs are named,
    the surest ones, as join all that are the same picture, directly or through others. Where there
    are `too_many`, equal files alone are found.

    Args:
        features: [N, D] float32.
        digests: N sha256 of the files.
        splits: N names; the name of images without a split is empty.
        pairs: the images of which split are compared with those of which.
        compare_all: the features of more than `MOST_IMAGES` too.
    """
    names = np.array(splits, dtype=object)
    rows = {name: np.flatnonzero(names == name) for name in ("train", "val", "test", "")}
    files_alone = too_many(len(splits), compare_all) is not None
    centre = rows["train"] if len(rows["train"]) else np.arange(len(features))
    mean = _mean(features, centre[:0] if files_alone else centre)  # else it is not used
    duplicates = []
    for split, other in pairs:
        own, others = rows[split], rows[other]
        same = _same_files(digests, own, others)
        if split == other:  # of equal files one is compared with the others
            own = others = np.setdiff1d(own, np.array(sorted(same), np.int64))
        found = [NearDuplicate(row, match, 1.0, True) for row, match in same.items()]
        if not files_alone:
            near = _near(features, mean, own, others)
            near = _joining(near, len(splits)) if split == other else _first(near, same)
            found += [NearDuplicate(row, match, cosine, False) for row, match, cosine in near]
        duplicates += sorted(found, key=lambda one: (one.row, one.other))
    return duplicates


def _same_files(digests: Sequence[str], rows: np.ndarray, others: np.ndarray) -> dict[int, int]:
    """Return row → the first other row with its digest, where that is not itself."""
    first = {digests[other]: other for other in others[::-1].tolist()}
    equal = ((row, first.get(digests[row], row)) for row in rows.tolist())
    return {row: other for row, other in equal if row != other}


def _mean(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the mean of some rows, [D] float32, without a copy of all of them."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(rows), _ROWS):
        total += features[rows[start : start + _ROWS]].sum(0, dtype=np.float64)
    return (total / max(1, len(rows))).astype(np.float32)


def _cosines(
    features: np.ndarray, mean: np.ndarray, rows: np.ndarray, others: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield blocks of all cosines: (which of the rows, other rows [m], cosines [n, m])."""
    for start in range(0, len(others), _ROWS):
        columns = others[start : start + _ROWS]
        right = unit_length(np.asarray(features[columns], np.float32) - mean)
        for low in range(0, len(rows), _ROWS):
            part = slice(low, low + _ROWS)
            left = unit_length(np.asarray(features[rows[part]], np.float32) - mean)
            yield part, columns, left @ right.T


def _nearest(
    features: np.ndarray,
    mean: np.ndarray,
    rows: np.ndarray,
    others: np.ndarray,
    count: int,
    *,
    same: np.ndarray,
    below: float = np.inf,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each row's nearest others, the nearest first, and how many were passed over.

    Args:
        features: [N, D] float32, raw.
        mean: [D], subtracted from them.
        rows: int64 [n].
        others: int64 [m].
        count: k, how many are wanted.
        same: int64 [N]; an other that has the same number as the row is passed over.
        below: so is one with a cosine of so much or more.

    Returns:
        Rows int64 [n, k], −1 where there are no more; their cosines [n, k], then −∞; int64 [n].
    """
    near = np.full((len(rows), count), -1)
    best = np.full((len(rows), count), -np.inf, np.float32)
    passed = np.zeros(len(rows), np.int64)
    for part, columns, cosines in _cosines(features, mean, rows, others):
        out = (same[rows[part], None] == same[columns]) | (cosines >= below)
        passed[part] += out.sum(1)
        cosines[out] = -np.inf
        both = np.concatenate([best[part], cosines], axis=1)
        every, at = np.arange(len(both)), np.empty((len(both), count), np.int64)
        for place in range(count):  # the first of equal ones, whatever the blocks
            at[:, place] = both.argmax(1)
            best[part, place] = both[every, at[:, place]]
            both[every, at[:, place]] = -np.inf
        before = np.take_along_axis(near[part], np.minimum(at, count - 1), 1)
        near[part] = np.where(at < count, before, columns[np.maximum(at - count, 0)])
    near[best == -np.inf] = -1
    return near, best, passed


#: Row, another that is nearly the same picture, cosine.
_Pair = tuple[int, int, float]


def _near(
    features: np.ndarray, mean: np.ndarray, rows: np.ndarray, others: np.ndarray
) -> list[_Pair]:
    """Return rows with others that are nearly the same picture, each row's nearest first."""
    near, cosines, _ = _nearest(
        features, mean, rows, others, NEIGHBOURS, same=np.arange(len(features))
    )
    far = 1 - cosines
    alone = far[:, 1:FEW] > MARGIN * far[:, : FEW - 1]  # so many of the nearest from all others
    alone &= cosines[:, : FEW - 1] >= [LIKELY, *[SEVERAL] * (FEW - 2)]
    alike = cosines >= SURE
    alike[:, : FEW - 1] |= np.logical_or.accumulate(alone[:, ::-1], axis=1)[:, ::-1]
    return [
        (int(rows[i]), int(near[i, place]), float(cosines[i, place]))
        for i, place in np.argwhere(alike)
    ]


def _first(pairs: Sequence[_Pair], without: Container[int]) -> list[_Pair]:
    """Return the first pair of each row, without that of some rows."""
    first: dict[int, _Pair] = {}
    for pair in pairs:
        first.setdefault(pair[0], pair)
    return [pair for row, pair in first.items() if row not in without]


def _joining(pairs: Sequence[_Pair], count: int) -> list[_Pair]:
    """Return the surest pairs that join what all pairs of `count` rows join, the lower row first.

    They are a spanning forest, in which each row still has its nearest.
    """
    if not pairs:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    both = {(min(a, b), max(a, b)): cosine for a, b, cosine in pairs}
    ends = np.transpose([*both]).astype(np.int32)  # the tree of SciPy 1.13 takes no others
    graph = coo_array(([2 - cosine for cosine in both.values()], ends), shape=(count, count))
    forest = minimum_spanning_tree(graph.tocsr()).tocoo()
    joined = sorted(zip(forest.row.tolist(), forest.col.tolist(), strict=True))
    return [(a, b, both[a, b]) for a, b in joined]


def nearest(
    features: np.ndarray, group_ids: np.ndarray, *, near_duplicates: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other image of each, and which images have a duplicate.

    Duplicates and images of one group are never anybody's nearest: an image would vote for itself.

    Args:
        features: [N, D] float32, raw; their mean is subtracted.
        group_ids: int64 [N] from `task.make_group_ids`: equal files and images of one group.
        near_duplicates: whether a cosine of `SURE` or more makes a duplicate too.

    Returns:
        int64 [N], −1 where there is no other image; bool [N].
    """
    every = np.arange(len(features))
    near, _, passed = _nearest(
        features, _mean(features, every), every, every, 1, same=group_ids,
        below=SURE if near_duplicates else np.inf,
    )  # fmt: skip
    return near[:, 0], passed > 1  # the image itself was passed over


def ties(
    duplicates: Sequence[NearDuplicate], labels: np.ndarray, rows: np.ndarray
) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the pairs of near-copies among some rows that are to stay together.

    A set of images that are all near-copies of each other, directly or through others, is tied
    unless it holds more than a tenth of its class (and more than `FEW`): photos of one scene may
    be a class, and no fold could be without them.

    Args:
        duplicates: from `find_near_duplicates`.
        labels: [N] int64 of all rows.
        rows: that are to be parted into folds.

    Returns:
        Pairs of rows, and the sizes of the sets that are not tied.
    """
    inside = np.zeros(len(labels), bool)
    inside[rows] = True
    edges = np.array(
        [(one.row, one.other) for one in duplicates if inside[one.row] and inside[one.other]]
    ).reshape(-1, 2)
    if not len(edges):
        return [], []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(labels),) * 2)
    number = connected_components(graph, directed=False)[1]
    sizes = np.bincount(number[rows])
    classes = np.bincount(labels[rows])
    most = np.zeros(len(sizes))  # a tenth of the largest class that a set has
    np.maximum.at(most, number[rows], classes[labels[rows]] / 10)
    large = sizes > np.maximum(most, FEW)
    kept = [(int(a), int(b)) for a, b in edges if not large[number[a]]]
    return kept, sorted(sizes[large].tolist(), reverse=True)
