"""The nearest other image of each image, by the cosine of their centred features."""

from __future__ import annotations

import numpy as np

from pipeline.heads.cross_validation.near_duplicates import SURE
from pipeline.heads.linear import unit_length

_ROWS = 1024


def nearest(
    features: np.ndarray, group_ids: np.ndarray, *, near_duplicates: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other image of each, and which images have a duplicate.

    Duplicates and images of one group are never anybody's nearest: an image would vote for itself.

    Args:
        features: [N, D] float32, raw; their mean is subtracted.
        group_ids: int64 [N] from `folds.make_group_ids`: equal files and images of one group.
        near_duplicates: whether a cosine of `near_duplicates.SURE` or more makes a duplicate too.

    Returns:
        int64 [N], −1 where there is no other image; bool [N].
    """
    x = unit_length(features - features.mean(0, dtype=np.float64).astype(np.float32))
    neighbours = np.full(len(x), -1, np.int64)
    duplicated = np.zeros(len(x), bool)
    for start in range(0, len(x), _ROWS):
        part = slice(start, start + _ROWS)
        cosines = x[part] @ x.T  # [n, N]
        same = group_ids[part, None] == group_ids[None]
        if near_duplicates:
            same |= cosines >= SURE
        duplicated[part] = same.sum(1) > 1
        cosines[same] = -np.inf
        neighbours[part] = np.where(same.all(1), -1, cosines.argmax(1))
    return neighbours, duplicated
