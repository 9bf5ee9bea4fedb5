"""The heads: `--clf` names → estimator, grid and manners, in one table at the bottom.

scikit-learn is imported when an estimator is made, so that listing the names costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np

from pipeline.errors import UsageError, nearest
from pipeline.heads.estimators.described import build, short, split

Parameters = dict[str, Any]
#: (seed, balanced) → an estimator that takes its `Parameters` by `set_params`.
Maker = Callable[[int, bool], Any]
#: A fitted estimator → (W [K, D], b [K]) of its class scores.
Linearise = Callable[[Any], tuple[np.ndarray, np.ndarray]]


def decades(low: int, high: int, count: int | None = None) -> tuple[float, ...]:
    """Return log-spaced values from 10^low to 10^high; without `count`, one a decade."""
    return tuple(float(v) for v in np.logspace(low, high, count or high - low + 1))


#: Thirteen log-spaced penalties. On photos and digits the best lie between 0.003 and 1; beyond 10
#: accuracy stays and the log-loss rises, docs/heads.md.
PENALTIES = decades(-5, 1, 13)


@dataclass(frozen=True)
class HeadKind:
    """A kind of head. Equal when it fits the same heads.

    Attributes:
        title: for people.
        make: returns the unfitted estimator; None for `linear`, which the sweep solves.
        parameter: the name of what the grid varies; None where there is nothing to choose.
        grid: its values, from the simplest model to the most complex.
        fixed: further parameters that are tried with each value of the grid.
        refine: the grid is log-spaced: try between the best and its neighbours, and beyond an
            edge.
        normalize: what its features want: `none`, `standard` or `l2`.
        probabilities: whether the estimator's own probabilities are used; else its scores are
            temperature-scaled on images that it was not fitted on.
        log_loss: fitted by log-loss, so that it can start a network as it is.
        linear: weights of the fitted estimator's scores; None where it is not linear.
        balanced: whether it takes `--class-weight balanced`.
        warm: one estimator goes through the candidates in order, each helped by the one before.
        searcher: makes an estimator that scores the same faster while candidates are tried.
        most: training images above which it is not tried: it compares all of them pairwise.
    """

    title: str
    make: Maker | None
    parameter: str | None = None
    grid: tuple[float | str, ...] = ()
    fixed: tuple[Parameters, ...] = ({},)
    refine: bool = False
    normalize: str = "standard"
    probabilities: bool = False
    log_loss: bool = False
    linear: Linearise | None = None
    balanced: bool = True
    warm: bool = False
    searcher: Maker | None = None
    most: int | None = None

    def candidates(self, grid: tuple[float | str, ...] | None = None) -> list[Parameters]:
        """Return what is tried first, from simple to complex."""
        if self.parameter is None:
            return [dict(extra) for extra in self.fixed]
        values = self.grid
        if grid is not None:
            falling = self.grid[0] > self.grid[-1]  # type: ignore[operator]
            values = tuple(sorted(set(grid), reverse=falling))
        return [{self.parameter: value, **extra} for value in values for extra in self.fixed]


def estimator(place: str, **fixed: Any) -> Maker:
    """Return what makes an estimator, and imports it only then.

    It gets `class_weight` and `random_state` where it takes them.

    Args:
        place: `module:class`.
        **fixed: its other parameters.
    """

    def make(seed: int, balanced: bool) -> Any:
        module, name = place.split(":")
        kind = getattr(import_module(module), name)
        asked = {"random_state": seed, "class_weight": "balanced" if balanced else None}
        takes = signature(kind).parameters
        return kind(**fixed, **{key: value for key, value in asked.items() if key in takes})

    return make


def _coefficients(estimator: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return K rows of weights: two classes' single score s becomes [−s/2, s/2]."""
    weights, bias = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
    if len(weights) > 1:
        return weights, bias
    return np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])


def _centroids(estimator: Any) -> tuple[np.ndarray, np.ndarray]:
    # −‖x − μ‖² = 2 μᵀx − ‖μ‖² − ‖x‖², and the last term is the same for every class
    means = estimator.centroids_
    return 2 * means, -np.square(means).sum(1)


HEADS: Mapping[str, HeadKind] = {
    "ncm": HeadKind(
        "nearest class mean",
        estimator("sklearn.neighbors:NearestCentroid"),
        normalize="l2",
        linear=_centroids,
        balanced=False,
    ),
    "nb": HeadKind(
        "Gaussian naive Bayes",
        estimator("sklearn.naive_bayes:GaussianNB"),
        "var_smoothing",
        (1.0, 1e-1, 1e-2, 1e-3, 1e-5, 1e-9),
        probabilities=True,
        balanced=False,
    ),
    "lda": HeadKind(
        "linear discriminant analysis",
        estimator("pipeline.heads.estimators.classifiers:ShrinkageLDA"),
        "shrinkage",
        (0.99, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01),
        linear=_coefficients,
    ),
    "ridge": HeadKind(
        "ridge classifier",
        estimator("sklearn.linear_model:RidgeClassifier"),
        "alpha",
        decades(-1, 7)[::-1],
        refine=True,
        linear=_coefficients,
    ),
    "linear": HeadKind(
        "logistic regression in PyTorch", None, "C", PENALTIES, refine=True, log_loss=True
    ),
    "logreg": HeadKind(
        "logistic regression",
        # at its own tolerance of 1e-4 the objective is up to 28% off at C = 10
        estimator(
            "sklearn.linear_model:LogisticRegression", max_iter=2000, tol=1e-6, warm_start=True
        ),
        "C",
        PENALTIES,
        refine=True,
        log_loss=True,
        warm=True,
        probabilities=True,
        linear=_coefficients,
    ),
    "svm": HeadKind(
        "linear support vector machine",
        estimator("sklearn.svm:LinearSVC"),
        "C",
        decades(-6, -3),
        refine=True,
        linear=_coefficients,
    ),
    "knn": HeadKind(
        "nearest neighbours",
        estimator("sklearn.neighbors:KNeighborsClassifier", algorithm="brute", weights="distance"),
        "n_neighbors",
        (50, 25, 15, 10, 7, 5, 3, 1),
        normalize="l2",
        probabilities=True,
        balanced=False,
    ),
    "svm-rbf": HeadKind(
        "support vector machine, Gaussian kernel",
        estimator("sklearn.svm:SVC", cache_size=500),
        "C",
        decades(-1, 2),
        fixed=({"gamma": 0.1}, {"gamma": 0.3}, {"gamma": 1.0}),
        warm=True,
        searcher=estimator("pipeline.heads.estimators.classifiers:CachedGaussianSVC"),
        most=20_000,
    ),
    "mlp": HeadKind(
        "multilayer perceptron",
        estimator(
            "sklearn.neural_network:MLPClassifier",
            hidden_layer_sizes=(128,),
            max_iter=30,
            tol=1e-3,
            n_iter_no_change=3,
        ),
        "alpha",
        (10.0, 1.0, 1e-1),
        probabilities=True,
        balanced=False,
    ),
}  # in the order from simple to complex: ties go to the first


def kind_of(name: str) -> HeadKind:
    """Return a kind of head by its name, or that of an estimator of scikit-learn as text.

    Raises:
        UsageError: there is no such estimator.
    """
    if name in HEADS:
        return HEADS[name]

    def make(seed: int, balanced: bool) -> Any:
        made = build(name)
        given = made.get_params()
        seeds = [key for key in given if key.split("__")[-1] == "random_state"]
        asked = {key: seed for key in seeds if given[key] is None}
        return made.set_params(**asked, **({"class_weight": "balanced"} if balanced else {}))

    made = build(name)
    return HeadKind(
        f"{short(name)} of scikit-learn",
        make,
        probabilities=hasattr(made, "predict_proba"),
        balanced="class_weight" in made.get_params(deep=False),
    )


def parse_names(text: str) -> list[str]:
    """Return the heads that `--clf` means: a name, several with commas, or `all`.

    Raises:
        UsageError: unknown names, all of them in one message.
    """
    try:
        names = split(text)
    except ValueError:
        names = [text]
    if names == ["all"]:
        return list(HEADS)
    unknown = [name for name in names if name not in HEADS and ":" not in name]
    if unknown or not names:
        hints = "".join(nearest(name, [*HEADS, "all"]) for name in unknown)
        raise UsageError(
            f"--clf {text!r}: {', '.join(map(repr, unknown)) or 'nothing'} is not a head. There "
            f"are {', '.join(HEADS)}, and all.{hints}"
        )
    for name in names:
        kind_of(name)
    return list(dict.fromkeys(names))


def parse_grid(text: str) -> tuple[float, ...]:
    """Return the values that `--grid` means: `0.01,0.1,1`, or `1e-6:1e5:45`, log-spaced.

    Raises:
        UsageError: it is neither.
    """
    try:
        if ":" in text:
            low, high, count = text.split(":")
            values = np.geomspace(float(low), float(high), int(count))
        else:
            values = np.array([float(value) for value in text.split(",")])
    except ValueError:
        values = np.array([])
    if not len(values) or not np.isfinite(values).all() or (values <= 0).any():
        raise UsageError(
            f"--grid {text!r} is neither values such as 0.01,0.1,1 nor LOW:HIGH:COUNT such as "
            "1e-6:1e5:45, all above zero."
        )
    return tuple(float(value) for value in values)
