"""The solver of the sweep as a scikit-learn estimator for one penalty."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from pipeline.heads.estimators.scores import estimator_scores
from pipeline.heads.metrics import softmax
from pipeline.heads.solver.sweep import sweep


class LinearClassifier(LinearClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multinomial logistic regression with scikit-learn's objective, solved in PyTorch.

    C Σᵢ wᵢ ceᵢ + ½‖W‖² with a free intercept; two classes: the binomial objective. The method is
    that of `pipeline.heads.solver.sweep`.

    Args:
        C: inverse strength of the penalty, above zero.
        class_weight: `balanced`, a dict from class to weight, or None.
        tol: largest component of the gradient of the mean objective at the solution.
        max_iter: iterations at most.
        device: where torch computes.

    Attributes:
        classes_: K labels, sorted.
        coef_: [K, D] float64, [1, D] for two classes.
        intercept_: [K] float64, [1] for two classes.
        n_iter_: iterations, [1].
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        class_weight: Any = None,
        tol: float = 5e-5,
        max_iter: int = 1000,
        device: str = "cpu",
    ):
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> LinearClassifier:
        """Fit on X [N, D] and y [N]; raises ValueError for what cannot be fitted."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"LinearClassifier needs two classes; y has 1 class: {self.classes_[0]}"
            )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if self.class_weight is not None:
            weight = weight * compute_sample_weight(self.class_weight, y)
        found = sweep(
            X,
            labels,
            penalties=[self.C],
            n_classes=len(self.classes_),
            sample_weight=weight,
            tol=self.tol,
            max_iter=self.max_iter,
            device=self.device,
        )
        coef, intercept = found.weights(0)[0].astype(float), found.bias(0)[0].astype(float)
        if len(self.classes_) == 2:  # [−w/2, w/2] is one score
            coef, intercept = coef[1:] * 2, intercept[1:] * 2
        self.coef_, self.intercept_ = coef, intercept
        self.n_iter_ = found.iterations[0]
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities [N, K]."""
        return softmax(estimator_scores(self, X, probabilities=False))
