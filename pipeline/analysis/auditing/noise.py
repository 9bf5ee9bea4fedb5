"""Labels that look wrong, by confident learning, and images that are far from their class.

Labels: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset
Labels" (JAIR 70). An image is counted to the class that it is predicted to be with at least that
class's usual confidence; where this is another class than its label, the label is suspect.

How far an image is: the mean cosine distance to the `NEAREST` nearest images of the same class
(neighbours as in Ramaswamy, Rastogi and Shim 2000, "Efficient algorithms for mining outliers from
large data sets"; their mean is steadier than the k-th). Of 25 statistics this one found most of the
foreign images that were mixed into photos of insects, of flowers and into digits: docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.heads.cross_validation.candidates import Fold
from pipeline.heads.cross_validation.search import Plan, search
from pipeline.heads.linear import unit_length
from pipeline.heads.metrics import calibrate, softmax

#: The head that judges, and the penalties that it may have: wrong labels ask for strong ones, and
#: every decade costs as much as all of the folds.
HEAD, PENALTIES = "linear", (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def judge(
    features: np.ndarray, labels: np.ndarray, folds: Sequence[Fold], *, classes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a linear head says of images that it has not seen.

    The penalty is the one with the best log-loss of all held-out images together, and the same
    images give the temperature: one number each, shared by all images.

    Args:
        features: [N, D] float32.
        labels: [N] int64.
        folds: (rows to fit on, rows to judge), copies of an image in one fold.
        classes: K.
        seed: of the head.

    Returns:
        The rows that were judged, [n], and their calibrated probabilities, [n, K] float64. A row
        whose class has no other image to learn from cannot be judged.
    """
    used = np.unique(np.concatenate([rows for fold in folds for rows in fold]))
    plan = Plan(select="log-loss", grid=PENALTIES, seed=seed)
    head = search(HEAD, features, labels, classes=classes, train=used, folds=folds, plan=plan)
    assert head.held is not None
    logits, own, _ = head.held
    probabilities = softmax(logits, calibrate(logits, own, on="cv").temperature)
    return judgeable(labels, folds, probabilities)


def judgeable(
    labels: np.ndarray, folds: Sequence[Fold], probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the judged rows whose class was learned from, and their probabilities.

    Args:
        labels: int64 [N].
        folds: (rows that were fitted on, rows that were judged).
        probabilities: [n, K] of the judged rows, fold by fold.
    """
    rows = np.concatenate([held for _, held in folds])
    known = np.concatenate([np.isin(labels[held], labels[fitted]) for fitted, held in folds])
    return rows[known], probabilities[known]


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the images whose label looks wrong, the most suspicious first.

    They are those off the diagonal of the confident joint (section 3.1), ranked by
    self-confidence, the probability of the label (section 3.2): of labels that were changed in
    flower photos it had a third more among the first than the normalised margin had.

    Args:
        labels: [N] int64.
        probabilities: probabilities [N, K] of heads that have not seen the image.

    Returns:
        Their places among the N, int64 [n], and the classes that they are counted to, int64 [n].
    """
    own = probabilities[np.arange(len(labels)), labels]
    images = np.bincount(labels, minlength=probabilities.shape[1])
    usual = np.bincount(labels, own, minlength=probabilities.shape[1]) / np.maximum(images, 1)
    confident = np.where((probabilities >= usual) & (images > 0), probabilities, -1.0)
    counted = confident.argmax(1)
    doubted = np.flatnonzero((confident.max(1) >= 0) & (counted != labels))
    doubted = doubted[np.argsort(own[doubted], kind="stable")]
    return doubted, counted[doubted]


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
