"""L-BFGS for a batch of logistic regressions that share their rows.

The logits of all problems come from one matrix product, their gradients from another. A line
search needs none: along a direction the logits are z + t dz. Problems leave the batch when they
are done. (L-BFGS: Nocedal 1980, Liu and Nocedal 1989, the two-loop recursion with the metric as
the initial matrix.)
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.heads import objective
from pipeline.heads.crew import Crew
from pipeline.heads.design import Design

#: Pairs of steps and gradient changes that are remembered, as many as scikit-learn's (scipy's).
HISTORY = 10
#: Halvings after which a direction is given up.
TRIALS = 12
#: Iterations without a smaller gradient after which float32 is taken to be exhausted.
PATIENCE = 20
#: The same for bfloat16.
ROUGH_PATIENCE = 2
#: What the gradient may exceed its limit by in bfloat16, whitened.
ROUGH_LIMIT = 3
#: How much the largest component of a whitened gradient exceeds the root mean square, at least.
EVEN = 2.5
#: Columns that are multiplied together in bfloat16.
PANEL, NARROW = 128, 32
#: Bytes of one chunk of logits.
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Data:
    """What all problems share. Equal only when identical.

    Attributes:
        design: the rows.
        labels: int64 [N].
        weights: [F, N] float32: weight of each row in each fold, 0 where it is held out.
        power: [F, width] weighted sums of the squared columns: the curvature's scale.
        logits: k, 1 for two classes.
        total: [F] sums of the weights, float64.
        penalised: [width], 1, and 0 for the intercept.
        crew: threads.
        rough: multiply in bfloat16.
    """

    design: Design
    labels: Tensor
    weights: Tensor
    power: Tensor
    logits: int
    total: Tensor
    penalised: Tensor
    crew: Crew
    rough: bool = False

    def spans(self, columns: int) -> list[slice]:
        """Return blocks of rows for so many columns of logits, one at least for each thread."""
        size = max(256, CHUNK_BYTES // (4 * columns))
        size = 1 << (size.bit_length() - 1)  # few shapes: see `_panels`
        return self.design.spans(min(size, -(-self.design.n // self.crew.size)))


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
    metric: Tensor  # inverse of the initial matrix [B, k, width]
    best: Tensor  # smallest gradient so far, root mean square
    lowest: Tensor  # objective when there was last some progress
    since: Tensor  # iterations since then
    steps: list[Tensor] = field(default_factory=list)
    changes: list[Tensor] = field(default_factory=list)
    rho: list[Tensor] = field(default_factory=list)

    def keep(self, mask: Tensor) -> Batch:
        """Return the problems where the mask is true."""
        chosen: dict[str, Any] = {}
        for f in fields(self):
            old = getattr(self, f.name)
            chosen[f.name] = [x[mask] for x in old] if isinstance(old, list) else old[mask]
        return Batch(**chosen)


@dataclass(frozen=True)
class Solution:
    """Weights [B, k, width], objective [B], iterations [B] and what converged [B]."""

    U: Tensor
    value: Tensor
    iterations: Tensor
    converged: Tensor


def solve(
    data: Data,
    C: Tensor,
    fold: Tensor,
    start: Tensor,
    *,
    whiten: bool,
    tol: float,
    max_iter: int,
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
    """
    rough = torch.zeros_like(fold)
    if data.design.rough:
        half = replace(data, rough=True)
        first = _minimise(half, C, fold, start, whiten, tol, max_iter, ROUGH_PATIENCE)
        start, rough = first.U, first.iterations
    last = _minimise(data, C, fold, start, whiten, tol, max_iter, PATIENCE)
    return replace(last, iterations=rough + last.iterations)


def _minimise(
    data: Data,
    C: Tensor,
    fold: Tensor,
    start: Tensor,
    whiten: bool,
    tol: float,
    max_iter: int,
    patience: int,
) -> Solution:
    limit = tol / EVEN * (ROUGH_LIMIT if data.rough else 1)
    batch = _begin(data, C, fold, start, whiten)
    out = Solution(
        start.clone(),
        torch.zeros_like(C),
        torch.zeros_like(fold),
        torch.zeros_like(fold, dtype=torch.bool),
    )
    size = data.logits * data.design.d
    for iteration in range(max_iter + 1):
        scale = batch.C * data.total[batch.fold]
        rms = _dot(batch.G, batch.G).double().div_(size).sqrt_().div_(scale)
        good = rms <= limit if whiten else _largest(data, batch.G, rms, scale, tol) <= tol
        progress = (rms < batch.best) | (batch.value < (1 - 1e-5) * batch.lowest)
        batch.since = torch.where(progress, 0, batch.since + 1)
        batch.best = torch.minimum(batch.best, rms)
        batch.lowest = torch.where(progress, batch.value, batch.lowest)
        done = good | (batch.since > patience) | (iteration == max_iter)
        if done.any():
            where = batch.place[done]
            out.U[where] = batch.U[done]
            out.value[where] = batch.value[done]
            out.iterations[where] = iteration
            out.converged[where] = good[done]
            if done.all():
                break
            batch = batch.keep(~done)
        _advance(data, batch)
    return out


def _largest(data: Data, G: Tensor, rms: Tensor, scale: Tensor, tol: float) -> Tensor:
    """Return the largest component of G / scale in the standardised features [B].

    It is several times the root mean square, and not computed where that is too large.
    """
    largest = torch.full_like(rms, torch.inf)
    near = rms <= tol / 3
    if near.any():
        plain = data.design.unrotated(G[near]).abs().flatten(1).amax(1)
        intercept = G[near][..., data.design.rank].abs().amax(1)
        largest[near] = torch.maximum(plain, intercept).double() / scale[near]
    return largest


def _begin(data: Data, C: Tensor, fold: Tensor, start: Tensor, whiten: bool) -> Batch:
    z = _products(data, start)
    stride = max(1, data.design.n // 2048)
    weights = data.weights[:, ::stride]
    mean = objective.spread(z[:, :, ::stride], weights[fold])
    metric = torch.ones_like(start)
    if whiten:
        bend = mean[:, :, None] * data.power[fold][:, None]  # [B, k, width]
        metric = 1 / (data.penalised + C.to(bend.dtype)[:, None, None] * bend).clamp_min_(1e-20)
        metric[..., data.design.rank + 1 :] = 0
    value, G = _evaluate(data, C, fold, start, z, None, None)
    huge = torch.full_like(C, torch.inf)
    place = torch.arange(len(C), device=C.device)
    return Batch(
        place, C, fold, start.clone(), z, value, G, metric, huge, huge, torch.zeros_like(fold)
    )


def _advance(data: Data, batch: Batch) -> None:
    """Take one step along the L-BFGS direction."""
    D = _direction(batch)
    slope = _dot(batch.G, D).double()
    uphill = slope >= 0
    if uphill.any():  # rounding has spoilt the history: steepest descent
        D[uphill] = -(batch.metric * batch.G)[uphill]
        slope = _dot(batch.G, D).double()
    dz = _products(data, D)
    t = torch.ones_like(slope)
    if not batch.steps:  # the recursion knows no scale yet: the minimum of the quadratic model
        bend = _curvature(data, batch, D, dz)
        t = (-slope / bend.clamp_min(1e-30)).clamp(max=1e6)
    value, G = _evaluate(data, batch.C, batch.fold, batch.U + _times(t, D), batch.z, dz, t)
    for _ in range(TRIALS):
        # a rise within the rounding of float32 sums is no rise
        bad = value > batch.value + 1e-4 * t * slope + 1e-6 * batch.value.abs()
        bad |= ~value.isfinite()
        if not bad.any():
            break
        fit = -slope[bad] * t[bad] / (2 * (value[bad] - batch.value[bad] - slope[bad] * t[bad]))
        t[bad] *= fit.nan_to_num(nan=0.1).clamp(0.1, 0.5)  # the minimum of a parabola
        value[bad], G[bad] = _evaluate(
            data,
            batch.C[bad],
            batch.fold[bad],
            batch.U[bad] + _times(t[bad], D[bad]),
            batch.z[bad],
            dz[bad],
            t[bad],
        )
    step = _times(t, D)
    change = G - batch.G
    along = _dot(step, change)
    usable = along > 1e-9 * (_dot(step, step) * _dot(change, change)).sqrt()
    batch.steps.append(step)
    batch.changes.append(change)
    batch.rho.append(torch.where(usable, 1 / along, 0))
    if len(batch.steps) > HISTORY:
        del batch.steps[0], batch.changes[0], batch.rho[0]
    batch.U = batch.U + step
    batch.z.addcmul_(dz, t.to(dz.dtype)[:, None, None])
    batch.value, batch.G = value, G


def _direction(batch: Batch) -> Tensor:
    q = batch.G.clone()
    taken = []
    for s, y, rho in zip(batch.steps[::-1], batch.changes[::-1], batch.rho[::-1], strict=True):
        a = rho * _dot(s, q)
        q.addcmul_(y, -a[:, None, None])
        taken.append(a)
    if batch.steps:
        y, rho = batch.changes[-1], batch.rho[-1]
        gamma = 1 / (rho * _dot(y, y * batch.metric))
        q.mul_(torch.where((rho > 0) & gamma.isfinite(), gamma, 1)[:, None, None])
    q.mul_(batch.metric)
    for s, y, rho, a in zip(batch.steps, batch.changes, batch.rho, taken[::-1], strict=True):
        q.addcmul_(s, (a - rho * _dot(y, q))[:, None, None])
    return q.neg_()


def _products(data: Data, U: Tensor) -> Tensor:
    """Return the logits of weights [B, k, width], as [B, k, N]."""
    entering = data.design.enter(U).flatten(0, 1)  # [B k, ·]
    columns, widths = len(entering), _panels(len(entering), data.rough)
    if data.rough:
        entering = _padded(entering, sum(widths)).to(torch.bfloat16)
    out = U.new_empty(columns, data.design.n)

    def fill(rows: slice) -> None:
        Z, first = data.design.block(rows, rough=data.rough), 0
        for panel in torch.split(entering, widths):
            own = out[first : first + len(panel), rows]
            # in this order the matrix units are twice as fast for a few columns
            own.copy_((Z @ panel.T).T[: len(own)])
            first += len(panel)

    for _ in data.crew.map(fill, data.spans(columns)):
        pass
    return out.view(*U.shape[:2], -1)


def _panels(columns: int, rough: bool) -> list[int]:
    """Return the widths in which columns are multiplied, the last ones padded in bfloat16.

    oneDNN compiles a bfloat16 kernel for every new shape, in up to 50 ms: so there are but two.
    """
    if not rough:
        return [columns]
    whole, rest = divmod(columns, PANEL)
    narrow = -(-rest // NARROW)
    if narrow > 2:
        whole, narrow = whole + 1, 0
    return [PANEL] * whole + [NARROW] * narrow


def _padded(columns: Tensor, count: int) -> Tensor:
    return torch.nn.functional.pad(columns, (0, 0, 0, count - len(columns)))


def _curvature(data: Data, batch: Batch, D: Tensor, dz: Tensor) -> Tensor:
    """Return the second derivative of the objective along a direction, [B]."""

    def part(rows: slice) -> Tensor:
        out = torch.zeros_like(batch.C)
        for b in objective.blocks(dz[:, :, rows]):
            weights = data.weights[batch.fold[b], rows]
            out[b] = objective.curvature_along(batch.z[b, :, rows], dz[b, :, rows], weights)
        return out

    bend = torch.zeros_like(batch.C)
    for its in data.crew.map(part, data.spans(dz.shape[0] * dz.shape[1])):
        bend += its
    return batch.C * bend + _dot(D * data.penalised, D)


def _evaluate(
    data: Data, C: Tensor, fold: Tensor, U: Tensor, z: Tensor, dz: Tensor | None, t: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return objective [B] and gradient [B, k, width] at logits z + t dz, those of U."""
    B, k, _ = z.shape
    widths = _panels(B * k, data.rough)

    def part(rows: slice) -> tuple[Tensor, Tensor]:
        Z = data.design.block(rows, rough=data.rough)
        flat = Z.new_zeros(sum(widths), len(Z))
        residual = flat[: B * k].view(B, k, -1)
        loss = torch.zeros_like(C)
        for b in objective.blocks(residual):
            if dz is None or t is None:
                logits = z[b, :, rows].clone()
            else:
                step = t[b].to(z.dtype)[:, None, None]
                logits = torch.addcmul(z[b, :, rows], dz[b, :, rows], step)
            weights = data.weights[fold[b], rows]
            loss[b] = objective.loss_and_residual(logits, data.labels[rows], weights)
            residual[b] = logits
        return loss, torch.cat([panel @ Z for panel in torch.split(flat, widths)])[: B * k].float()

    loss, G = torch.zeros_like(C), torch.zeros_like(data.design.enter(U)).flatten(0, 1)
    for its_loss, its_G in data.crew.map(part, data.spans(B * k)):
        loss += its_loss
        G += its_G
    G = data.design.leave(G).view(B, k, -1).mul_(C.to(z.dtype)[:, None, None])
    shrunk = U * data.penalised
    return C * loss + 0.5 * _dot(shrunk, U).double(), G.add_(shrunk)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return product


def _times(t: Tensor, D: Tensor) -> Tensor:
    return D * t.to(D.dtype)[:, None, None]
