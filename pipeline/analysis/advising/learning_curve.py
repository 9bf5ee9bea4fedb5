"""The learning curve of a linear head, and what more training images would bring.

The curve is errors on held-out images, over growing parts of train. A power law through it, with
its spread, looks ahead: the error falls as err(n) = e (f + (1 − f) (n / N)^(−b)), towards a floor
(Hestness et al. 2017, "Deep Learning Scaling is Predictable, Empirically"; the three-parameter law
that Viering and Loog 2021, "The Shape of Learning Curves: a Review", find among the best for
extrapolation). e is the error at N images, f the share of it that no number of images removes. Few
points do not fix three numbers, so none is chosen: every f and b counts as much as the curve makes
it likely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.heads.cross_validation.search import Plan, SearchResult, search
from pipeline.heads.task import entering, make_folds
from pipeline.heads.uncertainty import wilson
from pipeline.store.table import FeatureTable

#: Every floor and exponent is as likely as any other before the curve is seen.
FLOORS = np.linspace(0, 1, 41)
EXPONENTS = np.linspace(0.025, 1.5, 60)
#: A curve is a power law only nearly: standard deviation of a point around it, as a share of the
#: error, for each halving of the images between it and the largest; measured in docs/advise.md.
MISFIT = 0.03
#: Sizes that a forecast needs.
LEAST_SIZES = 3
DRAWS = 20_000


@dataclass(frozen=True)
class Point:
    """The errors of heads fitted on equally many images. Equal when all numbers are.

    Attributes:
        images: that they were fitted on, in the mean over the repeats.
        errors: share of held-out images that is wrong, for each repeat.
    """

    images: float
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """Return the mean error."""
        return float(np.mean(self.errors))


@dataclass(frozen=True)
class Forecast:
    """The accuracy to expect of a head fitted on more images.

    Attributes:
        images: to fit on.
        accuracy: median.
        interval: 95%, for images drawn like those that the curve was measured on.
        gain: median of what it adds to the accuracy at the end of the curve.
        gain_interval: 95%; narrower, since the luck of the held-out images is in both.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]


def noise(points: Sequence[Point]) -> float:
    """Return k, where a head's error varies by k / n from training set to training set of n images.

    From how the repeats' errors differ once each size's mean and each repeat's own level are
    subtracted (weighted least squares). Repeats are parts of the same images, and so differ by
    k / n − k / N alone. Without repeats k is as much as half a percent is with 1,000 images.

    Args:
        points: by size, the smallest first; N is the last one's.
    """
    whole = points[-1].images
    repeats = min((len(point.errors) for point in points[:-1]), default=0)
    if repeats < 2 or len(points) < 3:
        return float(1000 * 0.005**2)
    each = np.array([[1 / point.images - 1 / whole] for point in points[:-1]])
    y = np.array([point.errors[:repeats] for point in points[:-1]])  # [sizes, repeats]
    y -= y.mean(1, keepdims=True)
    y -= (y / each).sum(0) / (1 / each).sum()
    return float((np.square(y) / each).sum() / ((len(y) - 1) * (repeats - 1)))


def forecast(
    points: Sequence[Point], targets: Sequence[int], *, held: int, seed: int = 0
) -> list[Forecast]:
    """Return what to expect at each target, and how sure that is.

    The spread has four sources: which floor and exponent the curve allows, what a head owes to
    its training images, how far curves are from power laws, and that the held-out images are
    `held` draws from those to come (a Beta distribution, after Jeffreys).

    Args:
        points: by size, the smallest first; at least `LEAST_SIZES`.
        targets: numbers of training images, at least as many as the last point's.
        held: images that the errors were measured on.
        seed: of the draws.
    """
    n = np.array([point.images for point in points])
    y = np.array([point.error for point in points])
    repeats = np.array([len(point.errors) for point in points])
    k = noise(points)
    # an error of 0 in 50 images is no error without spread
    scale = np.maximum(y, 1 / (held + 2))
    halvings = np.log2(n[-1] / n)
    spread = k * ((1 / n - 1 / n[-1]) / repeats + 1 / n[-1])
    spread += np.square(MISFIT * scale * (1 + halvings))
    f, b = (grid.ravel() for grid in np.meshgrid(FLOORS, EXPONENTS, indexing="ij"))

    def shape(images: np.ndarray) -> np.ndarray:
        ratio = images / n[-1]
        return np.asarray(f[:, None] + (1 - f[:, None]) * ratio ** -b[:, None])  # [grid, n]

    g = shape(n)
    precision = (np.square(g) / spread).sum(1)
    level = (g * y / spread).sum(1) / precision
    misfit = (np.square(y - level[:, None] * g) / spread).sum(1)
    likely = np.exp(-(misfit - misfit.min()) / 2) / np.sqrt(precision)
    rng = np.random.default_rng(seed)
    cell = rng.choice(len(f), DRAWS, p=likely / likely.sum())
    e = np.maximum(level[cell] + rng.standard_normal(DRAWS) / np.sqrt(precision[cell]), 0)
    forecasts = []
    for target in targets:
        ahead = np.log2(target / n[-1])
        wobble = np.sqrt(k / target + np.square(MISFIT * scale[-1] * ahead))
        error = e * shape(np.array([target]))[cell, 0] + wobble * rng.standard_normal(DRAWS)
        error = np.clip(error, 0, 1)
        seen = 1 - rng.beta(held * error + 0.5, held * (1 - error) + 0.5)
        gained = y[-1] - error
        half = 0.5 / held  # accuracies are whole numbers of images
        low, high = _middle(seen)
        forecasts.append(
            Forecast(
                images=int(target),
                accuracy=float(1 - np.median(error)),
                interval=(max(0.0, low - half), min(1.0, high + half)),
                gain=float(np.median(gained)),
                gain_interval=(_middle(gained)[0] - half, _middle(gained)[1] + half),
            )
        )
    return forecasts


def _middle(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


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


def plan(seed: int) -> Plan:
    """Return how the linear head of some images is chosen."""
    return Plan(select="log-loss", grid=GRID, seed=seed)


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
            inside = entering(labels[trial.pool], trial.group_ids, trial.seed) < fraction
            rows = trial.pool[inside]
            progress(f"{len(rows):,} images, size {done} of {len(fractions)}, repeat {number}")
            head = shared
            if head is None:
                group_ids = trial.group_ids[inside]
                parts = make_folds(rows, labels[rows], group_ids, count=FOLDS, seed=trial.seed)
                head = search(
                    "linear", features, labels, classes=classes, train=rows, folds=parts,
                    plan=plan(trial.seed),
                )  # fmt: skip
            guesses = head.probabilities(np.asarray(features[trial.held]), classes).argmax(1)
            errors.append(float((guesses != labels[trial.held]).mean()))
            images.append(len(rows))
        points.append(Point(float(np.mean(images)), tuple(errors)))
    return tuple(points)
