"""Folds and subsamples of the training images: stratified, with what belongs together kept so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def make_group_ids(
    digests: Sequence[str], groups: Sequence[str] | None, ties: Iterable[tuple[int, int]] = ()
) -> np.ndarray:
    """Return which images must stay together, [N] int64: equal files, and those of one group.

    Images are tied by an equal digest or an equal, non-empty group, directly or through others.
    Groups are numbered in the order of their first image.

    Args:
        digests: N sha256 of the files.
        groups: N names, or None.
        ties: other pairs of rows that must stay together.
    """
    edges = list(ties)
    for names in (digests, groups or ()):
        first: dict[str, int] = {}
        equal = ((row, first.setdefault(name, row)) for row, name in enumerate(names) if name)
        edges += [(row, other) for row, other in equal if row != other]
    if not edges:  # scipy's import is spared where nothing is tied, as on a warm run
        return np.arange(len(digests))
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges)), np.transpose(edges)), shape=(len(digests),) * 2)
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def assign(labels: np.ndarray, group_ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the fold of each image, [N] int64 in [0, count).

    Groups go in random order, the largest first, each to the fold that has the fewest of its
    rarest class (that of the fewest groups), then the fewest images. Every fold gets a group where
    there are enough.

    Args:
        labels: [N] int64.
        group_ids: [N] int64 from `make_group_ids`.
        count: number of folds, at least 2 and at most the number of groups.
        seed: of the order.
    """
    classes = int(labels.max()) + 1
    counts = np.zeros((int(group_ids.max()) + 1, classes), np.int64)
    np.add.at(counts, (group_ids, labels), 1)
    spread = (counts > 0).sum(0)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    order = order[counts[order].sum(1) > 0]  # a subsample leaves numbers that no image has
    filled = np.zeros((count, classes), np.int64)
    fold_of = np.empty(len(counts), np.int64)
    for number in order:
        classes_in = np.flatnonzero(counts[number])
        rarest = int(classes_in[spread[classes_in].argmin()])
        fold = min(range(count), key=lambda f: (filled[f, rarest], filled[f].sum(), f))
        fold_of[number] = fold
        filled[fold] += counts[number]
    return np.asarray(fold_of[group_ids])


def possible(labels: np.ndarray, group_ids: np.ndarray, asked: int) -> int:
    """Return how many folds the data allow: `asked`, fewer, or 0 for none.

    A fold must leave at least two classes to train on, so the second most spread class must
    stand in at least two groups.
    """
    pairs = np.unique(np.stack([labels, group_ids]), axis=1)
    *_, second, _ = np.sort([0, *np.bincount(pairs[0])])
    return min(asked, int(second)) if second > 1 else 0


def subsample(
    labels: np.ndarray,
    group_ids: np.ndarray,
    *,
    shots: int | None,
    fraction: float | None,
    seed: int,
) -> np.ndarray:
    """Return the rows of a stratified part of the images, sorted.

    Args:
        shots: images of each class; a class with fewer gives all it has.
        fraction: share of each class, at least one image.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    # one image of a class from each group, so that copies count once where a few images are all
    pairs = np.stack([group_ids, labels], axis=1)[order]
    _, first = np.unique(pairs, axis=0, return_index=True)
    distinct = order[np.sort(first)]
    pool = distinct if shots is not None else order
    chosen = []
    for label in np.unique(labels):
        rows = pool[labels[pool] == label]
        most = shots if shots is not None else max(1, round((fraction or 1.0) * len(rows)))
        chosen.append(rows[:most])
    return np.sort(np.concatenate(chosen))


def entering(labels: np.ndarray, group_ids: np.ndarray, seed: int) -> np.ndarray:
    """Return when each image joins a growing part of all, float64 [N] in [0, 1).

    The images below a fraction F are about that share of each class, groups are whole, and a
    smaller part lies inside every larger one. The first group of a class is in every part.

    Args:
        labels: [N] int64.
        group_ids: [N] int64 from `make_group_ids`; a group of several classes counts for its
            first image's.
        seed: of the order.
    """
    _, first, number, sizes = np.unique(
        group_ids, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.random.default_rng(seed).permutation(len(first))
    joins = np.empty(len(first))
    for label in np.unique(labels[first]):
        mine = order[labels[first[order]] == label]
        before = np.cumsum(sizes[mine]) - sizes[mine]
        joins[mine] = (before + sizes[mine] / 2) / sizes[mine].sum()
        joins[mine[0]] = 0.0
    return joins[number]
