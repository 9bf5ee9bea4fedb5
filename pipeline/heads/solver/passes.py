"""Passes over the rows: logits, losses and gradients of many problems at once.

Where the machine multiplies bfloat16 matrices much faster than float32 ones, only differences
are multiplied in bfloat16: the change of the logits along a step, and the change of the residuals
since the last exact pass. Their error is a fraction of the change, and the next exact pass
removes it (iterative refinement; Wilkinson 1963).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.heads.solver import objective
from pipeline.heads.solver.design import Design
from pipeline.heads.solver.thread_pool import ThreadPool

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
        threads: that share the rows.
    """

    design: Design
    labels: Tensor
    weights: Tensor
    power: Tensor
    logits: int
    total: Tensor
    penalised: Tensor
    threads: ThreadPool

    def spans(self, columns: int) -> list[slice]:
        """Return blocks of rows for so many columns of logits, one at least for each thread."""
        size = max(256, CHUNK_BYTES // (4 * columns))
        size = 1 << (size.bit_length() - 1)  # few shapes: see `_panels`
        return self.design.spans(min(size, -(-self.design.n // self.threads.size)))


@dataclass(frozen=True)
class Base:
    """An exact pass that rough ones start from; the first dimension is B.

    Attributes:
        residual: w (p − y) [B, k, N].
        gradient: of the loss [B, k, width].
    """

    residual: Tensor
    gradient: Tensor

    def of(self, which: Tensor) -> Base:
        """Return those of some problems."""
        return Base(self.residual[which], self.gradient[which])


@dataclass(frozen=True)
class Passed:
    """What one pass found: loss float64 [B], its gradient [B, k, width], logits [B, k, N]."""

    loss: Tensor
    gradient: Tensor
    z: Tensor
    dz: Tensor
    residual: Tensor


def exact(data: Data, fold: Tensor, U: Tensor) -> Passed:
    """Return loss, gradient, logits and residuals of weights [B, k, width], in float32."""
    return _passed(data, fold, U, None, None, None, None)


def along(
    data: Data, fold: Tensor, z: Tensor, t: Tensor, base: Base | None, *,
    D: Tensor | None = None, dz: Tensor | None = None,
) -> Passed:  # fmt: skip
    """Return loss and gradient at logits z + t dz.

    Args:
        data: the rows.
        fold: int64 [B].
        z: logits [B, k, N].
        t: steps [B].
        base: for a rough pass, the exact one before.
        D: direction [B, k, width], from which follows dz, unless it is given;
        dz: the change of the logits along it [B, k, N].
    """
    return _passed(data, fold, D, z, dz, t, base)


def _passed(
    data: Data, fold: Tensor, D: Tensor | None, z: Tensor | None, dz: Tensor | None,
    t: Tensor | None, base: Base | None,
) -> Passed:  # fmt: skip
    rough = base is not None
    if dz is None:
        assert D is not None
        dz = products(data, D, rough=rough)
    new = dz if z is None else torch.empty_like(dz)
    B, k, n = dz.shape
    widths = _panels(B * k) if rough else [B * k]
    flat = dz.new_zeros(sum(widths), n, dtype=torch.bfloat16 if rough else dz.dtype)
    residual = flat[: B * k].view(B, k, n)

    def elements(item: tuple[slice, slice]) -> tuple[slice, Tensor]:
        b, rows = item
        if z is not None and t is not None:
            step = t[b].to(dz.dtype)[:, None, None]
            torch.addcmul(z[b, :, rows], dz[b, :, rows], step, out=new[b, :, rows])
        r = new[b, :, rows].clone()
        loss = objective.loss_and_residual(r, data.labels[rows], data.weights[fold[b], rows])
        residual[b, :, rows] = r if base is None else r.sub_(base.residual[b, :, rows])
        return b, loss

    loss = dz.new_zeros(B, dtype=torch.float64)
    for b, its_loss in data.threads.map(elements, objective.blocks(dz)):
        loss[b] += its_loss
    G = _gradient(data, flat, widths, rough)[: B * k].view(B, k, -1)
    return Passed(loss, G if base is None else G.add_(base.gradient), new, dz, residual)


def _gradient(data: Data, residual: Tensor, widths: list[int], rough: bool) -> Tensor:
    def part(rows: slice) -> Tensor:
        Z = data.design.block(rows, rough=rough)
        parts = [panel @ Z for panel in torch.split(residual[:, rows], widths)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    G = data.power.new_zeros(len(residual), data.design.entered(rough))
    for its in data.threads.map(part, data.spans(len(residual))):
        G += its
    return data.design.leave(G, rough=rough)


def _entering(design: Design, U: Tensor, rough: bool) -> Tensor:
    columns = design.enter(U, rough=rough).flatten(0, 1)  # [B k, ·]
    if not rough:
        return columns
    spare = sum(_panels(len(columns))) - len(columns)
    return torch.nn.functional.pad(columns, (0, 0, 0, spare)).to(torch.bfloat16)


def _multiply(Z: Tensor, entering: Tensor, out: Tensor, widths: list[int]) -> None:
    first = 0
    for panel in torch.split(entering, widths):
        own = out[first : first + len(panel)]
        # in this order the matrix units are twice as fast for a few columns
        own.copy_((Z @ panel.T).T[: len(own)])
        first += len(panel)


def _panels(columns: int) -> list[int]:
    """Return the widths in which columns are multiplied in bfloat16, the last ones padded.

    oneDNN compiles a bfloat16 kernel for every new shape, in up to 50 ms: so there are but two.
    """
    whole, rest = divmod(columns, PANEL)
    narrow = -(-rest // NARROW)
    if narrow > 2:
        whole, narrow = whole + 1, 0
    return [PANEL] * whole + [NARROW] * narrow


def products(data: Data, D: Tensor, *, rough: bool) -> Tensor:
    """Return the change of the logits along directions [B, k, width], as [B, k, N]."""
    entering = _entering(data.design, D, rough)
    columns = D.shape[0] * D.shape[1]
    widths = _panels(columns) if rough else [columns]
    out = D.new_empty(columns, data.design.n)

    def fill(rows: slice) -> None:
        _multiply(data.design.block(rows, rough=rough), entering, out[:, rows], widths)

    for _ in data.threads.map(fill, data.spans(columns)):
        pass
    return out.view(*D.shape[:2], -1)


def curvature(data: Data, fold: Tensor, z: Tensor, dz: Tensor) -> Tensor:
    """Return the second derivative of the loss along a direction, float64 [B]."""

    def part(item: tuple[slice, slice]) -> tuple[slice, Tensor]:
        b, rows = item
        weights = data.weights[fold[b], rows]
        return b, objective.curvature_along(z[b, :, rows], dz[b, :, rows], weights)

    bend = z.new_zeros(len(fold), dtype=torch.float64)
    for b, its in data.threads.map(part, objective.blocks(dz)):
        bend[b] += its
    return bend
