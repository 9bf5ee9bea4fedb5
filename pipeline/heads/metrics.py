"""From scores to figures, each with what is needed to judge it."""

from __future__ import annotations

import math

import numpy as np

from pipeline.heads.uncertainty import interval
from pipeline.store.score_records import Calibration, Metrics

BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
#: Probabilities are kept from 0 and 1 by this much in the log-loss (float32's epsilon).
EPSILON = float(np.finfo(np.float32).eps)
SELECTIONS = ("accuracy", "balanced-accuracy", "log-loss", "f1-macro")


def measure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    majority: int,
    *,
    group_ids: np.ndarray | None = None,
) -> Metrics:
    """Return the metrics of predictions.

    Args:
        labels: [N] int64, all known.
        probabilities: [N, K], rows sum to 1; the likeliest class is the prediction.
        classes: K names.
        majority: the class that the baseline always predicts.
        group_ids: from `uncertainty.draws`: over what the interval is.
    """
    predicted, confidence, total = probabilities.argmax(1), probabilities.max(1), len(labels)
    confusion = _confusion(labels, predicted, len(classes))
    right, images = int(confusion.trace()), confusion.sum(1).tolist()
    rates = _rates(confusion)
    top5 = None
    if len(classes) > 5:
        likeliest = np.argpartition(-probabilities, 4, axis=1)[:, :5]
        top5 = float((likeliest == labels[:, None]).any(1).mean())
    _, hits, sure = reliability(predicted == labels, confidence).T
    columns = ([None if math.isnan(rate) else rate for rate in of.tolist()] for of in rates)
    return Metrics(
        images=total,
        accuracy=right / total,
        interval=interval(predicted == labels, group_ids),
        groups=None if group_ids is None else int(group_ids.max()) + 1,
        balanced_accuracy=float(np.nanmean(rates[1])),
        f1_macro=float(np.nanmean(rates[2])),
        log_loss=log_loss(labels, probabilities),
        top5=top5,
        calibration_error=float(np.abs(hits - sure).sum() / total),
        baseline=float((labels == majority).mean()),
        classes=tuple(
            {"class": name, "images": count, "precision": precision, "recall": recall, "f1": f1}
            for name, count, precision, recall, f1 in zip(classes, images, *columns, strict=True)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how many images of each class (rows) are predicted to be of each, [K, K] int64."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes)


def _rates(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 of each class, [K] float64, NaN where undefined."""
    right, actual, claimed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return right / claimed, right / actual, 2 * right / (actual + claimed)


def score(metric: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return one of `SELECTIONS`, larger is better (the log-loss is negated)."""
    if metric == "log-loss":
        return -log_loss(labels, probabilities)
    predicted = probabilities.argmax(1)
    if metric == "accuracy":
        return float((predicted == labels).mean())
    _, recall, f1 = _rates(_confusion(labels, predicted, probabilities.shape[1]))
    return float(np.nanmean(recall if metric == "balanced-accuracy" else f1))


def log_loss(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the mean of −ln p(label), p kept within [ε, 1], weighed as `losses` are."""
    return float(losses(labels, probabilities, weights).mean())


def losses(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return −ln p(label) of each image, float64 [N], p kept within [ε, 1].

    Args:
        labels: int64 [N].
        probabilities: [N, K].
        weights: [K] of the classes, scaled so that they are one in the mean over the images; None:
            all alike.
    """
    p = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    own = np.asarray(-np.log(np.clip(p, EPSILON, 1.0)))
    return own if weights is None else own * weights[labels] / weights[labels].mean()


def influence(metric: str, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return how much each image adds to one of `SELECTIONS`, float64 [N], zero in the mean.

    The square root of their squares' sum is the metric's standard error to first order, that of
    two metrics' differences the paired one (the infinitesimal jackknife; Efron 1982, "The
    Jackknife, the Bootstrap and Other Resampling Plans", chapter 6).
    """
    if metric == "log-loss":
        each = -losses(labels, probabilities)
        return np.asarray((each - each.mean()) / len(labels))
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    right = predicted == labels
    if metric == "accuracy":
        return np.asarray((right - right.mean()) / len(labels))
    confusion = _confusion(labels, predicted, classes)
    actual, claimed = confusion.sum(1), confusion.sum(0)
    _, recall, f1 = _rates(confusion)
    if metric == "balanced-accuracy":
        return np.asarray((right - recall[labels]) / actual[labels] / np.count_nonzero(actual))
    # F1 = 2 right / (actual + claimed): an image counts in its own class and in the predicted one
    size = 1 / np.maximum(actual + claimed, 1)
    own, other = f1[labels] * size[labels], f1[predicted] * size[predicted]
    share = (2 * right * size[labels] - own - other) / np.count_nonzero(actual + claimed)
    return np.asarray(share)


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

    known = np.isfinite(scores)
    spread = float(np.std(scores[known])) or 1.0
    own = np.zeros_like(known)
    own[np.arange(len(labels)), labels] = True
    own &= known  # a class that was never seen says nothing of T
    shifted = np.asarray(scores, np.float64) - scores.max(1, keepdims=True)

    def loss(log_temperature: float) -> float:
        z = shifted / math.exp(log_temperature)
        logs = z - np.log(np.exp(z).sum(1, keepdims=True))  # not clipped, or it were not convex
        blind = float(logs[known].mean()) if prior else 0.0
        return -(float(logs[own].sum()) + blind * prior) / (len(labels) + prior)

    ends = math.log(spread * 1e-3), math.log(spread * 1e5)
    best = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-9})
    return math.exp(best.x)


#: Images' worth of belief that labels have nothing to do with scores; see `fit_temperature`.
#: Platt 1999, "Probabilistic outputs for support vector machines", section 2.2, for the idea.
PRIOR = 1.0


def calibrate(logits: np.ndarray, labels: np.ndarray, *, on: str) -> Calibration:
    """Return what logits are divided by so that probabilities mean something.

    Where 100 images get a probability of about 0.8, about 80 should be right. The temperature is
    fitted when the head or model is made, on images that it was not fitted on, and kept in its
    JSON file, so that predicting needs no data. It never changes which class is the likeliest.

    Args:
        logits: [n, K] of images that were not fitted on; −∞ for a class that was never seen.
        labels: [n] int64.
        on: which images these are: `cv` for the held-out folds of train, `val`, or `train-part`.

    Returns:
        The temperature, and the log-loss of these images before and after it.
    """
    temperature = fit_temperature(logits, labels, prior=PRIOR)
    before, after = (log_loss(labels, softmax(logits, t)) for t in (1.0, temperature))
    if after >= before:  # with few images the prior says more than they do
        temperature, after = 1.0, before
    return Calibration(temperature, on, len(labels), before, after)


def tempered(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return logits [n, K] divided by the temperature that suits them best.

    Two networks are compared so: smoothed labels make one less sure than it may be, and that alone
    makes it no worse.

    Args:
        logits: [n, K].
        labels: int64 [n].
    """
    return np.asarray(logits / np.float32(calibrate(logits, labels, on="").temperature))
