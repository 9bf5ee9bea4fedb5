"""How sure a figure is: intervals, standard errors, and tests, over images or groups of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Two-sided 95% quantile of the normal distribution.
Z = 1.959963984540054


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
#: Groups above which sums over them are taken as normal, in place of resampling.
MANY_GROUPS = 2000


def interval(right: np.ndarray, group_ids: np.ndarray | None) -> tuple[float, float]:
    """Return the 95% interval of the share that is right.

    Over images it is Wilson's. Where images come in groups, groups are resampled (percentile
    bootstrap; Efron and Tibshirani 1993, chapter 13), and of many groups the share is taken as
    normal; where all are right, or none, that says nothing, and it is Wilson's over as many images
    as there are groups.

    Args:
        right: bool [N].
        group_ids: from `draws`.
    """
    if group_ids is None:
        return wilson(int(right.sum()), len(right))
    good, sizes = np.bincount(group_ids, right), np.bincount(group_ids)
    if good.sum() in (0, len(right)):
        return wilson(len(sizes) if good.any() else 0, len(sizes))
    if len(sizes) > MANY_GROUPS:
        share = float(good.sum() / len(right))
        half = Z * standard_error((good - share * sizes) / len(right))
        return max(0.0, share - half), min(1.0, share + half)
    rng, count = np.random.default_rng(0), len(sizes)
    shares = []
    for _ in range(RESAMPLED):
        drawn = rng.integers(0, count, count)
        shares.append(good[drawn].sum() / sizes[drawn].sum())
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


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


def mean_error(values: np.ndarray, group_ids: np.ndarray | None = None) -> float:
    """Return the standard error of the mean of values [N].

    Args:
        values: of the images; paired differences for a difference.
        group_ids: int64 [N]: images of one group are one draw. None: each is a draw.
    """
    return standard_error((values - values.mean()) / len(values), group_ids)


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

    Where both are equally good, each group's difference may as well have the other sign. The sum
    over many groups is taken as normal.

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
        if len(moved) > MANY_GROUPS:
            z = abs(moved.sum()) / math.sqrt(np.square(moved).sum())
            return McNemar(one, other, math.erfc(z / math.sqrt(2)), len(difference))
        signs = np.random.default_rng(0).integers(0, 2, (RESAMPLED, len(moved))) * 2 - 1
        extreme = int((np.abs(signs @ moved) >= abs(moved.sum()) - 1e-9).sum())
        return McNemar(one, other, (1 + extreme) / (1 + RESAMPLED), len(difference))
    from scipy.stats import binomtest

    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    return McNemar(one, other, p)


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
