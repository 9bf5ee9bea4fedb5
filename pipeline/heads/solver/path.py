"""The regularisation path: every penalty on every fold, each started from those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.heads.solver.design import Design
from pipeline.heads.solver.lbfgs import minimise
from pipeline.heads.solver.objective import Objective

#: Share of the objective that may be missing at the optimum, by the Newton decrement. Measured
#: against scikit-learn run to convergence, the true share is up to 60 times as much, docs/heads.md.
TOL = 3e-6


@dataclass(frozen=True, eq=False)
class Solved:
    """The problems of one penalty, a fold each. Equal only when identical.

    Attributes:
        C: the penalty.
        U: weights [F, L] in the design's coordinates.
        objective: C Σ w ce + ½‖W‖² of each fold's training rows, float64 [F].
        iterations: int64 [F].
        converged: bool [F].
    """

    C: float
    U: Tensor
    objective: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray
    design: Design

    def linear(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Return W [K, D] and b [K] of a fold's problem, for rows of the design's features."""
        W, b = self.design.linear(self.U[fold].view(-1, self.design.width))
        if len(W) > 1:
            return W, b
        return np.concatenate([-W / 2, W / 2]), np.concatenate([-b / 2, b / 2])

    def held_out(self, fold: np.ndarray) -> np.ndarray:
        """Return each row's class scores by the problem of its fold, [N, K].

        Args:
            fold: int64 [N], the fold whose problem did not train on a row.
        """
        F, width = len(self.U), self.design.width
        k = self.U.shape[1] // width
        entering = self.design.enter(self.U.view(-1, width))  # [F k, ·]
        out = np.empty((self.design.n, k), np.float32)
        for rows, block in self.design.blocks(F * k):
            z = (block @ entering.T).view(len(block), F, k)
            own = torch.from_numpy(fold[rows]).to(z.device)
            out[rows] = z[torch.arange(len(z), device=z.device), own].cpu().numpy()
        return out if k > 1 else np.concatenate([-out / 2, out / 2], 1)


@torch.inference_mode()
def solve_path(
    design: Design,
    labels: np.ndarray,
    penalties: Sequence[float],
    *,
    n_classes: int,
    weights: np.ndarray,
    start: Tensor | None = None,
    tol: float = TOL,
    max_iter: int = 1000,
) -> Iterator[Solved]:
    """Solve every penalty on every fold, and yield each penalty's as it is solved.

    A problem starts from the parabola through the last three solutions over log C, as far as there
    are so many: a sixth fewer passes than from the line through two.

    Args:
        design: the rows.
        labels: [N] int, 0 to K − 1.
        penalties: C, above zero, ascending.
        n_classes: K, two at least.
        weights: [F, N], zero or above: weight of each row in each fold's problem.
        start: weights [F, L] or [1, L] for the first penalty; None for zeros.
        tol: see `lbfgs.minimise`.
        max_iter: iterations at most for each problem.

    Raises:
        PipelineError: a fold has no row to train on.
    """
    empty = np.flatnonzero(weights.sum(1) <= 0)
    if len(empty):
        raise PipelineError(
            f"The linear head cannot be fitted: fold {empty[0]} leaves no row to train on. Use "
            "folds that each hold a part of the rows."
        )
    device, dtype = design.device, design.dtype
    k = 1 if n_classes == 2 else n_classes
    objective = Objective(
        design,
        torch.from_numpy(labels.astype(np.int64)).to(device),
        torch.from_numpy(weights).to(device, dtype),
        k,
    )
    fold = torch.arange(len(weights), device=device)
    U = torch.zeros(len(fold), k * design.width, device=device, dtype=dtype)
    if start is not None:
        U = objective.at_centre(start.expand_as(U), fold, back=True)
    last: list[tuple[float, Tensor]] = []  # log C and solution, three at most
    for penalty in penalties:
        guess = _through(last, np.log(penalty)) if last else U
        C = torch.full((len(fold),), penalty, dtype=torch.float64, device=device)
        U, *found = minimise(objective, C, fold, guess, tol=tol, max_iter=max_iter)
        last = [*last[-2:], (np.log(penalty), U)]
        value, iterations, converged = (t.cpu().numpy() for t in found)
        at_centre = objective.at_centre(U, fold)
        yield Solved(penalty, at_centre, value, iterations, converged, design)


def _through(points: Sequence[tuple[float, Tensor]], x: float) -> Tensor:
    """Return the value at x of the polynomial through some points (Lagrange's form)."""
    total = torch.zeros_like(points[0][1])
    for own, U in points:
        total += U * float(
            np.prod([(x - other) / (own - other) for other, _ in points if other != own])
        )
    return total
