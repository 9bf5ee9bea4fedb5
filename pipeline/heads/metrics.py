"""From scores to figures, each with what is needed to judge it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.store.result_records import Calibration, Metrics

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


def draws(names: Sequence[str] | None) -> np.ndarray | None:
    """Return which images come together, int64 [N], of the names of their groups.

    None where there are no groups: each image is a draw of its own. An image whose name is empty
    is one, too.
    """
    if names is None or not any(names):
        return None
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(name or f"\0{row}", len(numbers)) for row, name in enumerate(names)]
    )


#: Resamplings over groups, and sign flips of their differences.
RESAMPLED = 4999


def interval(right: np.ndarray, group_ids: np.ndarray | None) -> tuple[float, float]:
    """Return the 95% interval of the share that is right.

    Over images it is Wilson's. Where images come in groups, groups are resampled (percentile
    bootstrap; Efron and Tibshirani 1993, chapter 13); where all are right, or none, that says
    nothing, and it is Wilson's over as many images as there are groups.

    Args:
        right: bool [N].
        group_ids: from `draws`.
    """
    if group_ids is None:
        return wilson(int(right.sum()), len(right))
    good, sizes = np.bincount(group_ids, right), np.bincount(group_ids)
    if good.sum() in (0, len(right)):
        return wilson(len(sizes) if good.any() else 0, len(sizes))
    rng, count = np.random.default_rng(0), len(sizes)
    shares = []
    for _ in range(RESAMPLED):
        drawn = rng.integers(0, count, count)
        shares.append(good[drawn].sum() / sizes[drawn].sum())
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


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
        group_ids: from `draws`: over what the interval is.
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


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of −ln p(label), p kept within [ε, 1]."""
    return float(losses(labels, probabilities).mean())


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return −ln p(label) of each image, float64 [N], p kept within [ε, 1]."""
    p = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.clip(p, EPSILON, 1.0)))


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


def standard_error(influences: np.ndarray, group_ids: np.ndarray | None = None) -> float:
    """Return the standard error of a metric, or of a difference, from `influence`s [N].

    Args:
        influences: of the images; of a difference, the differences.
        group_ids: int64 [N]: images of one group are one draw. None: each is a draw.
    """
    if group_ids is not None:
        influences = np.bincount(np.unique(group_ids, return_inverse=True)[1], influences)
    draws = len(influences)
    return float(np.sqrt(np.square(influences).sum() * draws / max(1, draws - 1)))


@dataclass(frozen=True)
class McNemar:
    """A test of paired predictions: McNemar's, or over groups of images.

    Attributes:
        first_alone: images that the first has right and the second wrong.
        second_alone: images that the second has right and the first wrong.
        p: probability of a split at least as uneven where both are equally good; two-sided.
        groups: how many groups it is over; None: it is McNemar's exact test, over images.
    """

    first_alone: int
    second_alone: int
    p: float
    groups: int | None = None

    @property
    def name(self) -> str:
        """Return what the test is called, for people."""
        if self.groups is None:
            return "exact McNemar p"
        return f"over {self.groups:,} groups, by sign flips, p"


def mcnemar(first: np.ndarray, second: np.ndarray, group_ids: np.ndarray | None = None) -> McNemar:
    """Return McNemar's exact test, or over groups that of flipped signs (Fisher 1935).

    Where both are equally good, each group's difference may as well have the other sign.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages"; advised for classifiers by Dietterich 1998.

    Args:
        first: bool [n], whether the first is right.
        second: bool [n], whether the second is.
        group_ids: from `draws`.
    """
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    if group_ids is not None:
        difference = np.bincount(group_ids, first.astype(float) - second)
        moved = difference[difference != 0]
        signs = np.random.default_rng(0).integers(0, 2, (RESAMPLED, len(moved))) * 2 - 1
        extreme = int((np.abs(signs @ moved) >= abs(moved.sum()) - 1e-9).sum())
        return McNemar(one, other, (1 + extreme) / (1 + RESAMPLED), len(difference))
    from scipy.stats import binomtest

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
        blind = float(-np.log(np.clip(probabilities, EPSILON, 1.0)).mean()) if prior else 0.0
        own = log_loss(labels, probabilities) * len(labels)
        return (own + blind * prior) / (len(labels) + prior)

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


#: Permutations; the smallest p is one in a thousand.
ROUNDS = 999


@dataclass(frozen=True)
class PermutationTest:
    """How many predictions are right, beside the random baseline: those of permuted labels.

    Attributes:
        right: predictions that are.
        images: that were predicted.
        random_baseline: mean accuracy over permuted labels.
        p: share of permutations with at least as many right, the labels' own counted in.
    """

    right: int
    images: int
    random_baseline: float
    p: float

    @property
    def accuracy(self) -> float:
        """Return the share of right predictions."""
        return self.right / self.images

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with the 95% Wilson interval of the accuracy."""
        values = {**vars(self), "accuracy": self.accuracy}
        del values["right"]
        return {**values, "interval": list(wilson(self.right, self.images))}


def permutation_test(
    labels: np.ndarray,
    group_ids: np.ndarray,
    right: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
) -> PermutationTest:
    """Return how often labels are predicted rightly, beside what permuted labels give.

    Labels are permuted between groups, so that equal images count once.
    Source: Good 2005, "Permutation, Parametric, and Bootstrap Tests of Hypotheses".

    Args:
        labels: int64 [N].
        group_ids: int64 [N].
        right: gives for labels [N] which predictions are right, bool [n].
        seed: of the permutations.
    """
    _, first, number = np.unique(group_ids, return_index=True, return_inverse=True)
    of_group = labels[first]
    rng = np.random.default_rng(seed)
    own = right(labels)
    shuffled = [int(right(rng.permutation(of_group)[number]).sum()) for _ in range(ROUNDS)]
    least = sum(count >= int(own.sum()) for count in shuffled)
    total = max(1, len(own))
    return PermutationTest(
        int(own.sum()), total, float(np.mean(shuffled) / total), (1 + least) / (1 + ROUNDS)
    )
