"""`Design`: features as the solver sees them, centred and rotated into their eigenbasis.

A rotation V of the features leaves the objective as it is (‖W V‖ = ‖W‖), and in the basis of the
eigenvectors of XᵀX the Hessian of logistic regression is close to diagonal, which gives L-BFGS a
good start. With fewer rows than features the basis has N directions only, and that is exact: the
optimum lies in the span of the rows (the representer theorem; Schölkopf, Herbrich, Smola 2001).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

#: Rows that the basis is taken from: it is a preconditioner, and a sample gives nearly the same.
BASIS_ROWS = 20_000
#: Above so many directions no basis is computed: that costs their cube.
WIDEST = 6000
#: Numbers of the features that are read at once.
CHUNK = 1 << 23


class Rows(Protocol):
    """Features [N, D] that are read by slices: an array, in memory or mapped, or `Normalized`."""

    shape: tuple[int, ...]

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return some rows, [n, D]."""


class Design:
    """N rows [V'(x − centre), 1] of `width` numbers, in memory or read anew in each pass.

    Args:
        features: [N, D] float.
        keep: hold the rotated rows in memory. Otherwise weights are rotated in place of rows.
        device: where the solver computes.
        dtype: of its arithmetic.
    """

    def __init__(
        self,
        features: Rows,
        *,
        keep: bool = True,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.features, self.device, self.dtype = features, torch.device(device), dtype
        self.n, self.d = features.shape
        self._kept: Tensor | None = None
        total = torch.zeros(self.d, device=self.device, dtype=torch.float64)
        for _, x in self._read():
            total += x.sum(0, dtype=torch.float64)
        self.centre = (total / self.n).to(dtype)
        self.basis = self._basis()  # [D, rank]; None is the identity
        self.width = (self.d if self.basis is None else self.basis.shape[1]) + 1
        if keep:
            kept = torch.ones(self.n, self.width, device=self.device, dtype=dtype)
            for rows, x in self._read():
                x -= self.centre
                kept[rows, :-1] = x if self.basis is None else x @ self.basis
            self._kept = kept

    def _read(self, step: int = 1) -> Iterator[tuple[slice, Tensor]]:
        size = max(1, CHUNK // self.d) * step
        for first in range(0, self.n, size):
            rows = slice(first, min(first + size, self.n), step)
            x = np.array(self.features[rows])  # a copy, which the solver may change
            yield rows, torch.from_numpy(x).to(self.device, self.dtype)

    def _basis(self) -> Tensor | None:
        if min(self.n, self.d) > WIDEST:
            return None
        if self.n < self.d:  # the eigenvectors of X Xᵀ, each turned into one of Xᵀ X
            X = torch.cat([x for _, x in self._read()]).double() - self.centre
            values, vectors = torch.linalg.eigh(X @ X.T)
            kept = values > values[-1].clamp_min(1e-30) * 1e-10
            basis: Tensor = (X.T @ (vectors[:, kept] / values[kept].sqrt())).to(self.dtype)
            return basis.contiguous()
        gram = torch.zeros(self.d, self.d, device=self.device, dtype=self.dtype)
        for _, x in self._read(step=-(-self.n // BASIS_ROWS)):
            x -= self.centre
            gram.addmm_(x.T, x)
        basis = torch.linalg.eigh(gram / gram.diagonal().mean().clamp_min(1e-30))[1]
        return basis.contiguous()

    @property
    def resident(self) -> bool:
        """Tell whether the rotated rows are in memory."""
        return self._kept is not None

    def blocks(self, columns: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, block [n, ·]): blocks are multiplied by what `enter` returns.

        Args:
            columns: of logits that are made of a row; they bound the rows of a block.
        """
        size = max(64, (CHUNK >> 2) // columns)
        if self._kept is None:
            for rows, x in self._read():
                wide = torch.nn.functional.pad(x - self.centre, (0, 1), value=1.0)
                for first in range(0, len(wide), size):
                    part = wide[first : first + size]
                    yield slice(rows.start + first, rows.start + first + len(part)), part
            return
        for first in range(0, self.n, size):
            rows = slice(first, min(first + size, self.n))
            yield rows, self._kept[rows]

    def enter(self, U: Tensor) -> Tensor:
        """Return weights [m, width] as those that multiply the rows of a block."""
        if self.resident or self.basis is None:
            return U
        return torch.cat([U[:, :-1] @ self.basis.T, U[:, -1:]], 1)

    def leave(self, G: Tensor) -> Tensor:
        """Return a gradient [m, ·] with respect to what `enter` returned as one of [m, width]."""
        if self.resident or self.basis is None:
            return G
        return torch.cat([G[:, :-1] @ self.basis, G[:, -1:]], 1)

    def squared(self, block: Tensor) -> Tensor:
        """Return the squares of a block's rows in the eigenbasis, [n, width]."""
        if not self.resident and self.basis is not None:
            block = torch.cat([block[:, :-1] @ self.basis, block[:, -1:]], 1)
        return block.square()

    def linear(self, U: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return W [k, D] and b [k] for rows of `features`, of weights [k, width]."""
        W = U[:, :-1] if self.basis is None else U[:, :-1] @ self.basis.T
        return W.cpu().numpy(), (U[:, -1] - W @ self.centre).cpu().numpy()

    def coordinates(self, W: np.ndarray, b: np.ndarray) -> Tensor:
        """Return the weights [1, L] of class scores W x + b, K rows, as `Solved.linear` gave."""
        if len(W) == 2:  # [−w/2, w/2] is one logit
            W, b = 2 * W[1:], 2 * b[1:]
        weight = torch.from_numpy(W).to(self.device, self.dtype)
        bias = torch.from_numpy(b).to(self.device, self.dtype) + weight @ self.centre
        rotated = weight if self.basis is None else weight @ self.basis
        return torch.cat([rotated, bias[:, None]], 1).flatten()[None]
