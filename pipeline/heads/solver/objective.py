"""The objective of logistic regression, for many problems at once.

It is scikit-learn's: C Σᵢ wᵢ ceᵢ + ½‖W‖², the intercept not penalised. For K > 2 classes ce is
the cross-entropy of the softmax over K logits; for two it is that of the sigmoid of one logit.
Shapes: B problems, k logits (1 for two classes, else K), N rows, F folds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.heads.solver.design import Design


class Objective:
    """C Σ w ce + ½‖W‖² of problems that share their rows.

    A problem's intercept is that at the mean of the rows that it trains on: rows that are held out
    may lie far away, and would tie it to a direction of the features.

    Args:
        design: the rows.
        labels: int64 [N].
        weights: [F, N]: weight of each row in each fold, 0 where it is held out.
        logits: k.
    """

    def __init__(self, design: Design, labels: Tensor, weights: Tensor, logits: int):
        self.design, self.labels, self.weights, self.logits = design, labels, weights, logits
        width = design.width if design.resident else design.d + 1
        total = weights.new_zeros(len(weights), width)
        for rows, block in design.blocks(len(weights)):
            total.addmm_(weights[:, rows], block)
        total = design.leave(total)
        self.mean = total[:, :-1] / total[:, -1:]  # [F, width − 1]

    def __call__(self, C: Tensor, fold: Tensor, U: Tensor) -> tuple[Tensor, Tensor]:
        """Return values, float64 [B], and gradients [B, L], L = k · width.

        Args:
            C: penalties, float64 [B].
            fold: int64 [B], whose weights each problem has.
            U: weights [B, L], rows of k times the design's width.
        """
        columns = self.at_centre(U, fold).view(-1, self.design.width)  # [B k, width]
        entering = self.design.enter(columns)
        loss, G = torch.zeros_like(C), torch.zeros_like(entering)
        for rows, block in self.design.blocks(len(columns)):
            z = (entering @ block.T).view(len(C), self.logits, -1)
            labels, weights = self.labels[rows], self.weights[:, rows][fold]
            loss += _loss_and_residual(z, labels, weights)
            G.addmm_(z.flatten(0, 1), block)
        G = self.design.leave(G).view(len(C), self.logits, -1)
        G[..., :-1] -= G[..., -1:] * self.mean[fold][:, None]
        G = G.view_as(U) * C.to(U.dtype)[:, None]
        shrunk = self._penalised(U)
        return C * loss + 0.5 * torch.linalg.vecdot(shrunk, U).double(), G.add_(shrunk)

    def curvature(self, C: Tensor, fold: Tensor, U: Tensor) -> Tensor:
        """Return nearly the diagonal of the Hessian in the eigenbasis, [B, L]."""
        columns = self.at_centre(U, fold).view(-1, self.design.width)
        entering, H = self.design.enter(columns), torch.zeros_like(columns)
        for rows, block in self.design.blocks(len(columns)):
            z = (entering @ block.T).view(len(C), self.logits, -1)
            p = z.sigmoid_() if self.logits == 1 else z.softmax(1)
            p = p.sub_(p * p).mul_(self.weights[:, rows][fold][:, None])
            H.addmm_(p.flatten(0, 1), self.design.squared(block))
        H = H.view(len(C), self.logits, -1)
        H[..., :-1] -= H[..., -1:] * self.mean[fold][:, None].square()
        H = H.clamp_min_(0).view_as(U) * C.to(U.dtype)[:, None]
        return H.add_(self._penalised(torch.ones_like(U))).clamp_min_(1e-12)

    def at_centre(self, U: Tensor, fold: Tensor, *, back: bool = False) -> Tensor:
        """Return weights [B, L] whose intercept is that at the design's centre; or back again."""
        moved = U.view(len(U), self.logits, -1).clone()
        way = (moved[..., :-1] * self.mean[fold][:, None]).sum(-1)
        moved[..., -1] += way if back else -way
        return moved.view_as(U)

    def _penalised(self, U: Tensor) -> Tensor:
        shrunk = U.clone()
        shrunk.view(len(U), self.logits, -1)[..., -1] = 0
        return shrunk


def _loss_and_residual(z: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return Σᵢ wᵢ ceᵢ of each problem, float64 [B]; leave w (p − y) in place of the logits.

    Args:
        z: logits [B, k, n], overwritten.
        labels: int64 [n].
        weights: [B, n], zero for rows that a problem does not train on.
    """
    if z.shape[1] == 1:
        sign = 1 - 2 * labels.to(z.dtype)
        z.mul_(sign)
        loss = torch.nn.functional.softplus(z[:, 0])  # [B, n]
        z.sigmoid_().mul_(sign)
    else:
        # p − 1 of a sure image is lost to rounding: it is minus the others' sum
        z.sub_(z.amax(1, keepdim=True))
        own = labels.expand(len(z), 1, -1)  # [B, 1, n]
        of_label = z.gather(1, own)
        rest = z.exp_().scatter_(1, own, 0).sum(1, keepdim=True)
        total = rest + of_label.exp()
        loss = torch.where(rest < 1, rest.log1p(), total.log() - of_label)[:, 0]
        z.div_(total).scatter_(1, own, -rest / total)
    z.mul_(weights[:, None])
    return loss.mul_(weights).sum(1, dtype=torch.float64)
