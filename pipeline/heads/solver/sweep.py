"""Multinomial logistic regression for all penalties and folds as one batched problem.

`sweep` solves scikit-learn's objective, C Σᵢ wᵢ ceᵢ + ½‖W‖² with a free intercept, for every
penalty C and every fold. What makes it fast: one matrix product for all problems (`lbfgs`), the
eigenbasis of the features as preconditioner (`design`), and warm starts: penalties a decade apart
are solved first, those between start from a cubic in log C through their neighbours, where they
are almost solved already (path following; Hastie et al. 2004 for such paths).

Beyond a certain penalty nothing converges, scikit-learn neither: its rule stops where the largest
component of the mean objective's gradient is below its `tol`. There the result depends on the
way, so `sweep` takes scikit-learn's: the plain metric, from one penalty to the next.
`docs/heads.md` has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.heads.solver.design import Design, design_of
from pipeline.heads.solver.passes import Data
from pipeline.heads.solver.regularization_path import RegularizationPath
from pipeline.heads.solver.schedule import guide, turning_point
from pipeline.heads.solver.thread_pool import ThreadPool, thread_pool

#: Bytes for the problems that are under way together.
MEMORY = 1 << 30


@dataclass(frozen=True, eq=False)
class Sweep:
    """The solutions of P penalties × F folds. Equal only when identical.

    Attributes:
        penalties: [P] as they were given.
        objective: C Σ w ce + ½‖W‖² on each fold's training rows, float64 [P, F].
        iterations: int64 [P, F].
        converged: bool [P, F]: whether the stopping rule was met.
        turn: the penalty beyond which scikit-learn's way is taken.
        folds: int64 [N], or None when each problem trained on all rows (F = 1).
    """

    penalties: np.ndarray
    objective: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray
    turn: float
    folds: np.ndarray | None
    design: Design
    rotated: Tensor  # [P, F, k, width]

    def weights(self, penalty: int | slice = slice(None)) -> np.ndarray:
        """Return W of standardised features, float32 [P, F, K, D]; without P for one penalty."""
        W = self.design.unrotated(self.rotated[penalty]).cpu().numpy()
        return _both_sides(W)

    def bias(self, penalty: int | slice = slice(None)) -> np.ndarray:
        """Return the intercepts, float32 [P, F, K]; without P for one penalty."""
        U = self.rotated[penalty]
        centre = torch.from_numpy(self.design.centre.astype(np.float32)).to(U.device)
        bias = U[..., self.design.rank] - self.design.unrotated(U) @ centre
        return _both_sides(bias.cpu().numpy()[..., None])[..., 0]

    def scores(self, penalty: int | slice = slice(None)) -> np.ndarray:
        """Return each row's logits from the problem that did not see it, float32 [P, N, K].

        Without folds they are the logits of the rows trained on. For one penalty: [N, K].
        """
        design, U = self.design, self.rotated[penalty]
        U = U.reshape(-1, *U.shape[-3:])  # [P, F, k, width]
        P, F, k, _ = U.shape
        entering = design.enter(U).transpose(0, 1).flatten(1, 2)  # [F, P k, ·]
        out = U.new_empty(design.n, P * k)
        fold = np.zeros(design.n, np.int64) if self.folds is None else self.folds
        for rows in design.spans(1 << 14):
            Z = design.block(rows)
            for f in range(F):
                held = torch.from_numpy(np.flatnonzero(fold[rows] == f)).to(U.device)
                out[rows.start + held] = Z[held] @ entering[f].T
        logits = out.view(-1, P, k).transpose(0, 1).cpu().numpy()  # [P, N, k]
        both = _both_sides(logits.swapaxes(1, 2)).swapaxes(1, 2)
        return both[0] if isinstance(penalty, int) else both


def _both_sides(values: np.ndarray) -> np.ndarray:
    """Return [..., K, D]: the one row of two classes becomes [−w/2, w/2]."""
    if values.shape[-2] > 1:
        return values
    return np.concatenate([-values / 2, values / 2], axis=-2)


def sweep(
    features: np.ndarray | Design,
    labels: np.ndarray,
    *,
    penalties: Sequence[float],
    n_classes: int,
    folds: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    tol: float = 5e-5,
    max_iter: int = 1000,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Fit every penalty on every fold.

    Args:
        features: [N, D] float32, in memory or mapped; or their `Design`, to be used again.
        labels: [N] int, 0 to K − 1.
        penalties: C, above zero, in any order.
        n_classes: K, two at least.
        folds: [N] int, 0 to F − 1: problem f trains on the rows of the other folds. None trains
            one problem on all rows.
        sample_weight: [N], zero or above; None for ones.
        tol: a problem is done when the largest component of the gradient of the mean objective
            (the objective / C Σ w) is at most this; scikit-learn's default is 1e-4. In the
            whitened metric, whose gradients are even, their root mean square is held to tol / 2.5.
        max_iter: iterations at most for each problem.
        device: where to compute.
        progress: called with (problems solved, problems in all).

    Returns:
        Solutions in the order of `penalties`. The same inputs give the same bits on one machine.

    Raises:
        PipelineError: what was given cannot be fitted.
    """
    given = np.asarray(penalties, np.float64)
    labels, folds = np.asarray(labels), None if folds is None else np.asarray(folds, np.int64)
    design = design_of(features, groups=folds, device=device)
    weights = _weights(design.n, labels, folds, sample_weight, n_classes, given)
    order = np.unique(given)
    with torch.inference_mode(), thread_pool(design.device, design.n * design.width) as threads:
        data = _data(design, labels, weights, n_classes, threads)
        turn = turning_point(data, tol)
        added = guide(order, turn)
        path = RegularizationPath(
            np.array([*added, *order]), turn, data, tol=tol, max_iter=max_iter, memory=MEMORY,
            progress=progress,
        )  # fmt: skip
        path.follow()
    where = len(added) + np.searchsorted(order, given)
    return Sweep(
        given, path.value[where], path.iterations[where], path.converged[where], turn, folds,
        design, path.U[where],
    )  # fmt: skip


def _weights(
    n: int,
    labels: np.ndarray,
    folds: np.ndarray | None,
    sample_weight: np.ndarray | None,
    n_classes: int,
    penalties: np.ndarray,
) -> np.ndarray:
    """Return the weight of each row in each fold, float32 [F, N], or say all that is wrong."""
    faults = []
    if n_classes < 2:
        faults.append(f"there must be two classes at least, not {n_classes}")
    if len(labels) != n or (folds is not None and len(folds) != n):
        faults.append(f"{n} feature rows need as many labels and fold numbers")
    elif (
        not np.issubdtype(labels.dtype, np.integer)
        or not ((labels >= 0) & (labels < max(n_classes, 1))).all()
    ):
        faults.append(f"labels must be whole numbers from 0 to {n_classes - 1}")
    if not len(penalties) or not (np.isfinite(penalties) & (penalties > 0)).all():
        faults.append("every penalty C must be a finite number above zero")
    each = np.ones(n) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if each.shape != (n,) or not np.isfinite(each).all() or (each < 0).any():
        faults.append("sample weights must be one finite number a row, none below zero")
    if faults:
        raise PipelineError("The linear head cannot be fitted: " + "; ".join(faults) + ".")
    outside = None if folds is None else folds != np.arange(folds.max() + 1)[:, None]
    weights = each[None] if outside is None else each * outside
    empty = np.flatnonzero(weights.sum(1) <= 0)
    if len(empty):
        raise PipelineError(
            f"The linear head cannot be fitted: fold {empty[0]} leaves no row to train on. Use "
            "folds that each hold a part of the rows."
        )
    return weights.astype(np.float32)


def _data(
    design: Design, labels: np.ndarray, weights: np.ndarray, n_classes: int, threads: ThreadPool
) -> Data:
    W = torch.from_numpy(weights).to(design.device)
    penalised = torch.ones(design.width, device=design.device)
    penalised[design.rank :] = 0
    y = torch.from_numpy(labels.astype(np.int64)).to(design.device)
    k = 1 if n_classes == 2 else n_classes
    return Data(design, y, W, design.power(W), k, W.double().sum(1), penalised, threads)
