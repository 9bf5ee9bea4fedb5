"""The solver as a search sees it: every penalty of every fold, then all training rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pipeline.heads.cross_validation.candidates import Fold, Scores, checked
from pipeline.heads.estimators.normalize import Normalized
from pipeline.heads.registry import Parameters
from pipeline.heads.solver.design import Design
from pipeline.heads.solver.path import Solved, solve_path

#: Bytes of rotated rows that are held; a larger table is read in place, once for each step.
MEMORY = 1 << 31
#: Numbers from which a GPU is worth its start.
WORTH_A_GPU = 1 << 27


class LinearSearch:
    """The problems of one search, over one `Design`: the features are rotated once.

    Args:
        x: features [N, D], normalised as they are read; all rows that the folds name.
        y: labels [N].
        folds: (rows to fit on, rows to score). Several part the rows: each row is missing in
            one of them, and mostly scored there; a single one is a split that chooses, and its
            scored rows are kept out of the design.
        classes: K.
        balanced: weigh classes by the inverse of their share among a problem's training rows.
        start: W [K, D] and b [K] of normalised features, to start from.
        progress: called with (penalties solved, penalties in all) of each path.
    """

    def __init__(
        self,
        x: Normalized,
        y: np.ndarray,
        folds: Sequence[Fold],
        classes: int,
        *,
        balanced: bool,
        start: tuple[np.ndarray, np.ndarray] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ):
        self.x, self.y, self.folds, self.classes = x, y, folds, classes
        self.balanced, self.progress = balanced, progress
        self.train = folds[0][0] if len(folds) == 1 else np.arange(len(x))
        self.fold: np.ndarray | None = None
        if len(folds) > 1:
            self.fold = np.empty(len(x), np.int64)
            for number, (fitted, _) in enumerate(folds):
                self.fold[np.setdiff1d(np.arange(len(x)), fitted)] = number
        part = x if len(self.train) == len(x) else x.take(self.train)
        device, keep = placement(*part.shape)
        self.design = Design(part, device=device, keep=keep)
        self._solved = {} if start is None else {0.0: start}  # penalty → W and b, over the folds

    def out_of_fold(self, candidates: Sequence[Parameters]) -> Scores:
        """Yield (candidate, fold, scores [n, K], converged), as `candidates.out_of_fold` does."""
        penalties = [parameters["C"] for parameters in candidates]
        for number, solved in enumerate(self._solve(penalties, self.fold)):
            if self.fold is None:
                W, b = solved.linear(0)
                _, held = self.folds[0]
                yield number, 0, checked(self.x[held] @ W.T + b), bool(solved.converged[0])
                continue
            scores = solved.held_out(self.fold)
            for fold, (_, held) in enumerate(self.folds):
                yield number, fold, checked(scores[held]), bool(solved.converged[fold])

    def fit(self, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
        """Return W [K, D] and b [K] of one penalty on all training rows."""
        (solved,) = self._solve([parameters["C"]], None)
        return solved.linear(0)

    def _solve(self, penalties: Sequence[float], fold: np.ndarray | None) -> list[Solved]:
        """Solve penalties in their order, from the nearest one that was solved before."""
        start = None
        if self._solved:
            nearest = min(self._solved, key=lambda C: abs(np.log(max(C, 1e-30) / penalties[0])))
            start = self.design.coordinates(*self._solved[nearest])
        y, done = self.y[self.train], []
        path = solve_path(
            self.design, y, penalties, n_classes=self.classes,
            weights=_weights(y, fold, balanced=self.balanced), start=start,
        )  # fmt: skip
        for solved in path:
            folds = [solved.linear(f) for f in range(len(solved.U))]
            self._solved[solved.C] = tuple(np.mean(part, 0) for part in zip(*folds, strict=True))
            done.append(solved)
            if self.progress:
                self.progress(len(done), len(penalties))
        return done


def _weights(y: np.ndarray, fold: np.ndarray | None, *, balanced: bool) -> np.ndarray:
    """Return the weight of each row in each fold's problem, float32 [F, N]; 0 where held out."""
    inside = np.ones((1, len(y)), bool)
    if fold is not None:
        inside = fold != np.arange(fold.max() + 1)[:, None]
    if not balanced:
        return inside.astype(np.float32)
    weights = np.zeros(inside.shape, np.float32)
    for own, rows in zip(weights, inside, strict=True):
        counts = np.bincount(y[rows])
        own[rows] = (rows.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)))[y[rows]]
    return weights


def placement(n: int, d: int) -> tuple[str, bool]:
    """Return where [n, d] features are solved, and whether their rotated rows are held there."""
    size = 4 * n * (min(n, d) + 1)
    if n * d >= WORTH_A_GPU and torch.cuda.is_available():
        return "cuda", size <= torch.cuda.mem_get_info()[0] // 2
    return "cpu", size <= MEMORY
