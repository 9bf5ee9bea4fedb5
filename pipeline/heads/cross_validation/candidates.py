"""Fit candidates of a scikit-learn head on folds, in parallel, and return what they score."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads.registry import HEADS, HeadKind, Parameters

#: (training rows, scored rows), each [n] int64.
Fold = tuple[np.ndarray, np.ndarray]


def out_of_fold(
    name: str,
    candidates: Sequence[Parameters],
    features: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    *,
    classes: int,
    balanced: bool,
    seed: int,
    jobs: int | None,
) -> Iterator[tuple[int, int, np.ndarray, bool]]:
    """Yield (candidate, fold, scores [n, K] of the fold's scored rows, converged), as they end.

    A kind that starts warm (logistic regression) goes through the candidates of a fold in order,
    each from the one before; the others are independent of each other. joblib maps large features
    into the workers and bounds the threads of their linear algebra; a caller's
    `joblib.parallel_config` decides backend and number where `jobs` is None.
    """
    import joblib
    from joblib.parallel import get_active_backend

    warm = HEADS[name].warm
    every = list(range(len(candidates)))
    tasks = [
        (part, f)
        for f in range(len(folds))
        for part in ([every] if warm else [[number] for number in every])
    ]
    call = joblib.delayed(_fit_and_score)
    calls = (
        call(name, [candidates[n] for n in part], features, labels, folds[f],
             classes=classes, balanced=balanced, seed=seed)
        for part, f in tasks
    )  # fmt: skip
    streams = get_active_backend()[0].supports_return_generator
    how = "generator" if streams else "list"
    with joblib.Parallel(n_jobs=jobs, return_as=how, max_nbytes="1M", mmap_mode="r") as parallel:
        for (part, f), results in zip(tasks, parallel(calls), strict=True):
            for number, (scores, converged) in zip(part, results, strict=True):
                yield number, f, scores, converged


def _fit_and_score(
    name: str,
    candidates: Sequence[Parameters],
    features: np.ndarray,
    labels: np.ndarray,
    fold: Fold,
    *,
    classes: int,
    balanced: bool,
    seed: int,
) -> list[tuple[np.ndarray, bool]]:
    train, scored = fold
    kind = HEADS[name]
    assert kind.make is not None
    estimator = (kind.searcher or kind.make)(seed, balanced)
    x, y, held = features[train], labels[train], features[scored]
    found = []
    for parameters in candidates:
        converged = fit(estimator, parameters, x, y)
        found.append((class_scores(kind, estimator, held, classes), converged))
    return found


def fit(estimator: Any, parameters: Parameters, x: np.ndarray, y: np.ndarray) -> bool:
    """Fit in place; return whether the solver converged (it says so by a warning)."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        estimator.set_params(**_possible(parameters, x.shape)).fit(x, y)
    return not any(issubclass(w.category, ConvergenceWarning) for w in told)


def _possible(parameters: Parameters, shape: tuple[int, ...]) -> Parameters:
    """Return the parameters with no more neighbours than images, γ in units of 1 / D."""
    images, dim = shape
    if "n_neighbors" in parameters:
        count = parameters["n_neighbors"]
        whole = int(count) if count == int(count) else count  # a grid that is given has floats
        return {**parameters, "n_neighbors": min(whole, images)}
    if "gamma" in parameters:
        return {**parameters, "gamma": parameters["gamma"] / dim}
    return parameters


def log_chances(estimator: Any, x: np.ndarray) -> np.ndarray:
    """Return the logarithms of an estimator's probabilities, [N, K'].

    By itself where it can: naive Bayes knows those of probabilities that are 0 in floating point.
    """
    with np.errstate(divide="ignore"):
        if hasattr(estimator, "predict_log_proba"):
            return np.asarray(estimator.predict_log_proba(x))
        return np.asarray(np.log(estimator.predict_proba(x)))


def class_scores(kind: HeadKind, estimator: Any, x: np.ndarray, classes: int) -> np.ndarray:
    """Return scores [N, classes] float32 for the classes 0 … K−1.

    Linear kinds: W x + b; kinds with probabilities: their logarithms; others: the decision
    function. A class that the estimator never saw scores −∞.
    """
    if kind.linear is not None:
        weight, bias = kind.linear(estimator)
        scores = x @ weight.T.astype(x.dtype) + bias
    elif kind.probabilities:
        scores = log_chances(estimator, x)
    else:
        scores = estimator.decision_function(x)
        if scores.ndim == 1:
            scores = np.stack([-scores / 2, scores / 2], axis=1)
    if np.isnan(scores).any():
        raise PipelineError(
            "its scores are not numbers; do the features of the training images vary at all?"
        )
    out = np.full((len(x), classes), -np.inf, np.float32)
    out[:, np.asarray(estimator.classes_, np.int64)] = scores
    return out
