"""`Design`: features as the solver sees them, centred and rotated into their eigenbasis.

A rotation V of the features leaves the objective as it is (‖W V‖ = ‖W‖), and in the basis of
the eigenvectors of XᵀX the Hessian of logistic regression is close to diagonal. With fewer rows
than features the basis has only N directions, and that is exact: the optimum lies in the span of
the rows (the representer theorem; Schölkopf, Herbrich, Smola 2001).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.heads.estimators.normalize import Normalized
from pipeline.heads.solver.thread_pool import ThreadPool, thread_pool

#: Up to this many rows the N×N Gram matrix is decomposed, in double precision.
DUAL_ROWS = 2048
#: From so many numbers on a bfloat16 copy pays.
LARGE = 1 << 20
#: Beyond this many features no basis is computed: the decomposition costs O(D³).
WIDEST_BASIS = 6000


class Design:
    """N rows of D features, read by chunks, in the coordinates in which problems are solved.

    A row is [V'(x − centre), 1, 0 …]: `rank` rotated features, a constant for the intercept, and
    zeros up to `width`, a multiple of 16. Labels play no part.

    Args:
        features: [N, D] float, in memory, mapped or normalised as they are read; never copied
            whole but rotated.
        groups: [N] int, the folds: one fold of far larger numbers than the others has little
            say in centre and basis, so that it does not spoil the other folds' problems.
        memory: bytes for rotated copies, in float32 and, where that pays, in bfloat16. Without
            room for the one in float32, exact passes read the features anew.
        device: where the solver computes.

    Raises:
        PipelineError: no rows, no features, or features that are not finite.
    """

    def __init__(
        self,
        features: np.ndarray | Normalized,
        *,
        groups: np.ndarray | None = None,
        memory: int = 2 << 30,
        device: str | torch.device = "cpu",
    ) -> None:
        if features.ndim != 2 or 0 in features.shape:
            raise PipelineError(
                f"The features have the shape {features.shape}; needed are rows and columns."
            )
        self.features, self.device = features, torch.device(device)
        self.n, self.d = features.shape
        self.chunk = max(256, (1 << 23) // max(self.d, 16))
        self._copy: Tensor | None = None
        self._half: Tensor | None = None
        groups = np.zeros(self.n, np.int64) if groups is None else np.asarray(groups)
        with thread_pool(self.device, self.n * self.d) as threads:
            self._prepare(groups, memory, threads)

    def _prepare(self, groups: np.ndarray, memory: int, threads: ThreadPool) -> None:
        self.centre = self._centre(groups)
        self._shift = self._tensor(self.centre)
        self.basis = self._basis(groups, threads)  # [D, rank]; None is the identity
        self.rank = self.d if self.basis is None else self.basis.shape[1]
        self.width = padded(self.rank)
        self._copy, self._half = None, None
        half = 0
        if fast_half(self.device) and LARGE <= self.size <= memory // 2:
            half = 2 * self.size
        if 4 * self.size + half <= memory:
            self._copy = self._rotated(threads, torch.float32)
            self._half = self._copy.to(torch.bfloat16) if half else None
        elif half:
            self._half = self._rotated(threads, torch.bfloat16)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self.device)

    def _raw(self) -> Iterator[tuple[slice, np.ndarray]]:
        for rows in self.spans(self.chunk):
            yield rows, np.asarray(self.features[rows], np.float32)

    def _centred(self, rows: slice) -> Tensor:
        values = self._tensor(np.asarray(self.features[rows]))
        return values - self._shift

    def _centre(self, groups: np.ndarray) -> np.ndarray:
        names, counts = np.unique(groups, return_counts=True)
        sums = np.zeros((len(names), self.d))
        bad: list[int] = []
        for rows, values in self._raw():
            if not np.isfinite(values.sum(dtype=np.float64)):
                bad += (rows.start + np.flatnonzero(~np.isfinite(values).all(1))).tolist()
            of = np.searchsorted(names, groups[rows])
            for group in np.unique(of):
                sums[group] += values[of == group].sum(0, dtype=np.float64)
        if bad:
            listed = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
            raise PipelineError(
                f"{len(bad)} of {self.n} feature rows hold NaN or infinite numbers (rows {listed}):"
                " the table is damaged; extract it anew."
            )
        means = sums / counts[:, None]
        middle = np.median(means, 0) if len(names) > 2 else counts @ means / self.n
        return np.asarray(middle)

    def _basis(self, groups: np.ndarray, threads: ThreadPool) -> Tensor | None:
        if self.n < self.d and self.n <= DUAL_ROWS:
            X = self._centred(slice(None)).double()
            values, vectors = torch.linalg.eigh(X @ X.T)
            keep = values > values[-1].clamp_min(1e-30) * 1e-10
            if not keep.any():
                return torch.zeros(self.d, 1, device=self.device)
            basis: Tensor = (X.T @ (vectors[:, keep] / values[keep].sqrt())).float()
            return basis.contiguous()
        if self.d > WIDEST_BASIS:
            return None
        names = np.unique(groups)
        grams = torch.zeros(len(names), self.d, self.d, device=self.device)

        def products(rows: slice) -> list[tuple[int, Tensor]]:
            x, of = self._centred(rows), np.searchsorted(names, groups[rows])
            if len(names) == 1:
                return [(0, x.T @ x)]
            parts = ((g, x[torch.from_numpy(of == g).to(self.device)]) for g in np.unique(of))
            return [(int(g), part.T @ part) for g, part in parts]

        for found in threads.map(products, self.spans(self._share(threads))):
            for group, gram in found:
                grams[group] += gram
        spread = grams.diagonal(dim1=1, dim2=2).sum(1)
        loud = (spread / (3 * spread.median()).clamp_min(1e-30)).clamp_min(1)
        gram = (grams / loud[:, None, None]).sum(0)
        del grams
        basis = torch.linalg.eigh(gram / gram.diagonal().mean().clamp_min(1e-30))[1]
        return basis.contiguous()

    def _share(self, threads: ThreadPool) -> int:
        return int(min(self.chunk, -(-self.n // threads.size)))

    def _rotated(self, threads: ThreadPool, dtype: torch.dtype) -> Tensor:
        copy = torch.zeros(self.n, self.width, device=self.device, dtype=dtype)

        def fill(rows: slice) -> None:
            x = self._centred(rows)
            copy[rows, : self.rank] = x if self.basis is None else x @ self.basis

        for _ in threads.map(fill, self.spans(self._share(threads))):
            pass
        copy[:, self.rank] = 1
        return copy

    @property
    def rough(self) -> bool:
        """Whether there is a bfloat16 copy, for products that are allowed 1% of error."""
        return self._half is not None

    @property
    def size(self) -> int:
        """Count the numbers that a pass reads."""
        return int(self.n * self.width)

    def spans(self, size: int) -> list[slice]:
        """Return slices of at most `size` rows, to be read by `block`."""
        if self._copy is None:
            size = min(size, self.chunk)
        return [slice(i, min(i + size, self.n)) for i in range(0, self.n, size)]

    def block(self, rows: slice, *, rough: bool = False) -> Tensor:
        """Return rows [n, ·], to be multiplied by what `enter` returns."""
        copy = self._half if rough else self._copy
        if copy is not None:
            return copy[rows]
        wide = torch.nn.functional.pad(self._centred(rows), (0, padded(self.d) - self.d))
        wide[:, self.d] = 1
        return wide

    def entered(self, rough: bool = False) -> int:
        """Return the width of what `enter` returns."""
        return self.width if self._is_rotated(rough) else padded(self.d)

    def enter(self, U: Tensor, *, rough: bool = False) -> Tensor:
        """Return weights […, width] as those that multiply the rows of `block`."""
        if self._is_rotated(rough) or self.basis is None:
            return U
        return self._transform(U, self.basis.T)

    def leave(self, G: Tensor, *, rough: bool = False) -> Tensor:
        """Return a gradient with respect to `enter`'s weights as one of […, width]."""
        if self._is_rotated(rough) or self.basis is None:
            return G
        return self._transform(G, self.basis)

    def _is_rotated(self, rough: bool) -> bool:
        return rough or self._copy is not None

    def _transform(self, U: Tensor, matrix: Tensor) -> Tensor:
        rank, new = matrix.shape
        out = U.new_zeros(*U.shape[:-1], padded(new))
        out[..., :new] = U[..., :rank] @ matrix
        out[..., new] = U[..., rank]
        return out

    def power(self, weights: Tensor) -> Tensor:
        """Return Σᵢ wᵢ xᵢⱼ² for weights [F, N], as [F, width]."""
        total = weights.new_zeros(len(weights), self.width)
        for rows in self.spans(self.chunk):
            Z = self.block(rows)
            rotated = (
                Z
                if self._copy is not None or self.basis is None
                else (self._transform(Z, self.basis))
            )
            total.addmm_(weights[:, rows], rotated.square())
        return total

    def unrotated(self, U: Tensor) -> Tensor:
        """Return the weights of the standardised features, […, D], without the intercept."""
        plain = U[..., : self.rank]
        return plain if self.basis is None else plain @ self.basis.T


def fast_half(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 matrices much faster than float32 ones."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    # torch 2.6 cannot be asked: slower, as right
    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)
    return bool(capabilities().get("amx_bf16", False))


def padded(rank: int) -> int:
    """Return the width of a row with an intercept, a multiple of 16 for the matrix units."""
    return (rank + 1 + 15) // 16 * 16


def design_of(features: Design | np.ndarray | Normalized, **options: Any) -> Design:
    """Return the design as it is, or that of an array."""
    return features if isinstance(features, Design) else Design(features, **options)
