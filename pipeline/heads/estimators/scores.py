"""Scores of any scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np


def estimator_scores(estimator: Any, x: np.ndarray, *, probabilities: bool) -> np.ndarray:
    """Return scores [N, K'] for the K' classes that an estimator has seen.

    They are the logarithms of its probabilities, or its decision function, where two classes' one
    score s becomes [−s/2, s/2]. Naive Bayes gives the logarithms by itself: it knows those of
    probabilities that are 0 in floating point.
    """
    if not probabilities:
        scores = np.asarray(estimator.decision_function(x))
        return np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores
    with np.errstate(divide="ignore"):
        if hasattr(estimator, "predict_log_proba"):
            return np.asarray(estimator.predict_log_proba(x))
        return np.asarray(np.log(estimator.predict_proba(x)))
