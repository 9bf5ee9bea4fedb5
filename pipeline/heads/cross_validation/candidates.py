"""Fit candidates of a scikit-learn head on folds, in parallel, and return what they score."""

from __future__ import annotations

import re
import threading
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pickle import PicklingError
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads.cross_validation.mapped import MappedRows
from pipeline.heads.estimators.scores import estimator_scores
from pipeline.heads.registry import HeadKind, Parameters, kind_of
from pipeline.progress import Silent

#: (training rows, scored rows), each [n] int64.
Fold = tuple[np.ndarray, np.ndarray]
#: (candidate, fold, scores [n, K] of the fold's scored rows, converged), as they end.
Scores = Generator[tuple[int, int, np.ndarray, bool], None, None]
#: Number of a thread → the categories of its warnings.
WarningRecord = dict[int, list[type[Warning]]]


@dataclass
class Workers:
    """The processes that fit candidates.

    Args:
        jobs: how many, for joblib; 1 from when they could not be given the features.
        say: told of that; None for nobody.
    """

    jobs: int | None
    say: Callable[[str], None] | None = None


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
    workers: Workers,
    elsewhere: MappedRows | None = None,
) -> Scores:
    """Yield (candidate, fold, scores [n, K] of the fold's scored rows, converged), as they end.

    A kind that starts warm (logistic regression) goes through the candidates of a fold in order,
    each from the one before; the others are independent of each other. joblib maps large features
    into the workers and bounds the threads of their linear algebra; a caller's
    `joblib.parallel_config` decides backend and number where `jobs` is None. Where there is no room
    for that, this process does the rest alone. Close the iterator where it is not read to its end:
    threads share the warning filters, which are restored then.

    Args:
        name, candidates: as `kind_of` has them.
        features: [n, D] float32, normalised.
        labels: [n] int64.
        folds: rows of these.
        classes, balanced, seed: of the estimators.
        workers: that fit.
        elsewhere: what workers of Dask read in place of the features.
    """
    import joblib
    from joblib.parallel import get_active_backend

    every = range(len(candidates))
    parts = [list(every)] if kind_of(name).warm else [[number] for number in every]
    tasks = [(part, f) for f in range(len(folds)) for part in parts]
    backend = get_active_backend()[0]
    threads = getattr(backend, "uses_threads", False)  # joblib has it where it holds
    how = "generator" if backend.supports_return_generator else "list"
    far = elsewhere is not None and backend.__class__.__name__ == "DaskDistributedBackend"
    given = elsewhere if far else features
    call = joblib.delayed(_fit_and_score)
    while left := tuple(tasks):
        options = {"n_jobs": workers.jobs, "return_as": how, "max_nbytes": "1M", "mmap_mode": "r"}
        try:
            with (
                recorded_warnings() if threads else nullcontext() as record,
                joblib.Parallel(**options) as parallel,
            ):
                calls = (
                    call(name, [candidates[n] for n in part], given, labels, folds[f],
                         classes=classes, balanced=balanced, seed=seed, record=record)
                    for part, f in left
                )  # fmt: skip
                for (part, f), results in zip(left, parallel(calls), strict=True):
                    tasks.remove((part, f))
                    for number, (scores, converged) in zip(part, results, strict=True):
                        yield number, f, scores, converged
        except (OSError, PicklingError, BrokenExecutor) as error:
            if workers.jobs == 1:
                raise
            workers.jobs = 1
            (workers.say or Silent().say)(
                f"The features ({features.nbytes / 1e6:,.1f} MB) could not be given to several "
                f"processes ({_reason(error)}): one process fits the rest. Set JOBLIB_TEMP_FOLDER "
                "or TMPDIR to a disk with room, or give --jobs 1."
            )


def _reason(error: Exception) -> str:
    """Return why joblib failed; what went wrong in its own thread is text in the cause."""
    if isinstance(error, BrokenExecutor):
        return "one of them was ended; is the memory full?"
    found = re.findall(r"\[Errno \d+\] (.+)", f"{error.__cause__}\n{error}")
    return found[0] if found else str(error).splitlines()[0]


def _fit_and_score(
    name: str,
    candidates: Sequence[Parameters],
    features: np.ndarray | MappedRows,
    labels: np.ndarray,
    fold: Fold,
    *,
    classes: int,
    balanced: bool,
    seed: int,
    record: WarningRecord | None,
) -> list[tuple[np.ndarray, bool]]:
    train, scored = fold
    kind = kind_of(name)
    if isinstance(features, MappedRows):
        features = features.load()
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
        PipelineError: what the estimator refuses, in its words.
    """
    if _fit_once(estimator, parameters, x, y, record):
        return True
    # the rounding of float32 may stop a line search short: on from there in float64
    warm = getattr(estimator, "warm_start", False) and x.dtype != np.float64
    return bool(warm) and _fit_once(estimator, parameters, x.astype(np.float64), y, record)


def _fit_once(
    estimator: Any,
    parameters: Parameters,
    x: np.ndarray,
    y: np.ndarray,
    record: WarningRecord | None,
) -> bool:
    from sklearn.exceptions import ConvergenceWarning

    with recorded_warnings() if record is None else nullcontext(record) as kept:
        mine = kept[threading.get_ident()]
        mine.clear()
        with refusals():
            estimator.set_params(**_possible(parameters, x.shape)).fit(x, y)
    return not any(issubclass(category, ConvergenceWarning) for category in mine)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the ValueError by which an estimator refuses data or a parameter into a sentence.

    A ValueError of our own code is a bug, and is passed on.
    """
    try:
        yield
    except ValueError as error:
        from sklearn.utils._param_validation import InvalidParameterError

        calls = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
        packages = [frame.f_globals["__name__"].split(".")[0] for frame in calls]
        inner = [package for package in packages if package in ("pipeline", "sklearn")][-1]
        known = isinstance(error, (InvalidParameterError, np.linalg.LinAlgError))
        if inner == "pipeline" and not known:  # our own code, or numpy that it called, raised
            raise
        raise PipelineError(str(error).splitlines()[0]) from error


def _possible(parameters: Parameters, shape: tuple[int, ...]) -> Parameters:
    """Return the parameters with no more neighbours than images, γ in units of 1 / D."""
    images, dim = shape
    if (count := parameters.get("n_neighbors")) is not None:
        whole = int(count) if count == int(count) else count  # a grid that is given has floats
        return {**parameters, "n_neighbors": min(whole, images)}
    if "gamma" in parameters:
        return {**parameters, "gamma": parameters["gamma"] / dim}
    return parameters


def class_scores(kind: HeadKind, estimator: Any, x: np.ndarray, classes: int) -> np.ndarray:
    """Return scores [N, classes] float32 for the classes 0 … K−1.

    Linear kinds: W x + b; kinds with probabilities: their logarithms; others: the decision
    function. A class that the estimator never saw scores −∞.
    """
    if kind.linear is not None:
        weight, bias = kind.linear(estimator)
        scores = x @ weight.T.astype(x.dtype) + bias
    else:
        with refusals():
            scores = estimator_scores(estimator, x, probabilities=kind.probabilities)
    out = np.full((len(x), classes), -np.inf, np.float32)
    out[:, np.asarray(estimator.classes_, np.int64)] = scores
    return checked(out)


def checked(scores: np.ndarray) -> np.ndarray:
    """Return scores [N, K] as they are; refuse rows without a likeliest class."""
    if not np.isfinite(scores.max(1)).all():
        raise PipelineError(
            "its scores are not finite; do the features of the training images vary at all, and "
            "are they of a usual size?"
        )
    return scores
