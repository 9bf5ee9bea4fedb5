"""L-BFGS for a batch of logistic regressions that share their rows.

The logits of all problems come from one matrix product, their gradients from another. A line
search needs none: along a direction the logits are z + t dz. Problems leave the batch when they
are done. (L-BFGS: Nocedal 1980, Liu and Nocedal 1989, with the metric as the initial matrix.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pipeline.heads.solver import objective, passes
from pipeline.heads.solver.history import History
from pipeline.heads.solver.passes import Base, Data

#: Halvings after which a direction is given up.
TRIALS = 12
#: Iterations without a smaller gradient after which float32 is taken to be exhausted.
PATIENCE = 20
#: The same for rough passes, after which an exact one follows.
ROUGH_PATIENCE = 3
#: Rounds of rough passes at most.
ROUNDS = 6
#: How much the largest component of a whitened gradient exceeds the root mean square, at least.
EVEN = 2.5
#: The same before it is known, of any gradient.
FLAT = 3.0


@dataclass
class Batch:
    """Problems under way; the first dimension of everything is B."""

    place: Tensor  # int64, where the result goes
    C: Tensor  # float64
    fold: Tensor  # int64
    U: Tensor  # weights [B, k, width]
    z: Tensor  # logits [B, k, N]
    value: Tensor  # objective, float64
    G: Tensor  # gradient [B, k, width]
    ratio: Tensor  # of the gradient's largest component to its root mean square
    best: Tensor  # smallest gradient so far, root mean square
    lowest: Tensor  # objective when there was last some progress
    since: Tensor  # iterations since then
    history: History
    base: Base | None

    def keep(self, mask: Tensor) -> None:
        """Drop the problems where the mask is false."""
        for f in fields(self):
            old = getattr(self, f.name)
            if isinstance(old, Tensor):
                setattr(self, f.name, old[mask])
        self.history.keep(mask)
        if self.base is not None:
            self.base = self.base.of(mask)


@dataclass(frozen=True)
class Solution:
    """Weights [B, k, width], objective [B], iterations [B] and what converged [B].

    `start` is the exact pass at the weights that the problems started from.
    """

    U: Tensor
    value: Tensor
    iterations: Tensor
    converged: Tensor
    start: passes.Passed

    @property
    def still(self) -> passes.Passed | None:
        """Return the exact pass at the solution, where no problem had to move."""
        return None if self.iterations.any() else self.start


def solve(
    data: Data,
    C: Tensor,
    fold: Tensor,
    start: Tensor,
    *,
    whiten: bool,
    tol: float,
    max_iter: int,
    known: passes.Passed | None = None,
) -> Solution:
    """Minimise B objectives together.

    Args:
        data: the rows, labels and weights.
        C: penalties, float64 [B].
        fold: int64 [B], which rows of `data.weights` each problem trains on.
        start: weights [B, k, width].
        whiten: start the recursion from the inverse of the objective's mean curvature in the
            eigenbasis; otherwise from the identity, as scikit-learn does.
        tol: whitened, a problem is done when the root mean square of the mean objective's
            gradient is at most tol / 2.5, for its components are even; otherwise when its largest
            component in the standardised features is at most tol.
        max_iter: iterations at most.
        known: an exact pass at the start, where there was one.
    """
    known = known or passes.exact(data, fold, start)
    out = Solution(
        start.clone(),
        torch.zeros_like(C),
        torch.zeros_like(fold),
        torch.zeros_like(fold, dtype=torch.bool),
        known,
    )
    todo = torch.arange(len(C), device=C.device)
    for left in range(ROUNDS if data.design.rough else 1, 0, -1):
        U = out.U[todo]
        found = passes.exact(data, fold[todo], U) if out.iterations.any() else known
        batch = _begin(data, C[todo], fold[todo], U, found, whiten, place=todo)
        if left == 1:  # what rough passes did not solve
            batch.base = None
        _minimise(data, batch, out, whiten, tol, max_iter)
        todo = todo[~out.converged[todo] & (out.iterations[todo] < max_iter)]
        if not len(todo):
            break
    return out


def _minimise(
    data: Data, batch: Batch, out: Solution, whiten: bool, tol: float, max_iter: int
) -> None:
    """Go on until no problem gets further; rough passes alone do not show that one converged."""
    rough = batch.base is not None
    patience = ROUGH_PATIENCE if rough else PATIENCE
    iteration = 0
    while True:
        scale = batch.C * data.total[batch.fold]
        rms = _dot(batch.G, batch.G).double().div_(data.logits * data.design.d).sqrt_().div_(scale)
        good = rms <= tol / EVEN if whiten else _largest(data, batch, rms, scale, tol) <= tol
        progress = (rms < batch.best) | (batch.value < (1 - 1e-5) * batch.lowest)
        batch.since = torch.where(progress, 0, batch.since + 1)
        batch.best = torch.minimum(batch.best, rms)
        batch.lowest = torch.where(progress, batch.value, batch.lowest)
        spent = out.iterations[batch.place] >= max_iter
        done = good | (batch.since > patience) | spent
        if done.any():
            where = batch.place[done]
            out.U[where] = batch.U[done]
            out.value[where] = batch.value[done]
            out.converged[where] = good[done] if not (rough and iteration) else False
            if done.all():
                return
            batch.keep(~done)
        _advance(data, batch)
        out.iterations[batch.place] += 1
        iteration += 1


def _largest(data: Data, batch: Batch, rms: Tensor, scale: Tensor, tol: float) -> Tensor:
    """Return the largest component of G / scale in the standardised features [B].

    It is several times the root mean square, and not computed where that is too large, judged by
    their ratio when it was last computed.
    """
    largest = torch.full_like(rms, torch.inf)
    near = rms * batch.ratio <= tol
    if near.any():
        G = batch.G[near]
        plain = data.design.unrotated(G).abs().flatten(1).amax(1)
        intercept = G[..., data.design.rank].abs().amax(1)
        largest[near] = torch.maximum(plain, intercept).double() / scale[near]
        batch.ratio[near] = (0.8 * largest[near] / rms[near]).clamp(min=FLAT)
    return largest


def _begin(
    data: Data, C: Tensor, fold: Tensor, start: Tensor, found: passes.Passed, whiten: bool, *,
    place: Tensor,
) -> Batch:  # fmt: skip
    metric = torch.ones_like(start)
    if whiten:
        stride = max(1, data.design.n // 2048)
        weights = data.weights[:, ::stride]
        mean = objective.spread(found.z[:, :, ::stride], weights[fold])
        bend = mean[:, :, None] * data.power[fold][:, None]  # [B, k, width]
        metric = 1 / (data.penalised + C.to(bend.dtype)[:, None, None] * bend).clamp_min_(1e-20)
        metric[..., data.design.rank + 1 :] = 0
    value, G = _objective(data, C, start, found)
    huge = torch.full_like(C, torch.inf)
    base = Base(found.residual, found.gradient) if data.design.rough else None
    return Batch(
        place=place, C=C, fold=fold, U=start, z=found.z,
        value=value, G=G, ratio=torch.full_like(C, FLAT), best=huge, lowest=huge,
        since=torch.zeros_like(fold), history=History(metric.flatten(1)), base=base,
    )  # fmt: skip


def _objective(data: Data, C: Tensor, U: Tensor, found: passes.Passed) -> tuple[Tensor, Tensor]:
    """Return objective [B] and gradient [B, k, width] at weights U."""
    shrunk = U * data.penalised
    G = torch.addcmul(shrunk, found.gradient, C.to(U.dtype)[:, None, None])
    return C * found.loss + 0.5 * _dot(shrunk, U).double(), G


def _advance(data: Data, batch: Batch) -> None:
    """Take one step along the L-BFGS direction."""
    D, slope = _downhill(batch)
    rough = batch.base is not None
    if rough:
        D = D.to(torch.bfloat16).to(D.dtype)  # what the rough pass multiplies
    t = torch.ones_like(slope)
    dz = None
    if not batch.history.order:  # no scale is known yet: the minimum of the quadratic model
        dz = passes.products(data, D, rough=rough)
        bend = batch.C * passes.curvature(data, batch.fold, batch.z, dz)
        bend += _dot(D * data.penalised, D)
        t = (-slope / bend.clamp_min(1e-30)).clamp(max=1e6)
    found = passes.along(
        data, batch.fold, batch.z, t, batch.base, D=D if dz is None else None, dz=dz
    )
    step = _times(t, D)
    value, G = _objective(data, batch.C, batch.U + step, found)
    z = found.z
    for _ in range(TRIALS):
        # a rise within the rounding of float32 sums is no rise
        bad = value > batch.value + 1e-4 * t * slope + 1e-6 * batch.value.abs()
        bad |= ~value.isfinite()
        if not bad.any():
            break
        fit = -slope[bad] * t[bad] / (2 * (value[bad] - batch.value[bad] - slope[bad] * t[bad]))
        t[bad] *= fit.nan_to_num(nan=0.1).clamp(0.1, 0.5)  # the minimum of a parabola
        step[bad] = _times(t[bad], D[bad])
        base = None if batch.base is None else batch.base.of(bad)
        again = passes.along(data, batch.fold[bad], batch.z[bad], t[bad], base, dz=found.dz[bad])
        value[bad], G[bad] = _objective(data, batch.C[bad], batch.U[bad] + step[bad], again)
        z[bad] = again.z
    batch.history.add(step.flatten(1), (G - batch.G).flatten(1))
    batch.U, batch.z, batch.value, batch.G = batch.U + step, z, value, G


def _downhill(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the direction [B, k, width] and its slope, float64 [B]."""
    D = batch.history.direction(batch.G.flatten(1)).view_as(batch.G)
    slope = _dot(batch.G, D).double()
    uphill = slope >= 0
    if uphill.any():  # rounding has spoilt the history: steepest descent
        D[uphill] = -batch.history.metric.view_as(D)[uphill] * batch.G[uphill]
        slope = _dot(batch.G, D).double()
    return D, slope


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return product


def _times(t: Tensor, D: Tensor) -> Tensor:
    return D * t.to(D.dtype)[:, None, None]
