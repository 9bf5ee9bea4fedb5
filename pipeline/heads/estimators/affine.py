"""What two linear classifiers share: scores and predictions from `coef_` and `intercept_`."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data


class AffineClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose class scores are X coef_ᵀ + intercept_, one score for two classes.

    `fit` is the heirs'; it sets `classes_` [K], `coef_` [K or 1, D] and `intercept_` [K or 1].
    """

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return class scores [N, K], or [N] of the second class for two."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        scores = X @ self.coef_.T + self.intercept_
        return np.asarray(scores.ravel() if len(self.classes_) == 2 else scores)

    def predict(self, X: np.ndarray) -> Any:
        """Return the likeliest class of each row, [N]."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]
