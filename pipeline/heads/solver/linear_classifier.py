"""The solver as a scikit-learn estimator for one penalty."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from pipeline.heads.estimators.scores import estimator_scores
from pipeline.heads.metrics import softmax
from pipeline.heads.solver.design import Design
from pipeline.heads.solver.path import TOL, solve_path


class LinearClassifier(LinearClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multinomial logistic regression with scikit-learn's objective, solved in PyTorch.

    C Σᵢ wᵢ ceᵢ + ½‖W‖² with a free intercept; two classes: the binomial objective. It computes in
    the precision of its features, float32 or float64.

    Args:
        C: inverse strength of the penalty, above zero.
        class_weight: `balanced`, a dict from class to weight, or None.
        tol: share of the objective that may be missing at the solution, by the Newton decrement;
            in float32 at least what its rounding leaves.
        max_iter: iterations at most.
        device: where torch computes.

    Attributes:
        classes_: K labels, sorted.
        coef_: [K, D], [1, D] for two classes.
        intercept_: [K], [1] for two classes.
        n_iter_: iterations, [1].
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        class_weight: Any = None,
        tol: float = 1e-18,
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
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"LinearClassifier needs two classes; y has 1 class: {self.classes_[0]}"
            )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if self.class_weight is not None:
            weight = weight * compute_sample_weight(self.class_weight, y)
        dtype = torch.float64 if X.dtype == np.float64 else torch.float32
        (found,) = solve_path(
            Design(X, device=self.device, dtype=dtype),
            labels,
            [self.C],
            n_classes=len(self.classes_),
            weights=weight[None],
            tol=max(self.tol, TOL) if dtype == torch.float32 else self.tol,
            max_iter=self.max_iter,
        )
        coef, intercept = found.linear(0)
        if len(self.classes_) == 2:  # [−w/2, w/2] is one score
            coef, intercept = coef[1:] * 2, intercept[1:] * 2
        self.coef_, self.intercept_ = coef, intercept
        self.n_iter_ = found.iterations
        if not found.converged.all():
            warnings.warn(
                f"not converged after {self.n_iter_[0]} iterations", ConvergenceWarning, 2
            )
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities [N, K]."""
        return softmax(estimator_scores(self, X, probabilities=False))
