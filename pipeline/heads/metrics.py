"""From scores to figures, each with what is needed to judge it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.store.records import Metrics

#: Two-sided 95% quantile of the normal distribution.
Z = 1.959963984540054
BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
#: Probabilities are kept from 0 and 1 by this much in the log-loss (float32's epsilon).
EPSILON = float(np.finfo(np.float32).eps)
SELECTIONS = ("accuracy", "balanced-accuracy", "log-loss", "f1-macro")


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a share.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not total:
        return 0.0, 1.0
    share, square = right / total, Z * Z / total
    centre = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def measure(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...], majority: int
) -> Metrics:
    """Return the metrics of predictions.

    Args:
        labels: [N] int64, all known.
        probabilities: [N, K], rows sum to 1; the likeliest class is the prediction.
        classes: K names.
        majority: the class that the baseline always predicts.
    """
    predicted, total = probabilities.argmax(1), len(labels)
    confusion = _confusion(labels, predicted, len(classes))
    right, actual, claimed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = right / claimed, right / actual
        f1 = 2 * right / (actual + claimed)
    return Metrics(
        images=total,
        accuracy=float(right.sum() / total),
        interval=wilson(int(right.sum()), total),
        balanced_accuracy=float(np.nanmean(recall)),
        f1_macro=float(np.nanmean(f1)),
        log_loss=log_loss(labels, probabilities),
        top5=_top(labels, probabilities, 5) if len(classes) > 5 else None,
        calibration_error=_calibration_error(predicted == labels, probabilities.max(1)),
        baseline=float((labels == majority).mean()),
        classes=tuple(
            {
                "class": name,
                "images": int(actual[k]),
                "precision": _known(precision[k]),
                "recall": _known(recall[k]),
                "f1": _known(f1[k]),
            }
            for k, name in enumerate(classes)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how many images of each class (rows) are predicted to be of each, [K, K] int64."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes)


def score(metric: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return one of `SELECTIONS`, larger is better (the log-loss is negated)."""
    if metric == "log-loss":
        return -log_loss(labels, probabilities)
    predicted = probabilities.argmax(1)
    if metric == "accuracy":
        return float((predicted == labels).mean())
    confusion = _confusion(labels, predicted, probabilities.shape[1])
    right, actual, claimed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    if metric == "balanced-accuracy":
        return float(np.mean((right / np.maximum(actual, 1))[actual > 0]))
    named = actual + claimed > 0
    return float(np.mean(2 * right[named] / (actual + claimed)[named]))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of −ln p(label), p kept within [ε, 1]."""
    return float(losses(labels, probabilities).mean())


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return −ln p(label) of each image, float64 [N], p kept within [ε, 1]."""
    p = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.clip(p, EPSILON, 1.0)))


@dataclass(frozen=True)
class McNemar:
    """McNemar's test on paired predictions.

    Attributes:
        first_alone: images that the first has right and the second wrong.
        second_alone: images that the second has right and the first wrong.
        p: probability of a split at least as uneven where both are equally good; two-sided,
            exact (binomial).
    """

    first_alone: int
    second_alone: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Return McNemar's exact test.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages"; advised for classifiers by Dietterich 1998.

    Args:
        first: bool [n], whether the first is right.
        second: bool [n], whether the second is.
    """
    from scipy.stats import binomtest

    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    return McNemar(one, other, p)


def reliability(right: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return how many images fall in each bin of confidence, and how many of these are right.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.

    Args:
        right: bool [N], whether the prediction is.
        confidence: [N], probability of the prediction, in [0, 1].

    Returns:
        [15, 3] float64 for 15 bins of equal width: images, right ones, sum of confidences.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = np.zeros((BINS, 3))
    np.add.at(sums, bins, np.stack([np.ones(len(right)), right, confidence], axis=1))
    return sums


def softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities [N, K] float64 of class scores [N, K]."""
    z = np.asarray(scores, np.float64) / temperature
    z = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(z / z.sum(1, keepdims=True))


def fit_temperature(scores: np.ndarray, labels: np.ndarray, *, prior: float = 0.0) -> float:
    """Return the temperature that minimises the log-loss of `softmax(scores / T)`.

    Brent's search over ln T; the loss is convex in 1/T.
    Source: Guo et al. 2017, section 4.2.

    Args:
        scores: [N, K] that the head gave to images that it was not fitted on; −∞ for a class that
            it never saw.
        labels: [N] int64.
        prior: weight of the belief that labels have nothing to do with scores, in images. Without
            it faultless scores ask for a temperature of 0, and so for certainty.
    """
    from scipy.optimize import minimize_scalar

    spread = float(np.std(scores[np.isfinite(scores)])) or 1.0

    def loss(log_temperature: float) -> float:
        probabilities = softmax(scores, math.exp(log_temperature))
        mean = log_loss(labels, probabilities)
        if prior:
            blind = float(-np.log(np.clip(probabilities, EPSILON, 1.0)).mean())
            mean = (mean * len(labels) + blind * prior) / (len(labels) + prior)
        return mean

    ends = math.log(spread * 1e-3), math.log(spread * 1e5)
    best = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-9})
    return math.exp(best.x)


def _top(labels: np.ndarray, probabilities: np.ndarray, count: int) -> float:
    likeliest = np.argpartition(-probabilities, count - 1, axis=1)[:, :count]
    return float((likeliest == labels[:, None]).any(1).mean())


def _calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    _, hits, sure = reliability(right, confidence).T
    return float(np.abs(hits - sure).sum() / len(right))
