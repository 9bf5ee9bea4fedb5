"""The solver's sweep as a search sees it: every penalty and fold in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.heads.cross_validation.candidates import Fold, Scores, checked
from pipeline.heads.estimators.normalize import Normalized
from pipeline.heads.registry import Parameters
from pipeline.heads.solver.design import Design
from pipeline.heads.solver.sweep import Sweep, sweep

#: Scores that are computed together.
SCORES = 1 << 25


class LinearSearch:
    """The problems of one search, over one `Design`: the features are rotated once.

    Args:
        x: features [N, D], normalised as they are read; all rows that the folds name.
        y: labels [N].
        folds: (rows to fit on, rows to score). Several part the rows: each row is missing in
            one of them, and mostly scored there; a single one is a split that chooses, and its
            scored rows are kept out of the design.
        classes: K.
        balanced: weigh classes by their share among all training rows, alike in all folds.
        progress: called with (problems solved, problems in all) of each sweep.
    """

    def __init__(
        self,
        x: Normalized,
        y: np.ndarray,
        folds: Sequence[Fold],
        classes: int,
        balanced: bool,
        progress: Callable[[int, int], None] | None = None,
    ):
        self.progress = progress
        self.x, self.y, self.folds, self.classes = x, y, folds, classes
        self.train = folds[0][0] if len(folds) == 1 else np.arange(len(x))
        self.fold: np.ndarray | None = None
        if len(folds) > 1:
            self.fold = np.empty(len(x), np.int64)
            for number, (fitted, _) in enumerate(folds):
                self.fold[np.setdiff1d(np.arange(len(x)), fitted)] = number
        self.weight: np.ndarray | None = None
        if balanced:
            counts = np.bincount(y[self.train], minlength=classes)
            each = len(self.train) / (np.count_nonzero(counts) * np.maximum(counts, 1))
            self.weight = each[y[self.train]]
        part = x if len(self.train) == len(x) else x.take(self.train)
        self.design = Design(part, groups=self.fold)

    def out_of_fold(self, candidates: Sequence[Parameters]) -> Scores:
        """Yield (candidate, fold, scores [n, K], converged), as `candidates.out_of_fold` does."""
        done = self._sweep([parameters["C"] for parameters in candidates], self.fold)
        size = max(1, SCORES // (len(self.x) * self.classes))
        for first in range(0, len(candidates), size):
            some = slice(first, first + size)
            for number, scores in enumerate(self._scores(done, some), first):
                for fold, (_, held) in enumerate(self.folds):
                    own = scores if len(self.folds) == 1 else scores[held]
                    yield number, fold, checked(own), bool(done.converged[number, fold])

    def _scores(self, done: Sweep, some: slice) -> np.ndarray:
        """Return the scores of rows that a problem did not see, [P, n, K]."""
        if len(self.folds) > 1:
            return done.scores(some)
        W, b = done.weights(some)[:, 0], done.bias(some)[:, 0]
        _, held = self.folds[0]
        return np.asarray(self.x[held] @ W.swapaxes(1, 2) + b[:, None])

    def fit(self, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
        """Return W [K, D] and b [K] of one penalty on all training rows."""
        done = self._sweep([parameters["C"]], None)
        return done.weights(0)[0], done.bias(0)[0]

    def _sweep(self, penalties: Sequence[float], fold: np.ndarray | None) -> Sweep:
        return sweep(
            self.design,
            self.y[self.train],
            penalties=penalties,
            n_classes=self.classes,
            folds=fold,
            sample_weight=self.weight,
            progress=self.progress,
        )
