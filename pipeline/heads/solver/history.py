"""The memory of L-BFGS for a batch of problems, and the direction that follows from it.

The two-loop recursion (Nocedal 1980) reads each remembered vector twice, one after the other.
Here all inner products of a step come from one product with the stacked vectors; what is left of
the recursion are two triangular systems of these numbers (the compact form; Byrd, Nocedal,
Schnabel 1994), in float64.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Pairs of steps and gradient changes that are remembered, as many as scikit-learn's (scipy's).
HISTORY = 10


class History:
    """Up to `HISTORY` pairs (s, y) of B problems, with a diagonal initial matrix M.

    Args:
        metric: of M [B, L].
    """

    def __init__(self, metric: Tensor):
        B, L = metric.shape
        self.metric = metric
        self.vectors = metric.new_zeros(B, 2 * HISTORY, L)  # s in the first half, M y behind
        self.sy = np.zeros((B, HISTORY, HISTORY))  # of s before y
        self.yy = np.zeros((B, HISTORY, HISTORY))  # y' M y
        self.usable = np.zeros((B, HISTORY), bool)
        self.order: list[int] = []  # places, the oldest first

    def keep(self, mask: Tensor) -> None:
        """Drop the problems where the mask is false."""
        self.metric, self.vectors = self.metric[mask], self.vectors[mask]
        inside = mask.cpu().numpy()
        self.sy, self.yy = self.sy[inside], self.yy[inside]
        self.usable = self.usable[inside]

    def add(self, s: Tensor, y: Tensor) -> None:
        """Remember a pair [B, L]; the recursion passes over it where y's > 0 fails."""
        at = self.order.pop(0) if len(self.order) == HISTORY else len(self.order)
        self.order.append(at)
        self.vectors[:, at] = s
        torch.mul(y, self.metric, out=self.vectors[:, HISTORY + at])
        with_y = self._dots(y)
        self.sy[:, :, at] = with_y[:, :HISTORY]
        self.yy[:, :, at] = self.yy[:, at] = with_y[:, HISTORY:]
        norms = (torch.linalg.vecdot(s, s) * torch.linalg.vecdot(y, y)).sqrt_()
        self.usable[:, at] = with_y[:, at] > 1e-9 * norms.cpu().numpy()

    def _dots(self, vector: Tensor) -> np.ndarray:
        """Return the products of all vectors with one [B, L], float64 [B, 2 HISTORY]."""
        found = [mine @ its for mine, its in zip(self.vectors, vector, strict=True)]
        return torch.stack(found).double().cpu().numpy()

    def direction(self, G: Tensor) -> Tensor:
        """Return −H G for gradients [B, L]."""
        D = self.metric * G
        if not self.order:
            return D.neg_()
        o = np.array(self.order)
        good = self.usable[:, o]
        R = np.triu(self.sy[:, o[:, None], o]) * (good[:, :, None] & good[:, None])  # [B, m, m]
        m = np.arange(len(o))
        R[:, m, m] = scale = np.where(good, R[:, m, m], 1)
        with_G = self._dots(G)
        a = np.linalg.solve(R, (with_G[:, o] * good)[:, :, None])
        last = self.yy[:, o[-1], o[-1]]
        known = good[:, -1] & (last > 0)
        gamma = np.where(known, scale[:, -1] / np.where(known, last, 1), 1)[:, None]
        v = gamma * (with_G[:, HISTORY + o] - (self.yy[:, o[:, None], o] @ a)[:, :, 0])
        rest = ((scale * a[:, :, 0] - v) * good)[:, :, None]
        share = np.zeros((len(G), 1, 2 * HISTORY), np.float32)
        share[:, 0, o] = np.linalg.solve(R.swapaxes(1, 2), rest)[:, :, 0]
        share[:, 0, HISTORY + o] = -gamma * a[:, :, 0]
        D.mul_(torch.from_numpy(gamma.astype(np.float32)).to(D.device))
        D.add_(torch.bmm(torch.from_numpy(share).to(D.device), self.vectors)[:, 0])
        return D.neg_()
