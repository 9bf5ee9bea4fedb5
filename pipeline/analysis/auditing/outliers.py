"""Images that are far from the others of their class.

How far: the mean cosine distance to the `NEAREST` nearest images of the same class (neighbours as
in Ramaswamy, Rastogi and Shim 2000, "Efficient algorithms for mining outliers from large data
sets"; their mean is steadier than the k-th). Of 25 statistics this one found most of the foreign
images that were mixed into photos of insects, of flowers and into digits: docs/audit.md.
"""

from __future__ import annotations

import numpy as np

from pipeline.heads.linear import unit_length

#: Neighbours: nearly so many alike that do not belong still stand out.
NEAREST = 10
#: Modified z-score from which an image is reported; Iglewicz and Hoaglin 1993, "How to Detect and
#: Handle Outliers", section 3.
FAR = 3.5
#: Images of a class among which neighbours are looked for; of more a sample, so that a large table
#: takes seconds.
REFERENCES = 5000
_ROWS = 2048


def outliers(
    features: np.ndarray, labels: np.ndarray, same: np.ndarray
) -> list[tuple[int, float, float]]:
    """Return the images that do not belong, the farthest first.

    Args:
        features: [N, D] float32.
        labels: [N] int64; images without a label, −1, are compared with each other.
        same: [N] int64, equal for copies of one picture, which are no neighbours.

    Returns:
        Row, modified z-score of its distance among all images, and its distance over the median.
    """
    far = distances(features, labels, same)
    median = float(np.median(far)) if len(far) else 0.0
    spread = 1.4826 * float(np.median(np.abs(far - median))) if len(far) else 0.0
    if not spread:
        return []
    scores = (far - median) / spread
    order = np.argsort(-scores, kind="stable")
    rows = order[scores[order] > FAR]
    return [(int(row), float(scores[row]), float(far[row] / median)) for row in rows]


def distances(features: np.ndarray, labels: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Return each image's mean distance to the nearest others of its class, [N] float64.

    An image that is alone in its class is compared with all images.

    Args:
        features: [N, D] float32.
        labels: [N] int64.
        same: [N] int64, equal for copies of one picture.
    """
    out = np.zeros(len(features))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        others = own if len(np.unique(same[own])) > 1 else np.arange(len(features))
        others = others[np.sort(np.unique(same[others], return_index=True)[1])]  # each picture once
        if len(others) > REFERENCES:
            others = np.sort(np.random.default_rng(0).choice(others, REFERENCES, replace=False))
        count = min(NEAREST, len(others) - 1)
        if count < 1:
            continue
        right = unit_length(features[others])
        for start in range(0, len(own), _ROWS):
            part = own[start : start + _ROWS]
            cosines = unit_length(features[part]) @ right.T  # [n, m]
            cosines[same[part][:, None] == same[others]] = -np.inf
            nearest = np.partition(cosines, -count, axis=1)[:, -count:]
            out[part] = 1 - nearest.mean(1, dtype=float)
    return out
