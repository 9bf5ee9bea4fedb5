"""Labels that look wrong, by confident learning.

Source: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset
Labels" (JAIR 70). An image is counted to the class that it is predicted to be with at least that
class's usual confidence; where this is another class than its label, the label is suspect.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.heads.cross_validation.candidates import Fold
from pipeline.heads.cross_validation.search import Plan, search
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
    rows = np.concatenate([held for _, held in folds])
    used = np.unique(np.concatenate([rows, *(fitted for fitted, _ in folds)]))
    plan = Plan(select="log-loss", grid=PENALTIES, seed=seed)
    head = search(HEAD, features, labels, classes=classes, train=used, folds=folds, plan=plan)
    assert head.held is not None
    logits, own = head.held
    probabilities = softmax(logits, calibrate(logits, own, on="cv").temperature)
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
