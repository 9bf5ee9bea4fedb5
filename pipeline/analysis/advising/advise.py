"""Which of the four quadrants of transfer learning a table is in, from measurements."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import plotting
from pipeline.analysis.advising import learning_curve, quadrant, similarity
from pipeline.analysis.advising.learning_curve import LEAST_SIZES, Curve, Trial, forecast
from pipeline.analysis.advising.quadrant import Gain, Recommendation
from pipeline.analysis.advising.similarity import Reference, Similarity
from pipeline.analysis.advising.trial import try_out
from pipeline.analysis.options import AdviseOptions
from pipeline.errors import PipelineError
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.resolve import heads_of
from pipeline.heads.task import check_finite, check_table, entering, group_ids_of, make_folds
from pipeline.heads.uncertainty import PermutationTest, permutation_test
from pipeline.images.names import counted
from pipeline.progress import Progress, Silent
from pipeline.store import advice as kept
from pipeline.store.cache import Cache
from pipeline.store.outputs import DRAWN, output_path, write_output
from pipeline.store.results import MODEL
from pipeline.store.table import FeatureTable


@dataclass(frozen=True)
class Size:
    """How large a data set is, in training images with a label.

    Attributes:
        images: N.
        classes: that have training images.
        smallest: images of the smallest class.
        median: of the median class.
        largest: of the largest class.
        looked_at: images that everything below is measured on, N or a stratified part of them.
    """

    images: int
    classes: int
    smallest: int
    median: float
    largest: int
    looked_at: int


@dataclass(frozen=True, eq=False)
class Advice:
    """What `advise` found.

    Attributes:
        table: that it was asked about.
        size: how large.
        majority: share of the commonest class.
        neighbours: leave-one-out nearest neighbour.
        linear: cross-validated linear head; None where no folds can be made.
        reference: None where there are no features with random weights.
        similarity: to the source task.
        curve: None where nothing can be held out.
        gains: of fine-tuning, where it was tried, on a part of train too.
        recommendation: what to run.
        notes: sentences for the person.
        seconds: of the whole run.
    """

    table: FeatureTable
    size: Size
    majority: float
    neighbours: PermutationTest
    linear: PermutationTest | None
    reference: Reference | None
    similarity: Similarity
    curve: Curve | None
    gains: tuple[Gain, ...]
    recommendation: Recommendation
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        values = {**vars(self), "seconds": round(self.seconds, 3)}
        table = values.pop("table")
        of = {"table": str(table.path), "table_id": table.table_id,
              "trunk": table.provenance.trunk}  # fmt: skip
        whole: dict[str, Any] = json.loads(json.dumps(of | values, default=_plain))
        return whole

    def draw(self, path: str | Path) -> None:
        """Write the learning curve and its forecast as a PNG.

        Raises:
            PipelineError: there is no curve, or the file cannot be written.
        """
        if self.curve is None:
            raise PipelineError("There is no learning curve to draw: nothing could be held out.")
        figure = plotting.plain_figure(6.4, 4)
        axes = figure.subplots()
        plotting.forecast_axes(axes, self.curve.to_json(), colours=("C0", "C1", "0.5"))
        axes.spines[["top", "right"]].set_visible(False)
        write_output(Path(path), plotting.png(figure), mark=DRAWN, what=plotting.PICTURE)


def _plain(value: Any) -> Any:
    return value.to_json() if hasattr(value, "to_json") else vars(value)


#: Most training images that are measured on, and most numbers of their features.
MOST, NUMBERS = 10_000, 1 << 28
#: Repeats of the learning curve; fewer from so many images on, where they differ less.
REPEATS, FEWER, FROM = 5, 3, 4000


def advise(
    table: FeatureTable | str | Path | None = None,
    *,
    sample: int = 1000,
    trial: int = 400,
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
        trial: most training images that fine-tuning is tried on, two thirds to learn from and the
            rest to measure on, where it takes a minute at most; 0 leaves it out.
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
    advice = advise_on_table(table, options, Cache.at(cache))
    if options.output is not None:
        advice.draw(options.output)
    return advice


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
    check_finite(table)
    check_table(table)
    notes: list[str] = []
    seed = options.seed
    train, sample = _sample(table, seed, notes)
    labels = table.labels[sample.pool]
    progress.start("neighbours", 0)
    features = np.asarray(table.features[sample.pool])
    near, duplicated = similarity.by_neighbours(features, labels, sample.group_ids, seed=seed)
    if duplicated:
        notes.append(
            f"{counted(duplicated, 'training image has', 'training images have')} a duplicate or "
            "near-duplicate among the others; a duplicate is nobody's nearest neighbour here."
        )
    progress.start("linear", 0)
    whole, guesses = similarity.by_folds(
        table.features, table.labels, sample.pool, sample.group_ids, classes=len(table.classes),
        seed=seed,
    )  # fmt: skip
    linear = None
    if guesses is not None:
        linear = permutation_test(labels, sample.group_ids, lambda y: y == guesses, seed=seed)
    reference = None
    try:
        reference, similar, note = similarity.to_random_weights(
            cache, table, sample.pool, sample.group_ids, options, progress
        )
        if note:
            notes.append(f"Compared with random weights on fewer images: {note}.")
    except PipelineError as error:
        similar = similarity.to_random_baseline(linear or near)
        notes.append(
            f"Not compared with random weights: {str(error).rstrip('.')}. Compared with chance "
            "alone, which says less: an easy task is solved by any features."
        )
    progress.start("curve", 0)
    curve = _curve(table, train, sample, whole, progress, notes)
    counts = np.bincount(table.labels[train])
    counts = counts[counts > 0]
    images, median = len(train), float(np.median(counts))
    models, damaged = MODEL.every(cache.root)
    tried = quadrant.find_gains(models, table.table_id, images=images)
    there = at_hand(table, cache)
    known = [gain.unfreeze for gain in tried]
    tried += try_out(cache, table, there["head"], options, progress, notes, known)
    recommendation = quadrant.recommend(
        table, images, similar, near=near, linear=linear, gains=tried, **there
    )
    advice = Advice(
        table=table,
        size=Size(
            images, len(counts), int(counts.min()), median, int(counts.max()), len(sample.pool)
        ),
        majority=float(counts.max() / counts.sum()),
        neighbours=near,
        linear=linear,
        reference=reference,
        similarity=similar,
        curve=curve,
        gains=tried,
        recommendation=recommendation,
        notes=(*notes, *damaged),
        seconds=time.monotonic() - began,
    )
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    asked = {name: value for name, value in asdict(options).items() if name != "output"}
    try:
        kept.write(cache, {"created": created, "recipe": asked, **advice.to_json()})
    except PipelineError as error:  # what was measured is printed all the same
        return replace(advice, notes=(*advice.notes, f"Not kept for the report: {error}"))
    return advice


def _sample(table: FeatureTable, seed: int, notes: list[str]) -> tuple[np.ndarray, Trial]:
    """Return the training rows, and those to measure on; held-out ones that train has are left out.

    Args:
        table: with labels.
        seed: of the sample, where there are too many training images.
        notes: takes what was left out.
    """
    names, train = np.array(table.splits, dtype=object), table.training_rows
    held = np.flatnonzero(np.isin(names, ("val", "test")) & (table.labels >= 0))
    group_ids = group_ids_of(table)
    inside, outside = group_ids[train], group_ids[held]
    twice = np.isin(outside, inside)
    if twice.any():
        notes.append(
            f"{counted(int(twice.sum()), 'image')} of val or test stand in train too, as equal "
            "files or by their group, and were left out."
        )
    most = max(1, min(MOST, NUMBERS // max(1, table.dim)))
    part = np.ones(len(train), bool)
    if len(train) > most:
        part = entering(table.labels[train], inside, seed) < most / len(train)
        notes.append(
            f"Measured on {part.sum():,} of the {len(train):,} training images, of each class its "
            "share."
        )
    return train, Trial(train[part], inside[part], held[~twice], seed)


def _curve(
    table: FeatureTable,
    train: np.ndarray,
    sample: Trial,
    whole: SearchResult,
    progress: Progress,
    notes: list[str],
) -> Curve | None:
    """Return the learning curve on the held-out images, or by folds where there are none."""
    pool, group_ids, held, seed = sample.pool, sample.group_ids, sample.held, sample.seed
    repeats = REPEATS if len(pool) <= FROM else FEWER
    if len(held):
        splits = {table.splits[row] for row in held}
        measured_on = " and ".join(name for name in ("val", "test") if name in splits)
        trials = [replace(sample, seed=repeats * seed + n) for n in range(repeats)]
    else:
        measured_on = "train, by folds"
        parts = make_folds(pool, table.labels[pool], group_ids, count=repeats, seed=seed)
        trials = [
            Trial(inside, group_ids[np.searchsorted(pool, inside)], outside, seed)
            for inside, outside in parts
        ]
    if not trials:
        notes.append("No learning curve: there are too few images to hold some out.")
        return None
    points = learning_curve.measure(table, trials, whole if len(held) else None, progress.update)
    images, count = len(train), len(held) or len(pool)
    forecasts, check = [], None
    if len(points) >= LEAST_SIZES:
        targets = [2 * images] if images == len(pool) else [images, 2 * images]
        forecasts = forecast(points, targets, held=count)
    else:
        notes.append(
            f"No forecast: {images:,} training images give {len(points)} points of a learning "
            f"curve, and {LEAST_SIZES} are needed."
        )
    if len(points) > LEAST_SIZES:
        (check,) = forecast(points[:-1], [round(points[-1].images)], held=count)
    return Curve(measured_on, count, points, tuple(forecasts), check)


def at_hand(table: FeatureTable, cache: Cache) -> dict[str, Any]:
    """Return whether the table is the current one, and its best head to fine-tune from."""
    heads = (one.info for one in heads_of(cache, table))
    usable = [one.id for one in heads if one.linear and one.log_loss and not one.partial]
    current = cache.current()
    return {
        "current": current is not None and current == table.path,
        "head": next(iter(usable), None),
    }
