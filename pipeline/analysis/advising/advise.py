"""Which of the four quadrants of transfer learning a table is in, from measurements."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import plotting
from pipeline.analysis.advising import gains, learning_curve, quadrant, similarity
from pipeline.analysis.advising.advice import Advice, Reference, Size
from pipeline.analysis.advising.forecast import LEAST_SIZES
from pipeline.analysis.advising.learning_curve import Curve, Trial
from pipeline.analysis.advising.quadrant import Similarity
from pipeline.analysis.options import AdviseOptions
from pipeline.errors import PipelineError
from pipeline.heads.cross_validation import folds as folding
from pipeline.heads.cross_validation.random_baseline import PermutationTest, permutation_test
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.resolve import heads_of
from pipeline.heads.task import check_table, group_ids_of, make_folds
from pipeline.images.names import counted
from pipeline.progress import Progress, Silent
from pipeline.store import advice as kept
from pipeline.store.cache import Cache
from pipeline.store.outputs import DRAWN, output_path
from pipeline.store.results import MODEL
from pipeline.store.table import FeatureTable

#: Most training images that are looked at, and most numbers of their features.
MOST, NUMBERS = 10_000, 1 << 28
FOLDS = 5
#: Repeats of the learning curve; fewer from so many images on, where they differ less.
REPEATS, FEWER, FROM = 5, 3, 4000


def advise(
    table: FeatureTable | str | Path | None = None,
    *,
    sample: int = 1000,
    data: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    cache: str | Path | None = None,
) -> Advice:
    """Measure how large a table is and how similar to the source task, and say what to run.

    The cache keeps what was found, one advice a table, for `report`.

    Args:
        table: a table, its file, name or id; the cache's current one without it.
        sample: most training images whose features are also computed with random weights; 0
            leaves that comparison out.
        data: folder in which the table's images lie now; None for where they lay.
        device: `auto`, `cpu`, `cuda` or `mps`, for the random weights.
        workers: decoding threads; None for the cores that the process may use.
        seed: of folds, samples, subsets and permutations, from 0.
        output: PNG to write the learning curve to; None for no picture.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        What was measured (`size`, `neighbours`, `linear`, `similarity`, `curve`, `gains`) and what
        follows from it (`recommendation`).

    Raises:
        UsageError: an option that cannot be right; a `ValueError` too.
        PipelineError: there is no such table, or it has no labels.

    Example:
        >>> import pipeline
        >>> advice = pipeline.advise(pipeline.extract("digits"))
        >>> advice.recommendation.commands  # doctest: +SKIP
    """
    options = AdviseOptions.of(locals())
    found = advise_on_table(table, options, Cache.at(cache))
    if options.output is not None:
        found.draw(options.output)
    return found


def advise_on_table(
    table: FeatureTable | str | Path | None,
    options: AdviseOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Advice:
    """Do what `advise` does."""
    began = time.monotonic()
    progress = progress or Silent()
    options.check()
    if options.output is not None:
        output_path(options.output, mark=DRAWN, what=plotting.PICTURE)
    if not isinstance(table, FeatureTable):
        table = cache.open_table(table)
    check_table(table)
    notes: list[str] = []
    task = _look(table, options.seed, notes)
    labels, classes = table.labels[task.pool], len(table.classes)
    progress.start("neighbours", 0)
    near, duplicated = similarity.by_neighbours(
        np.asarray(table.features[task.pool]), labels, task.group_ids, seed=options.seed
    )
    if duplicated:
        notes.append(
            f"{counted(duplicated, 'training image has', 'training images have')} a duplicate or "
            "near-duplicate among the others; a duplicate is nobody's nearest neighbour here."
        )
    progress.start("linear", 0)
    whole, guesses = similarity.by_folds(
        table.features, table.labels, task.pool, task.group_ids, classes=classes, folds=FOLDS,
        seed=options.seed,
    )  # fmt: skip
    linear = None
    if guesses is not None:
        linear = permutation_test(labels, task.group_ids, lambda y: y == guesses, seed=options.seed)
    reference, measured = _similarity(
        table, task, options, cache, progress, notes, best=linear or near
    )
    progress.start("curve", 0)
    curve = _curve(table, task, whole, options.seed, progress, notes)
    counts = np.bincount(table.labels[task.train])
    counts = counts[counts > 0]
    size = Size(
        len(task.train), len(counts), int(counts.min()), float(np.median(counts)),
        int(counts.max()), len(task.pool),
    )  # fmt: skip
    models, damaged = MODEL.every(cache.root)
    notes += damaged
    found = gains.find(models, table.table_id, images=size.images)
    advice = Advice(
        table=table,
        size=size,
        majority=float(counts.max() / counts.sum()),
        neighbours=near,
        linear=linear,
        reference=reference,
        similarity=measured,
        curve=curve,
        gains=found,
        recommendation=quadrant.recommend(
            table, size.images, measured, near=near, linear=linear, gains=found,
            **at_hand(table, cache),
        ),
        notes=tuple(notes),
        seconds=time.monotonic() - began,
    )  # fmt: skip
    return _keep(advice, options, cache)


def _keep(advice: Advice, options: AdviseOptions, cache: Cache) -> Advice:
    """Return advice that the cache now has; or that says why not, since it is told anyway."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    asked = {name: value for name, value in asdict(options).items() if name != "output"}
    try:
        kept.write(cache, {"created": created, "recipe": asked, **advice.to_json()})
    except PipelineError as error:
        return replace(advice, notes=(*advice.notes, f"Not kept for the report: {error}"))
    return advice


@dataclass(frozen=True)
class _Task:
    """Rows: of training images, of those looked at (with their groups), and held out."""

    train: np.ndarray
    pool: np.ndarray
    group_ids: np.ndarray
    held: np.ndarray
    held_name: str


def _look(table: FeatureTable, seed: int, notes: list[str]) -> _Task:
    """Return which rows are looked at; held-out images that stand in train are left out."""
    names = np.array(table.splits, dtype=object)
    known = table.labels >= 0
    train = np.flatnonzero((names == "train") & known)
    held = np.flatnonzero(np.isin(names, ("val", "test")) & known)
    group_ids = group_ids_of(table, np.concatenate([train, held]))
    inside, outside = group_ids[: len(train)], group_ids[len(train) :]
    twice = np.isin(outside, inside)
    if twice.any():
        notes.append(
            f"{counted(int(twice.sum()), 'image')} of val or test stand in train too, as equal "
            "files or by their group, and were left out."
        )
    held = held[~twice]
    most = max(1, min(MOST, NUMBERS // max(1, table.features.shape[1])))
    part = np.ones(len(train), bool)
    if len(train) > most:
        part = folding.entering(table.labels[train], inside, seed) < most / len(train)
        notes.append(
            f"Measured on {part.sum():,} of the {len(train):,} training images, of each class its "
            "share."
        )
    there = [name for name in ("val", "test") if name in set(names[held])]
    return _Task(train, train[part], inside[part], held, " and ".join(there))


def _similarity(
    table: FeatureTable,
    task: _Task,
    options: AdviseOptions,
    cache: Cache,
    progress: Progress,
    notes: list[str],
    *,
    best: PermutationTest,
) -> tuple[Reference | None, Similarity]:
    """Return the comparison with random weights, or else the one with chance, and say why."""
    try:
        if not options.sample:
            raise PipelineError("--sample is 0")
        reference, measured, note = similarity.to_random_weights(
            cache, table, task.pool, task.group_ids, sample=options.sample, folds=FOLDS,
            seed=options.seed, data=options.data, device=options.device, workers=options.workers,
            progress=progress,
        )  # fmt: skip
    except PipelineError as error:
        reason = str(error).rstrip(".")
        notes.append(
            f"Not compared with random weights: {reason}. Compared with chance alone, which says "
            "less: an easy task is solved by any features."
        )
        return None, similarity.to_random_baseline(best)
    if note:
        notes.append(f"Compared with random weights on fewer images: {note}.")
    return reference, measured


def _curve(
    table: FeatureTable,
    task: _Task,
    whole: SearchResult,
    seed: int,
    progress: Progress,
    notes: list[str],
) -> Curve | None:
    """Return the learning curve on the held-out images, or by folds where there are none."""
    repeats = REPEATS if len(task.pool) <= FROM else FEWER
    shared: SearchResult | None = whole
    if len(task.held):
        on, held = task.held_name, len(task.held)
        trials = [
            Trial(task.pool, task.group_ids, task.held, repeats * seed + number)
            for number in range(repeats)
        ]
    else:
        on, held, shared = "train, by folds", len(task.pool), None
        labels = table.labels[task.pool]
        parts = make_folds(task.pool, labels, task.group_ids, count=repeats, seed=seed)
        trials = [
            Trial(inside, task.group_ids[np.searchsorted(task.pool, inside)], outside, seed)
            for inside, outside in parts
        ]
    if not trials:
        notes.append("No learning curve: there are too few images to hold some out.")
        return None
    points = learning_curve.measure(
        table.features, table.labels, trials, classes=len(table.classes), whole=shared,
        progress=progress.update,
    )  # fmt: skip
    images = len(task.train)
    targets = [2 * images] if images == len(task.pool) else [images, 2 * images]
    curve = learning_curve.extrapolate(points, targets, measured_on=on, held=held)
    if not curve.forecasts:
        notes.append(
            f"No forecast: {images:,} training images give {len(points)} points of a learning "
            f"curve, and {LEAST_SIZES} are needed."
        )
    return curve


def at_hand(table: FeatureTable, cache: Cache) -> dict[str, Any]:
    """Return whether the table is the current one, and its best head to fine-tune from."""
    heads = (one.info for one in heads_of(cache, table))
    usable = [one.id for one in heads if one.linear and one.log_loss and not one.partial]
    current = cache.current()
    return {
        "current": current is not None and current == table.path,
        "head": next(iter(usable), None),
    }
