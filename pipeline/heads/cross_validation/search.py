"""Choose a head's penalty by cross-validation on the training images, and fit it on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pipeline.cores import free_memory
from pipeline.errors import PipelineError
from pipeline.heads.cross_validation.candidates import (
    Fold,
    Workers,
    checked,
    class_scores,
    fit,
    out_of_fold,
)
from pipeline.heads.cross_validation.mapped import MappedRows
from pipeline.heads.cross_validation.trials import Trial, Trials
from pipeline.heads.estimators.normalize import Normalized, Normalizer, Stacked
from pipeline.heads.linear import LinearHead, every_class
from pipeline.heads.metrics import softmax
from pipeline.heads.registry import HeadKind, Parameters, kind_of
from pipeline.images.names import counted

#: Numbers of training features beyond which `linear` is chosen on a part, of so many rows.
LARGE, PART = 1 << 27, 50_000


@dataclass
class SearchResult:
    """A chosen and fitted head.

    Attributes:
        name: of `HEADS`.
        chosen: the winning trial; its score is None-like (`nan`) where nothing could be compared.
        trials: every candidate, from simple to complex.
        linear: the head in the space of raw features, where it is linear.
        estimator: the fitted estimator on normalised features, where it is not.
        normalizer: of the features.
        held: logits [m, K] of the chosen trial for images that it was not fitted on, their labels
            [m] and their rows [m] of the features; None where nothing was held out.
        notes: sentences for the person.
        seconds: search and final fit.
    """

    name: str
    chosen: Trial
    trials: list[Trial]
    normalizer: Normalizer
    linear: LinearHead | None = None
    estimator: Any = None
    held: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def probabilities(self, features: np.ndarray, classes: int) -> np.ndarray:
        """Return probabilities [N, K] of raw features [N, D]."""
        temperature = self.chosen.temperature
        if self.linear is not None:
            return softmax(checked(self.linear.scores(features)), temperature)
        x = self.normalizer.apply(features)
        return softmax(class_scores(kind_of(self.name), self.estimator, x, classes), temperature)


@dataclass(frozen=True)
class Plan:
    """How to choose. Equal plans on equal features choose the same head.

    Attributes:
        select: one of `metrics.SELECTIONS`.
        grid: values in place of the kind's own, or None.
        balanced: weigh classes by the inverse of their share.
        normalize: one of `NORMALIZATIONS`, or None for the kind's own.
        seed: of the estimators.
        jobs: for joblib; None leaves it to `joblib.parallel_config`.
    """

    select: str = "accuracy"
    grid: tuple[float, ...] | None = None
    balanced: bool = False
    normalize: str | None = None
    seed: int = 0
    jobs: int | None = None


def search(
    name: str,
    features: np.ndarray | Stacked,
    labels: np.ndarray,
    *,
    classes: int,
    train: np.ndarray,
    folds: Sequence[Fold],
    plan: Plan,
    group_ids: np.ndarray | None = None,
    progress: Callable[[Parameters, float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> SearchResult:
    """Return the head of a kind that scores best on held-out rows, fitted on all of `train`.

    Args:
        name: of `HEADS`.
        features: [N, D] float, raw; only rows named in `train` and `folds` are read.
        labels: [N] int64 in [0, classes).
        classes: K.
        train: rows to fit the final head and the normaliser on.
        folds: (rows to fit on, rows to score), rows of `features`; a row that is never scored
            (a view) is missing from one fold. Without any, the middle of the grid is taken
            untried.
        plan: how to choose.
        group_ids: [N] int64: scored rows of one group are one draw where two scores are compared.
            None: each row is.
        progress: called with the parameters and the best score so far.
        say: told where fewer processes must do.

    Raises:
        PipelineError: there are too many rows for this kind, or it refuses them.
    """
    began = time.perf_counter()
    kind = kind_of(name)
    _check_size(kind, len(train), features.shape[1])
    normalizer = Normalizer.fit(plan.normalize or kind.normalize, features, train)
    groups = np.arange(len(labels)) if group_ids is None else group_ids
    data = _Data(kind, normalizer, features, labels, classes, groups, plan, progress, say)
    if kind.make is not None:
        found = _choose_estimator(name, data, train, folds)
    elif folds and len(train) * features.shape[1] > LARGE:
        found = _choose_large_linear(data, train, folds)
    else:
        found = _choose_linear(data, train, folds)
    chosen, linear = found.trial, None
    if found.weights is not None:
        linear = LinearHead.fold(
            *found.weights, mean=normalizer.mean, scale=normalizer.scale,
            l2=normalizer.kind == "l2", temperature=chosen.temperature,
        )  # fmt: skip
    notes = found.notes
    if lost := sum(not trial.converged for trial in found.tried):
        at = counted(lost, "candidate")
        notes = [*notes, f"{name}: the solver stopped before it converged at {at}."]
    return SearchResult(
        name, chosen, found.tried, normalizer, linear, found.estimator, found.held, notes,
        time.perf_counter() - began,
    )  # fmt: skip


def _check_size(kind: HeadKind, rows: int, dim: int) -> None:
    """Refuse so many rows that a kind would take days, or more memory than there is."""
    instead = "`--clf linear` reads a table of any size in place; or give --train-fraction."
    if kind.most is not None and rows > kind.most:
        raise PipelineError(
            f"it compares all pairs of training images, and {rows:,} are more than "
            f"{kind.most:,}. {instead}"
        )
    # the features, and what two folds' fits make of them
    needed, free = 3 * 4 * rows * dim, free_memory()
    if kind.make is not None and needed > free:
        raise PipelineError(
            f"it copies the features, which takes {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB of memory are free. {instead}"
        )


class _Data(NamedTuple):
    """What all steps of a search share: see `search`."""

    kind: HeadKind
    normalizer: Normalizer
    features: np.ndarray | Stacked
    labels: np.ndarray
    classes: int
    group_ids: np.ndarray
    plan: Plan
    progress: Callable[[Parameters, float], None] | None
    say: Callable[[str], None] | None

    def trials(self, folds: Sequence[Fold]) -> Trials:
        """Return an empty list of trials on some folds."""
        select, progress = self.plan.select, self.progress
        return Trials(self.kind, select, self.labels, folds, self.group_ids, progress)

    def choose(self, trials: Trials) -> Trial:
        """Return the best of the kind's candidates."""
        grid = self.plan.grid
        return trials.choose(self.kind.candidates(grid), refine=self.kind.refine and not grid)


class _Choice(NamedTuple):
    """A chosen trial, all that were tried, and what `Trials.held` has of the chosen one.

    It is fitted on all training rows: W and b, or an estimator.
    """

    trial: Trial
    tried: list[Trial]
    held: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    weights: tuple[np.ndarray, np.ndarray] | None = None
    estimator: Any = None
    notes: list[str] = []  # noqa: RUF012  # never changed


def _numbered(train: np.ndarray, folds: Sequence[Fold]) -> tuple[np.ndarray, list[Fold]]:
    """Return all rows that are used, ascending, and the folds by their places among these."""
    used = np.unique(np.concatenate([train, *(held for _, held in folds)]))
    return used, [(np.searchsorted(used, a), np.searchsorted(used, b)) for a, b in folds]


def _choose_estimator(name: str, data: _Data, train: np.ndarray, folds: Sequence[Fold]) -> _Choice:
    kind, plan = data.kind, data.plan
    assert kind.make is not None
    used, parts = _numbered(train, folds)
    x, y = data.normalizer.apply(data.features, used), data.labels[used]
    trials = data.trials(folds)
    trials.out_of_fold = partial(
        out_of_fold, name, features=x, labels=y, folds=parts, classes=data.classes,
        balanced=plan.balanced, seed=plan.seed, workers=Workers(plan.jobs, data.say),
        elsewhere=MappedRows.of(data.normalizer, data.features, used),
    )  # fmt: skip
    chosen = data.choose(trials)
    estimator, inside = kind.make(plan.seed, plan.balanced), np.searchsorted(used, train)
    fit(estimator, chosen.parameters, x[inside] if len(inside) < len(x) else x, y[inside])
    if kind.linear is None:
        return _Choice(chosen, trials.all, trials.held, estimator=estimator)
    weights = every_class(*kind.linear(estimator), estimator.classes_, data.classes)
    return _Choice(chosen, trials.all, trials.held, weights)


def _choose_linear(
    data: _Data,
    train: np.ndarray,
    folds: Sequence[Fold],
    *,
    near: Sequence[Parameters] = (),
    start: Any = None,
) -> _Choice:
    """Choose a penalty, of `near` alone where there are some, starting from W and b."""
    from pipeline.heads.cross_validation.linear_search import LinearSearch

    used, parts = _numbered(train, folds)
    trials = data.trials(folds)
    rows = Normalized(data.normalizer, data.features, used)  # read in turn, never copied whole
    solver = LinearSearch(
        rows, data.labels[used], parts, data.classes, balanced=data.plan.balanced, start=start,
        progress=trials.tell_solved,
    )  # fmt: skip
    trials.out_of_fold = solver.out_of_fold
    chosen = trials.choose(near, refine=False) if near else data.choose(trials)
    return _Choice(chosen, trials.all, trials.held, solver.fit(chosen.parameters))


def _choose_large_linear(data: _Data, train: np.ndarray, folds: Sequence[Fold]) -> _Choice:
    """Choose on a stratified part, check with the neighbouring penalties on all, fit on all.

    The first fold is what is held out, and the part lies within it and outside it. Each step
    starts from the solution of the one before, and nothing else of it is kept in memory.
    """
    fitted, held = folds[0]
    most = PART // 5
    part = _stratified(data.labels, fitted, 4 * most), _stratified(data.labels, held, most)
    first = _choose_linear(data, part[0], [part])
    place = first.tried.index(first.trial)
    near = [trial.parameters for trial in first.tried[max(0, place - 1) : place + 2]]
    check = _choose_linear(data, fitted, [(fitted, part[1])], near=near, start=first.weights)
    best = check.trial
    whole = _choose_linear(data, train, [], near=[best.parameters], start=check.weights)
    by_penalty = {trial.parameters["C"]: trial for trial in [*first.tried, *check.tried]}
    tried = [by_penalty[C] for C in sorted(by_penalty)]
    note = (
        f"linear: the penalties were tried on {len(part[0]):,} images and scored on "
        f"{len(part[1]):,} others; C = {first.trial.parameters['C']:.3g} and its neighbours were "
        f"then fitted on {len(fitted):,} images, and C = {best.parameters['C']:.3g} on all."
    )
    return _Choice(best, tried, check.held, whole.weights, notes=[note])


def _stratified(labels: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most about `most` of the rows, ascending, in every class the same share."""
    order = np.random.default_rng(0).permutation(rows)
    order = order[np.argsort(labels[order], kind="stable")]
    _, first, count = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, count)
    share = min(1.0, most / len(rows))
    return np.sort(order[rank < np.ceil(share * np.repeat(count, count))])
