"""The `linear` head as a search sees it: all penalties and folds in one call of the sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.heads.candidates import Fold
from pipeline.heads.registry import Parameters
from pipeline.heads.sweep import Sweep, sweep


def out_of_fold(
    candidates: Sequence[Parameters],
    x: np.ndarray,
    y: np.ndarray,
    folds: Sequence[Fold],
    classes: int,
    balanced: bool,
) -> Iterator[tuple[int, int, np.ndarray, bool]]:
    """Yield (candidate, fold, scores [n, K], converged), as `candidates.out_of_fold` does.

    With `balanced`, classes are weighed by their share among all training images, alike in all
    folds.
    """
    penalties = [parameters["C"] for parameters in candidates]
    if len(folds) == 1:  # a selection split: one problem for each penalty
        train, held = folds[0]
        done = _sweep(x[train], y[train], penalties, classes, None, balanced)
        for number in range(len(penalties)):
            scores = x[held] @ done.weights(number)[0].T + done.bias(number)[0]
            yield number, 0, scores, bool(done.converged[number, 0])
        return
    of = np.empty(len(x), np.int64)
    for fold, (_, held) in enumerate(folds):
        of[held] = fold
    done = _sweep(x, y, penalties, classes, of, balanced)
    for number in range(len(penalties)):
        scores = done.scores(number)
        for fold, (_, held) in enumerate(folds):
            yield number, fold, scores[held], bool(done.converged[number, fold])


def fit(
    parameters: Parameters, x: np.ndarray, y: np.ndarray, classes: int, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return W [K, D] and b [K] of one penalty on all rows."""
    done = _sweep(x, y, [parameters["C"]], classes, None, balanced)
    return done.weights(0)[0], done.bias(0)[0]


def _sweep(
    x: np.ndarray,
    y: np.ndarray,
    penalties: Sequence[float],
    classes: int,
    folds: np.ndarray | None,
    balanced: bool,
) -> Sweep:
    weight = None
    if balanced:
        counts = np.bincount(y, minlength=classes)
        weight = len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1))[y]
    return sweep(x, y, penalties=penalties, n_classes=classes, folds=folds, sample_weight=weight)
