"""How similar a table is to what its trunk was trained on: how well its features tell classes."""

from __future__ import annotations

import numpy as np

from pipeline.analysis.advising import learning_curve
from pipeline.analysis.advising.advice import Reference
from pipeline.analysis.advising.quadrant import Similarity
from pipeline.analysis.advising.reference import random_features
from pipeline.errors import PipelineError
from pipeline.heads.cross_validation import folds as folding
from pipeline.heads.cross_validation.neighbours import nearest
from pipeline.heads.cross_validation.random_baseline import PermutationTest, permutation_test
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.metrics import wilson
from pipeline.heads.task import group_ids_of, make_folds
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

BOOTSTRAPS = 999


def by_neighbours(
    features: np.ndarray,
    labels: np.ndarray,
    group_ids: np.ndarray,
    *,
    seed: int,
    near_duplicates: bool = True,
) -> tuple[PermutationTest, int]:
    """Return how often the nearest other image has the label, and how many have a duplicate.

    Args:
        features: [n, D] float32, raw.
        labels: int64 [n].
        group_ids: int64 [n].
        seed: of the permutations.
        near_duplicates: whether they are known by these features.
    """
    found, duplicated = nearest(features, group_ids, near_duplicates=near_duplicates)
    alone = found < 0

    def right(values: np.ndarray) -> np.ndarray:
        return np.asarray((values[found] == values) & ~alone)

    return permutation_test(labels, group_ids, right, seed=seed), int(duplicated.sum())


def by_folds(
    features: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    group_ids: np.ndarray,
    *,
    classes: int,
    folds: int,
    seed: int,
) -> tuple[SearchResult, np.ndarray | None]:
    """Return the linear head of some rows, and its guesses by cross-validation, int64 [n].

    Args:
        features: [N, D], raw.
        labels: int64 [N].
        rows: int64 [n], ascending.
        group_ids: int64 [n].
        classes: K.
        folds: at most.
        seed: of the folds.
    """
    parts = make_folds(rows, labels[rows], group_ids, count=folds, seed=seed)
    found = learning_curve.fit(features, labels, rows, parts, classes=classes, seed=seed)
    if found.held is None:
        return found, None
    guesses = np.empty(len(rows), np.int64)
    scored = np.concatenate([part for _, part in parts])
    guesses[np.searchsorted(rows, scored)] = found.held[0].argmax(1)
    return found, guesses


def to_random_baseline(figure: PermutationTest) -> Similarity:
    """Return the share of the error of guessing that the features remove."""
    by_chance = (1 - figure.random_baseline) * figure.images + 0.5
    wrong = figure.images - figure.right
    low, high = wilson(wrong, figure.images)
    return Similarity(
        1 - (wrong + 0.5) / by_chance,
        (1 - high * figure.images / by_chance, 1 - low * figure.images / by_chance),
        "chance",
    )


def to_random_weights(
    cache: Cache,
    table: FeatureTable,
    pool: np.ndarray,
    group_ids: np.ndarray,
    *,
    sample: int,
    folds: int,
    seed: int,
    data: str | None,
    device: str,
    workers: int | None,
    progress: Progress,
) -> tuple[Reference, Similarity, str]:
    """Return how the features compare with those of random weights, on a sample of images.

    Args:
        cache: where features with random weights are kept.
        table: whose features are compared.
        pool: rows to sample from, stratified, groups whole.
        group_ids: int64 [n] of the pool.
        sample: most images.
        folds: at most.
        seed: of sample, folds and bootstrap.
        data: folder in which the images lie now.
        device: where to compute.
        workers: decoding threads.
        progress: told of the extraction.

    Returns:
        The figures; the similarity, its interval by bootstrap over the images; a note.

    Raises:
        PipelineError: it cannot be compared, and why.
    """
    if table.provenance.weights_asked == "random":
        raise PipelineError("the table's trunk has random weights itself")
    joins = folding.entering(table.labels[pool], group_ids, seed)
    wanted = pool[joins < min(1.0, sample / len(pool))]
    rows, features = random_features(
        cache, table, wanted, data=data, device=device, workers=workers, progress=progress
    )
    lost, note = len(wanted) - len(rows), ""
    if lost:
        note = f"{lost:,} of {len(wanted):,} images are not where and what they were"
        if len(rows) < lost:
            raise PipelineError(f"{note}; say with --data where they lie now")
    labels, group_ids = table.labels[rows], group_ids_of(table, rows)
    every = np.arange(len(rows))
    right: list[np.ndarray] = []
    near: list[float] = []
    for x in (np.asarray(table.features[rows]), features):
        progress.start("random" if right else "sample", 0)
        _, guesses = by_folds(
            x, labels, every, group_ids, classes=len(table.classes), folds=folds, seed=seed
        )
        if guesses is None:
            raise PipelineError("there are too few images for folds")
        right.append(guesses == labels)
        near.append(
            by_neighbours(x, labels, group_ids, seed=seed, near_duplicates=not near)[0].accuracy
        )
    wrong = [~one for one in right]
    drawn = np.random.default_rng(seed).integers(0, len(rows), (BOOTSTRAPS, len(rows)))
    shares = _share(*(one[drawn].sum(1) for one in wrong))
    low, high = np.quantile(shares, [0.025, 0.975])
    reference = Reference(
        len(rows), float(right[0].mean()), float(right[1].mean()), near[0], near[1]
    )
    share = float(_share(wrong[0].sum(), wrong[1].sum()))
    return reference, Similarity(share, (float(low), float(high)), "random weights"), note


def _share(wrong: np.ndarray, random_wrong: np.ndarray) -> np.ndarray:
    """Return the share of errors removed; half an image keeps faultless heads comparable."""
    return 1 - (wrong + 0.5) / (random_wrong + 0.5)
