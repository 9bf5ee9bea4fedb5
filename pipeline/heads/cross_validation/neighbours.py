"""The nearest other image of each image, by the cosine of their centred features."""

from __future__ import annotations

import numpy as np

from pipeline.heads.cross_validation.near_duplicates import SURE
from pipeline.heads.linear import unit as of_length_one

_ROWS = 1024


def nearest(
    features: np.ndarray, unit: np.ndarray, *, copies: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other image of each, and which images have a copy.

    Copies and images of one unit are never anybody's nearest: an image would vote for itself.

    Args:
        features: [N, D] float32, raw; their mean is subtracted.
        unit: int64 [N] from `folds.units`: equal files and images of one group.
        copies: whether a cosine of `leakage.SURE` or more makes a copy.

    Returns:
        int64 [N], −1 where there is no other image; bool [N].
    """
    x = of_length_one(features - features.mean(0, dtype=np.float64).astype(np.float32))
    found = np.full(len(x), -1, np.int64)
    copied = np.zeros(len(x), bool)
    for start in range(0, len(x), _ROWS):
        part = slice(start, start + _ROWS)
        cosines = x[part] @ x.T  # [n, N]
        own = unit[part, None] == unit[None]
        same = own | (cosines >= SURE) if copies else own
        copied[part] = same.sum(1) > 1
        cosines[same] = -np.inf
        best = cosines.argmax(1)
        found[part] = np.where(same.all(1), -1, best)
    return found, copied
