"""A Gaussian-kernel machine that computes the distances once for all its parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.svm import SVC


class CachedGaussianSVC:
    """scikit-learn's `SVC(kernel="rbf")` for a search: the same scores, distances computed once.

    Almost all of a fit on wide features is distances between images, which no parameter changes.

    Args:
        class_weight: `balanced` or None.
        random_state: changes nothing; without it scikit-learn draws from numpy's global generator.
    """

    def __init__(self, class_weight: str | None = None, random_state: int = 0):
        self.machine = SVC(
            kernel="precomputed",
            class_weight=class_weight,
            cache_size=500,
            random_state=random_state,
        )
        self.gamma = 1.0
        self._x: np.ndarray | None = None
        self._distances: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def set_params(self, *, C: float, gamma: float) -> CachedGaussianSVC:
        """Set the penalty and the kernel's width, as `SVC` takes them."""
        self.machine.set_params(C=C)
        self.gamma = gamma
        return self

    def fit(self, X: np.ndarray, y: np.ndarray) -> CachedGaussianSVC:
        """Fit on X [N, D] and y [N]."""
        if self._x is not X:
            self._x, self._distances = X, {}
        self.machine.fit(self._kernel(X), y)
        return self

    @property
    def classes_(self) -> Any:
        """Return the classes that were seen."""
        return self.machine.classes_

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return scores [N, K], or [N] for two classes."""
        return np.asarray(self.machine.decision_function(self._kernel(X)))

    def _kernel(self, X: np.ndarray) -> np.ndarray:
        """Return exp(−γ ‖x − x'‖²) to the training images, [N, M] float64."""
        assert self._x is not None
        if id(X) not in self._distances:  # the array is kept too, so that its id stays its own
            product = X @ self._x.T
            square = np.square(X).sum(1)[:, None] + np.square(self._x).sum(1) - 2 * product
            self._distances[id(X)] = (X, np.maximum(square, 0).astype(np.float64))
        return np.asarray(np.exp(-self.gamma * self._distances[id(X)][1]))
