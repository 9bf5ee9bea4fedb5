"""Fit candidates of a scikit-learn head on folds, in parallel, and return what they score."""

from __future__ import annotations

import threading
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads.registry import HEADS, HeadKind, Parameters

#: (training rows, scored rows), each [n] int64.
Fold = tuple[np.ndarray, np.ndarray]
#: Number of a thread → the categories of its warnings.
WarningRecord = dict[int, list[type[Warning]]]


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
    `joblib.parallel_config` decides backend and number where `jobs` is None. Close the iterator
    where it is not read to its end: threads share the warning filters, which are restored then.
    """
    import joblib
    from joblib.parallel import get_active_backend

    every = range(len(candidates))
    parts = [list(every)] if HEADS[name].warm else [[number] for number in every]
    tasks = [(part, f) for f in range(len(folds)) for part in parts]
    backend = get_active_backend()[0]
    threads = getattr(backend, "uses_threads", False)  # joblib has it where it holds
    how = "generator" if backend.supports_return_generator else "list"
    call = joblib.delayed(_fit_and_score)
    with (
        recorded_warnings() if threads else nullcontext() as record,
        joblib.Parallel(n_jobs=jobs, return_as=how, max_nbytes="1M", mmap_mode="r") as parallel,
    ):
        calls = (
            call(name, [candidates[n] for n in part], features, labels, folds[f],
                 classes=classes, balanced=balanced, seed=seed, record=record)
            for part, f in tasks
        )  # fmt: skip
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
    record: WarningRecord | None,
) -> list[tuple[np.ndarray, bool]]:
    train, scored = fold
    kind = HEADS[name]
    assert kind.make is not None
    estimator = (kind.searcher or kind.make)(seed, balanced)
    x, y, held = features[train], labels[train], features[scored]
    results = []
    for parameters in candidates:
        converged = fit(estimator, parameters, x, y, record=record)
        results.append((class_scores(kind, estimator, held, classes), converged))
    return results


@contextmanager
def recorded_warnings() -> Iterator[WarningRecord]:
    """Record the warnings of every thread and show none, until the block is left.

    The filters are the whole process's: threads that each changed and restored them would leave
    those of another behind. So whoever starts the threads records for all of them.
    """
    record: WarningRecord = defaultdict(list)

    def keep(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        record[threading.get_ident()].append(category)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = keep
        yield record


def fit(
    estimator: Any,
    parameters: Parameters,
    x: np.ndarray,
    y: np.ndarray,
    *,
    record: WarningRecord | None = None,
) -> bool:
    """Fit in place; return whether the solver converged (it says so by a warning).

    Args:
        estimator: of scikit-learn's kind.
        parameters: of it.
        x: [n, D] float32.
        y: [n] int64.
        record: of warnings, where one is being kept already; None to keep one for this fit.

    Raises:
        PipelineError: what the estimator refuses, in its words. A ValueError that scikit-learn did
            not raise is a bug, and is passed on.
    """
    from sklearn.exceptions import ConvergenceWarning

    with recorded_warnings() if record is None else nullcontext(record) as kept:
        mine = kept[threading.get_ident()]
        mine.clear()
        try:
            estimator.set_params(**_possible(parameters, x.shape)).fit(x, y)
        except ValueError as error:
            if not _refusal(error):
                raise
            raise PipelineError(str(error).splitlines()[0]) from error
    return not any(issubclass(category, ConvergenceWarning) for category in mine)


def _refusal(error: ValueError) -> bool:
    """Return whether an estimator refused the data or a parameter: its way to is a ValueError."""
    from sklearn.utils._param_validation import InvalidParameterError

    if isinstance(error, (InvalidParameterError, np.linalg.LinAlgError)):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("sklearn.")


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


def log_probabilities(estimator: Any, x: np.ndarray) -> np.ndarray:
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
        scores = log_probabilities(estimator, x)
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
