"""What more training images would bring: a power law through a learning curve, and its spread.

The error falls as err(n) = e (f + (1 − f) (n / N)^(−b)): a power law towards a floor (Hestness et
al. 2017, "Deep Learning Scaling is Predictable, Empirically"; the three-parameter law that Viering
and Loog 2021, "The Shape of Learning Curves: a Review", find among the best for extrapolation).
e is the error at N images, f the share of it that no number of images removes. Few points do not
fix three numbers, so none is chosen: every f and b counts as much as the curve makes it likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
