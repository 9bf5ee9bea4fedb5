"""Loss, residual and curvature of many logistic regressions at once.

The objective is scikit-learn's: C Σᵢ wᵢ ceᵢ + ½‖W‖², the intercept not penalised. For K > 2
classes ce is the cross-entropy of the softmax over K logits; for two it is that of the sigmoid of
one logit. Shapes: B problems, k logits (1 for two classes, else K), n rows of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Elements of one block of logits: small enough to stay in the cache of a core.
BLOCK = 1 << 16


def blocks(z: Tensor) -> list[tuple[slice, slice]]:
    """Return slices (of problems, of rows) of about `BLOCK` logits each."""
    B, k, n = z.shape
    size = max(256, BLOCK // k)
    rows = [slice(first, min(first + size, n)) for first in range(0, n, size)]
    step = max(1, BLOCK // (k * min(size, n)))
    return [(slice(first, first + step), r) for first in range(0, B, step) for r in rows]


def loss_and_residual(z: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return Σᵢ wᵢ ceᵢ of each problem, and leave w (p − y) in place of the logits.

    Args:
        z: logits [B, k, n], overwritten.
        labels: int64 [n].
        weights: [B, n], zero for rows that a problem does not train on.

    Returns:
        float64 [B].
    """
    if z.shape[1] == 1:
        positive = labels.to(z.dtype)
        loss = torch.nn.functional.softplus(z[:, 0] * (1 - 2 * positive))  # [B, n]
        z.sigmoid_().sub_(positive)
    else:
        z.sub_(z.amax(1, keepdim=True))
        own = labels.expand(len(z), 1, -1)  # [B, 1, n]
        of_label = z.gather(1, own)[:, 0]
        total = z.exp_().sum(1, keepdim=True)
        loss = total[:, 0].log().sub_(of_label)
        z.div_(total)
        z.scatter_add_(1, own, z.new_full((1, 1, 1), -1).expand(own.shape))
    z.mul_(weights[:, None])
    return loss.mul_(weights).sum(1).double()


def curvature_along(z: Tensor, dz: Tensor, weights: Tensor) -> Tensor:
    """Return Σᵢ wᵢ Var_p(dz), the second derivative of the loss along a direction, float64 [B].

    Args:
        z: logits [B, k, n].
        dz: their change per unit step [B, k, n].
        weights: [B, n].
    """
    if z.shape[1] == 1:
        p = z.sigmoid()
        along = ((p - p * p) * dz * dz)[:, 0]
    else:
        p = z.softmax(1)
        first = p * dz
        along = (first * dz).sum(1) - first.sum(1).square()
    return (along * weights).sum(1).double()


def spread(z: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of p (1 − p) over rows, [B, k]: the loss's mean curvature.

    Args:
        z: logits [B, k, n]; a sample of the rows is enough.
        weights: [B, n].
    """
    p = z.sigmoid() if z.shape[1] == 1 else z.softmax(1)
    total = weights.sum(1).clamp_min(1e-30)[:, None]  # [B, 1]
    return ((p - p * p) * weights[:, None]).sum(2).div_(total).clamp_min_(1e-6)
