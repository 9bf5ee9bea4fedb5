"""Whether predictions have anything to do with the labels: a permutation test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.heads.metrics import wilson

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
