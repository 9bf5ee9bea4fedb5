"""How similar a table is to what its trunk was trained on: how well its features tell classes.

Its features are compared with those of the same images by the same trunk with random weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.analysis.advising import learning_curve
from pipeline.analysis.options import AdviseOptions
from pipeline.cores import usable_cores
from pipeline.errors import PipelineError
from pipeline.extraction.compute import fill
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import find_rows
from pipeline.extraction.scan import root_of
from pipeline.heads.cross_validation.near_duplicates import nearest
from pipeline.heads.cross_validation.search import SearchResult, search
from pipeline.heads.task import entering, group_ids_of, make_folds
from pipeline.heads.uncertainty import PermutationTest, permutation_test, wilson
from pipeline.images.digest import StatMemo, digest_all
from pipeline.images.sources.address import joined
from pipeline.images.sources.shelf import is_reachable
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.shards import Key
from pipeline.store.table import FeatureTable
from pipeline.trunks import spec
from pipeline.trunks.spec import FeatureKey

FOLDS = 5
BOOTSTRAPS = 999


@dataclass(frozen=True)
class Similarity:
    """How much of the error the pretrained weights remove.

    Attributes:
        share: 1 − error with them / error without; below 0 where random weights do better.
        interval: 95%.
        against: `random weights`, or `chance` where these could not be had.
    """

    share: float
    interval: tuple[float, float]
    against: str


@dataclass(frozen=True)
class Reference:
    """The table's features beside those of the same trunk with random weights, on a sample.

    Attributes:
        images: of the sample.
        linear: share that a linear head has right by cross-validation, with the table's features.
        random_linear: with random weights.
        neighbours: share whose nearest other image is of their class, with the table's features.
        random_neighbours: with random weights.
    """

    images: int
    linear: float
    random_linear: float
    neighbours: float
    random_neighbours: float


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
    neighbours, duplicated = nearest(features, group_ids, near_duplicates=near_duplicates)

    def right(values: np.ndarray) -> np.ndarray:
        return np.asarray((values[neighbours] == values) & (neighbours >= 0))

    return permutation_test(labels, group_ids, right, seed=seed), int(duplicated.sum())


def by_folds(
    features: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    group_ids: np.ndarray,
    *,
    classes: int,
    seed: int,
) -> tuple[SearchResult, np.ndarray | None]:
    """Return the linear head of some rows, and its guesses by cross-validation, int64 [n].

    Args:
        features: [N, D], raw.
        labels: int64 [N].
        rows: int64 [n], ascending.
        group_ids: int64 [n].
        classes: K.
        seed: of the folds.
    """
    parts = make_folds(rows, labels[rows], group_ids, count=FOLDS, seed=seed)
    head = search(
        "linear", features, labels, classes=classes, train=rows, folds=parts,
        plan=learning_curve.plan(seed),
    )  # fmt: skip
    if head.held is None:
        return head, None
    guesses = np.empty(len(rows), np.int64)
    scored = np.concatenate([part for _, part in parts])
    guesses[np.searchsorted(rows, scored)] = head.held[0].argmax(1)
    return head, guesses


def to_random_baseline(figure: PermutationTest) -> Similarity:
    """Return the share of the error of guessing that the features remove."""
    wrong, by_chance = figure.images - figure.right, (1 - figure.random_baseline) * figure.images
    low, high = (figure.images * end for end in wilson(wrong, figure.images))
    interval = 1 - high / (by_chance + 0.5), 1 - low / (by_chance + 0.5)
    return Similarity(float(_share(wrong, by_chance)), interval, "chance")


def to_random_weights(
    cache: Cache,
    table: FeatureTable,
    pool: np.ndarray,
    group_ids: np.ndarray,
    options: AdviseOptions,
    progress: Progress,
) -> tuple[Reference, Similarity, str]:
    """Return how the features compare with those of random weights, on a sample of images.

    Args:
        cache: where features with random weights are kept.
        table: whose features are compared.
        pool: rows to sample from, stratified, groups whole.
        group_ids: int64 [n] of the pool.
        options: most images, the folder that they lie in now, device and threads, and the seed of
            sample, folds and bootstrap.
        progress: told of the extraction.

    Returns:
        The figures; the similarity, its interval by bootstrap over the images; a note.

    Raises:
        PipelineError: it cannot be compared, and why.
    """
    if not options.sample:
        raise PipelineError("--sample is 0")
    if table.provenance.weights_asked == "random":
        raise PipelineError("the table's trunk has random weights itself")
    joins = entering(table.labels[pool], group_ids, options.seed)
    wanted = pool[joins < min(1.0, options.sample / len(pool))]
    rows, random_features = features_of_random_weights(cache, table, wanted, options, progress)
    lost, note = len(wanted) - len(rows), ""
    if lost:
        note = f"{lost:,} of {len(wanted):,} images are not where and what they were"
        if len(rows) < lost:
            raise PipelineError(f"{note}; say with --data where they lie now")
    labels, group_ids, seed = table.labels[rows], group_ids_of(table)[rows], options.seed
    every, classes = np.arange(len(rows)), len(table.classes)
    right: list[np.ndarray] = []
    near: list[float] = []
    for x in (np.asarray(table.features[rows]), random_features):
        progress.start("random" if right else "sample", 0)
        _, guesses = by_folds(x, labels, every, group_ids, classes=classes, seed=seed)
        if guesses is None:
            raise PipelineError("there are too few images for folds")
        right.append(guesses == labels)
        test, _ = by_neighbours(x, labels, group_ids, seed=seed, near_duplicates=not near)
        near.append(test.accuracy)
    drawn = np.random.default_rng(seed).integers(0, len(rows), (BOOTSTRAPS, len(rows)))
    shares = _share(*((~one)[drawn].sum(1) for one in right))
    low, high = np.quantile(shares, [0.025, 0.975])
    share = float(_share(*((~one).sum() for one in right)))
    reference = Reference(len(rows), *(float(one.mean()) for one in right), *near)
    return reference, Similarity(share, (float(low), float(high)), "random weights"), note


def _share(wrong: np.ndarray | float, random_wrong: np.ndarray | float) -> np.ndarray | float:
    """Return the share of errors removed; half an image keeps faultless heads comparable."""
    return 1 - (wrong + 0.5) / (random_wrong + 0.5)


def features_of_random_weights(
    cache: Cache,
    table: FeatureTable,
    wanted: np.ndarray,
    options: AdviseOptions,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of a table's rows could be computed, and their features with random weights.

    Everything but the weights is the table's: layer, pooling, preprocessing, size. Rows are kept
    in the cache like any others; no table names them, so `pipeline cache gc` removes them.

    Args:
        cache: where rows are kept.
        table: whose trunk, layer and preprocessing are used.
        wanted: rows, int64 [n].
        options: the folder that the images lie in now, device and decoding threads.
        progress: told of the extraction.

    Returns:
        int64 [m], those of `wanted` that could be computed; float32 [m, D].

    Raises:
        PipelineError: the trunk cannot be made.
    """
    device, workers = options.device, options.workers
    asked = ExtractOptions(
        trunk=table.provenance.trunk, weights="random", device=device, workers=workers,
        image_size=int(table.provenance.preprocess["crop"]),
    )  # fmt: skip
    facts, trunk = spec.resolve(
        asked.trunk, asked.weights, asked.keys, size=asked.image_size, memo=cache.memo,
        state_dir=cache.weights,
    )  # fmt: skip
    key = replace(
        FeatureKey.of(table.provenance),
        weights_digest=facts.weights_digest, precision="auto", decoder="auto",
    )  # fmt: skip
    keys: list[Key] = [(bytes.fromhex(table.digests[row]), 0) for row in wanted]
    with cache.reading(key.fingerprints, keys):
        rows = find_rows(cache, key, keys, device=device, engine=asked.engine)
        there = dict(zip(keys, rows.index.having(keys).tolist(), strict=True))
        missing = [table.paths[row] for row, k in zip(wanted, keys, strict=True) if not there[k]]
        files = _readable(cache, table, missing, options, progress) if missing else {}
        sources = {k: files.get(k, "") for k in keys if there[k] or k in files}
        fill(cache, asked, [rows], sources, trunk=trunk, progress=progress)
        cache.end_run(rows.key.fingerprint, list(sources))
        good = np.flatnonzero(rows.index.having(keys))
        if not len(good):
            return wanted[:0], np.empty((0, table.dim), np.float32)
        return wanted[good], rows.gather([keys[place] for place in good])


def _readable(
    cache: Cache, table: FeatureTable, paths: list[str], options: AdviseOptions, progress: Progress
) -> dict[Key, str]:
    """Return (digest, view 0) to the path of each file that can be read; none without a folder."""
    root = root_of(table, options.data)
    if not is_reachable(root):
        return {}
    threads = options.workers or usable_cores()
    files = digest_all(root, paths, StatMemo(cache.memo, progress.say), threads=threads)
    pairs = zip(paths, files, strict=True)
    return {(f.digest, 0): joined(root, path) for path, f in pairs if f.digest is not None}
