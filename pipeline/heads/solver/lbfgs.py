"""L-BFGS for a batch of problems that share their rows (Nocedal 1980; Liu and Nocedal 1989).

The textbook's algorithm (Nocedal and Wright 2006, algorithms 7.4 and 3.1), each step for all
problems together: their logits come from one matrix product and their gradients from another.
The first inverse Hessian is that of the Hessian's diagonal. Solved problems leave the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.heads.solver.objective import Objective

#: Pairs of steps and gradient changes that are remembered, as many as scipy's.
HISTORY = 10
#: Halvings after which a direction is given up.
TRIALS = 12
#: Iterations without a smaller decrement or value after which the arithmetic is exhausted.
PATIENCE = 20
#: A rise within the rounding of sums is no rise.
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-12}


class Solution(NamedTuple):
    """Weights [B, L], objective [B] float64, iterations [B] int64 and what converged [B]."""

    U: Tensor
    value: Tensor
    iterations: Tensor
    converged: Tensor


def minimise(
    objective: Objective, C: Tensor, fold: Tensor, U: Tensor, *, tol: float, max_iter: int
) -> Solution:
    """Minimise B objectives together.

    A problem is done when the Newton decrement, ½ gᵀ H⁻¹ g, is at most `tol` of the objective:
    what a quadratic model says is still to be gained (Boyd and Vandenberghe 2004, section 9.5).
    The measure is the same at every penalty.

    Args:
        objective: of all problems.
        C: penalties, float64 [B].
        fold: int64 [B].
        U: weights to start from [B, L].
        tol: share of the objective that may be missing.
        max_iter: iterations at most; a problem that needs more has not converged, nor has one
            that gets no further in its arithmetic, unless less than its rounding is missing.
    """
    out = Solution(
        U.clone(), torch.zeros_like(C), torch.zeros_like(fold), torch.zeros_like(fold).bool()
    )
    place = torch.arange(len(C), device=C.device)
    first = 1 / objective.curvature(C, fold, U)
    value, G = objective(C, fold, U)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # (s, y, 1 / s'y), the oldest first
    best, lowest, since = (torch.full_like(C, torch.inf) for _ in range(3))
    while True:
        step = -_times_inverse_hessian(G, first, pairs)
        slope = torch.linalg.vecdot(G, step).double()
        uphill = slope > 0
        if uphill.any():  # rounding has spoilt the history
            step[uphill] = -first[uphill] * G[uphill]
            slope = torch.linalg.vecdot(G, step).double()
        solved = (-0.5 * slope <= tol * value) & value.isfinite()
        further = (-slope < best) | (value < lowest * (1 - ROUNDING[U.dtype]))
        since = torch.where(further, 0, since + 1)
        best, lowest = torch.minimum(best, -slope), torch.where(further, value, lowest)
        done = solved | (since > PATIENCE) | (out.iterations[place] >= max_iter)
        if done.any():
            at = place[done]
            exact = solved | (-0.5 * slope <= ROUNDING[U.dtype] * value)
            out.U[at], out.value[at], out.converged[at] = U[done], value[done], exact[done]
            if done.all():
                return out
            on = ~done
            place, C, fold, U, G, value = (t[on] for t in (place, C, fold, U, G, value))
            first, step, slope = first[on], step[on], slope[on]
            best, lowest, since = best[on], lowest[on], since[on]
            pairs = [(s[on], y[on], r[on]) for s, y, r in pairs]
        new, new_value, new_G = _search(objective, C, fold, U, value, G, step, slope)
        s, y = new - U, new_G - G
        product = torch.linalg.vecdot(s, y)
        noise = 1e-9 * (torch.linalg.vecdot(s, s) * torch.linalg.vecdot(y, y)).sqrt()
        pairs = [*pairs[1 - HISTORY :], (s, y, torch.where(product > noise, 1 / product, 0))]
        U, value, G = new, new_value, new_G
        out.iterations[place] += 1


def _times_inverse_hessian(
    G: Tensor, first: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    """Return H⁻¹ g by the two-loop recursion, [B, L]; a pair with a factor of 0 is passed over."""
    q, shares = G.clone(), []
    for s, y, factor in reversed(pairs):
        share = factor * torch.linalg.vecdot(s, q)
        shares.append(share)
        q.addcmul_(share[:, None], y, value=-1)
    q.mul_(first)
    if pairs:
        _, y, factor = pairs[-1]
        size = factor * torch.linalg.vecdot(y, first * y)
        q.mul_(torch.where(size > 0, 1 / size, 1)[:, None])
    for (s, y, factor), share in zip(pairs, reversed(shares), strict=True):
        q.addcmul_((share - factor * torch.linalg.vecdot(y, q))[:, None], s)
    return q


def _search(
    objective: Objective, C: Tensor, fold: Tensor, U: Tensor, value: Tensor, G: Tensor,
    step: Tensor, slope: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return where a step leads, with value and gradient there.

    It is halved, or cut where a parabola has its minimum, until the objective falls as it should.
    """
    t = torch.ones_like(slope)
    new = U + step
    new_value, new_G = objective(C, fold, new)
    for _ in range(TRIALS):
        allowed = value + 1e-4 * t * slope + ROUNDING[U.dtype] * value.abs()
        bad = ~(new_value <= allowed)  # not a number is bad, too
        if not bad.any():
            break
        rise = new_value[bad] - value[bad] - slope[bad] * t[bad]
        t[bad] *= (-slope[bad] * t[bad] / (2 * rise)).nan_to_num(nan=0.1).clamp(0.1, 0.5)
        new[bad] = U[bad] + t[bad].to(U.dtype)[:, None] * step[bad]
        new_value[bad], new_G[bad] = objective(C[bad], fold[bad], new[bad])
    return new, new_value, new_G
