"""The learning curve of a linear head: errors on held-out images, over growing parts of train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.analysis.advising.forecast import Forecast, Point
from pipeline.heads.cross_validation import folds as folding
from pipeline.heads.cross_validation.candidates import Fold
from pipeline.heads.cross_validation.search import Plan, SearchResult, search
from pipeline.heads.metrics import wilson
from pipeline.heads.task import make_folds
from pipeline.store.table import FeatureTable

#: Penalties that are tried, two a decade; log-loss chooses, which varies less than accuracy.
GRID = tuple(10.0 ** (power / 2) for power in range(-10, 3))
#: Folds inside a part that choose its penalty.
FOLDS = 3
#: A part holds at least so many images a class in the mean: folds need two.
LEAST_EACH = 4
#: Halvings below all images: what lies further down says little of what lies beyond.
HALVINGS = 5


@dataclass(frozen=True)
class Trial:
    """Images to learn from and images to measure on.

    Attributes:
        pool: rows whose growing parts are learned from.
        group_ids: int64 [n], which of them stay together.
        held: rows to measure on; none shares a group with the pool.
        seed: of the order in which images join.
    """

    pool: np.ndarray
    group_ids: np.ndarray
    held: np.ndarray
    seed: int


@dataclass(frozen=True)
class Curve:
    """A learning curve and what follows from it.

    Attributes:
        measured_on: the held-out images, for people.
        held: how many they are.
        points: by size, the smallest first.
        forecasts: of more images; none where there are too few points.
        check: the forecast for all images from those of at most half, beside `points[-1]`.
    """

    measured_on: str
    held: int
    points: tuple[Point, ...]
    forecasts: tuple[Forecast, ...]
    check: Forecast | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "measured_on": self.measured_on,
            "held_images": self.held,
            "points": [
                {
                    "images": round(point.images),
                    "accuracies": [1 - error for error in point.errors],
                    "accuracy": 1 - point.error,
                    "interval": wilson(round((1 - point.error) * self.held), self.held),
                }
                for point in self.points
            ],
            "forecasts": [vars(one) for one in self.forecasts],
            "check": self.check and vars(self.check),
        }


def sizes(images: int, classes: int) -> list[float]:
    """Return the fractions of the images that are learned from, the smallest first, 1 last."""
    fractions = [0.5**halving for halving in range(HALVINGS + 1)]
    return [f for f in fractions[::-1] if f * images >= LEAST_EACH * classes or f == 1]


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    parts: Sequence[Fold],
    *,
    classes: int,
    seed: int,
) -> SearchResult:
    """Return the linear head of some rows, its penalty chosen by folds of these alone.

    Args:
        features: [N, D], raw.
        labels: int64 [N].
        rows: int64 [n], ascending.
        parts: (rows to fit on, rows to score).
        classes: K.
        seed: of the head.
    """
    plan = Plan(select="log-loss", grid=GRID, seed=seed)
    return search("linear", features, labels, classes=classes, train=rows, folds=parts, plan=plan)


def measure(
    table: FeatureTable,
    trials: Sequence[Trial],
    whole: SearchResult | None,
    progress: Callable[[str], None],
) -> tuple[Point, ...]:
    """Return the points of a learning curve.

    Args:
        table: whose rows are learned from.
        trials: one a repeat.
        whole: the head of the whole pool, where all trials share it.
        progress: told what is being fitted.
    """
    features, labels, classes = table.features, table.labels, len(table.classes)
    fractions, points = sizes(len(trials[0].pool), classes), []
    for done, fraction in enumerate(fractions, 1):
        shared = whole if fraction == 1 else None  # then all repeats learn from the same images
        errors, images = [], []
        for number, trial in enumerate(trials[:1] if shared else trials, 1):
            inside = folding.entering(labels[trial.pool], trial.group_ids, trial.seed) < fraction
            rows = trial.pool[inside]
            progress(f"{len(rows):,} images, size {done} of {len(fractions)}, repeat {number}")
            head = shared
            if head is None:
                group_ids = trial.group_ids[inside]
                parts = make_folds(rows, labels[rows], group_ids, count=FOLDS, seed=trial.seed)
                head = fit(features, labels, rows, parts, classes=classes, seed=trial.seed)
            guesses = head.probabilities(np.asarray(features[trial.held]), classes).argmax(1)
            errors.append(float((guesses != labels[trial.held]).mean()))
            images.append(len(rows))
        points.append(Point(float(np.mean(images)), tuple(errors)))
    return tuple(points)
