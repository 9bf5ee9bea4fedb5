"""Choose a head's penalty by cross-validation on the training images, and fit it on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.cores import free_memory
from pipeline.errors import PipelineError
from pipeline.heads.cross_validation.candidates import (
    Fold,
    Scores,
    checked,
    class_scores,
    fit,
    out_of_fold,
)
from pipeline.heads.estimators.normalize import Normalized, Normalizer, Stacked
from pipeline.heads.linear import LinearHead, every_class
from pipeline.heads.metrics import fit_temperature, influence, score, softmax, standard_error
from pipeline.heads.registry import HEADS, HeadKind, Parameters

if TYPE_CHECKING:
    from pipeline.heads.cross_validation.linear_search import LinearSearch

#: How often a log-spaced grid may be extended by a decade beyond an edge that won.
EXTENSIONS = 3
#: Numbers of training features beyond which `linear` is chosen on a part, of so many rows.
LARGE, PART = 1 << 27, 50_000


@dataclass(frozen=True)
class Trial:
    """One candidate and what it scored.

    Attributes:
        parameters: of the estimator.
        score: of the pooled held-out predictions by `--select`, larger is better.
        log_loss: of the same predictions.
        spread: standard deviation of the folds' scores.
        folds: the folds' scores.
        temperature: what its scores are divided by to become logits.
        converged: whether the solver did, on every fold.
    """

    parameters: Parameters
    score: float
    log_loss: float
    spread: float
    folds: list[float]
    temperature: float
    converged: bool


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
        return softmax(class_scores(HEADS[self.name], self.estimator, x, classes), temperature)


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

    Raises:
        PipelineError: there are too many rows for this kind, or it refuses them.
    """
    began = time.perf_counter()
    kind = HEADS[name]
    _check_size(kind, len(train), features.shape[1])
    normalizer = Normalizer.fit(plan.normalize or kind.normalize, features, train)
    groups = np.arange(len(labels)) if group_ids is None else group_ids
    data = _Data(kind, normalizer, features, labels, classes, groups, plan, progress)
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
    if lost := sum(not trial.converged for trial in found.trials):
        notes = [*notes, f"{name}: the solver stopped before it converged at {lost} candidates."]
    return SearchResult(
        name, chosen, found.trials, normalizer, linear, found.estimator, found.held, notes,
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

    def evaluation(self, rows: np.ndarray, folds: Sequence[Fold]) -> _Evaluation:
        """Return an empty list of trials on folds of rows, numbered as among `rows`."""
        labels, groups = self.labels[rows], self.group_ids[rows]
        return _Evaluation(self.kind, self.plan.select, labels, folds, groups, self.progress)

    def choose(self, evaluation: _Evaluation) -> Trial:
        """Return the best of the kind's candidates."""
        grid = self.plan.grid
        return evaluation.choose(self.kind.candidates(grid), refine=self.kind.refine and not grid)


class _Choice(NamedTuple):
    """A chosen trial, fitted on all training rows: W and b, or an estimator."""

    trial: Trial
    trials: list[Trial]
    held: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    weights: tuple[np.ndarray, np.ndarray] | None = None
    estimator: Any = None
    notes: list[str] = []  # noqa: RUF012  # never changed


def _numbered(train: np.ndarray, folds: Sequence[Fold]) -> tuple[np.ndarray, list[Fold]]:
    """Return all rows that are used, ascending, and the folds by their places among these."""
    used = np.unique(np.concatenate([train, *(held for _, held in folds)]))
    return used, [(np.searchsorted(used, a), np.searchsorted(used, b)) for a, b in folds]


def _of(used: np.ndarray, evaluation: _Evaluation) -> Any:
    """Return what an evaluation held out, by rows of the features."""
    if evaluation.held is None:
        return None
    logits, labels, rows = evaluation.held
    return logits, labels, used[rows]


def _choose_estimator(name: str, data: _Data, train: np.ndarray, folds: Sequence[Fold]) -> _Choice:
    kind, plan = data.kind, data.plan
    assert kind.make is not None
    used, parts = _numbered(train, folds)
    x, y = data.normalizer.apply(data.features, used), data.labels[used]
    evaluation = data.evaluation(used, parts)
    evaluation.out_of_fold = partial(
        out_of_fold, name, features=x, labels=y, folds=parts, classes=data.classes,
        balanced=plan.balanced, seed=plan.seed, jobs=plan.jobs,
    )  # fmt: skip
    chosen = data.choose(evaluation)
    estimator, inside = kind.make(plan.seed, plan.balanced), np.searchsorted(used, train)
    fit(estimator, chosen.parameters, x[inside] if len(inside) < len(x) else x, y[inside])
    trials, held = evaluation.trials, _of(used, evaluation)
    if kind.linear is None:
        return _Choice(chosen, trials, held, estimator=estimator)
    weights = every_class(*kind.linear(estimator), estimator.classes_, data.classes)
    return _Choice(chosen, trials, held, weights)


def _linear_search(
    data: _Data, train: np.ndarray, folds: Sequence[Fold], start: Any = None
) -> tuple[LinearSearch, _Evaluation, np.ndarray]:
    from pipeline.heads.cross_validation.linear_search import LinearSearch

    used, parts = _numbered(train, folds)
    evaluation = data.evaluation(used, parts)
    rows = Normalized(data.normalizer, data.features, used)  # read in turn, never copied whole
    solver = LinearSearch(
        rows, data.labels[used], parts, data.classes, balanced=data.plan.balanced, start=start,
        progress=evaluation.tell_solved,
    )  # fmt: skip
    evaluation.out_of_fold = solver.out_of_fold
    return solver, evaluation, used


def _choose_linear(data: _Data, train: np.ndarray, folds: Sequence[Fold]) -> _Choice:
    solver, evaluation, used = _linear_search(data, train, folds)
    chosen = data.choose(evaluation)
    weights = solver.fit(chosen.parameters)
    return _Choice(chosen, evaluation.trials, _of(used, evaluation), weights)


def _choose_large_linear(data: _Data, train: np.ndarray, folds: Sequence[Fold]) -> _Choice:
    """Choose on a stratified part, check with the neighbouring penalties on all, fit on all.

    The first fold is what is held out, and the part lies within it and outside it. Each step
    starts from the solution of the one before.
    """
    fitted, held = folds[0]
    most = PART // 5
    part = _stratified(data.labels, fitted, 4 * most), _stratified(data.labels, held, most)
    solver, first, _ = _linear_search(data, part[0], [part])
    chosen = data.choose(first)
    place, trials = first.trials.index(chosen), first.trials
    near = [trial.parameters for trial in trials[max(0, place - 1) : place + 2]]
    solver, check, used = _linear_search(
        data, fitted, [(fitted, part[1])], solver.fit(chosen.parameters)
    )
    best = check.choose(near, refine=False)
    solver, *_ = _linear_search(data, train, [], solver.fit(best.parameters))
    by_penalty = {trial.parameters["C"]: trial for trial in [*trials, *check.trials]}
    note = (
        f"linear: the penalties were tried on {len(part[0]):,} images and scored on "
        f"{len(part[1]):,} others; C = {chosen.parameters['C']:.3g} and its neighbours were then "
        f"fitted on {len(fitted):,} images, and C = {best.parameters['C']:.3g} on all."
    )
    ordered = [by_penalty[C] for C in sorted(by_penalty)]
    return _Choice(best, ordered, _of(used, check), solver.fit(best.parameters), notes=[note])


def _stratified(labels: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most about `most` of the rows, ascending, in every class the same share."""
    order = np.random.default_rng(0).permutation(rows)
    order = order[np.argsort(labels[order], kind="stable")]
    _, first, count = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, count)
    share = min(1.0, most / len(rows))
    return np.sort(order[rank < np.ceil(share * np.repeat(count, count))])


class _Evaluation:
    """The trials of one search: scores candidates, and chooses among them.

    Args:
        kind: of head.
        select: one of `metrics.SELECTIONS`.
        y: labels [n].
        folds: (rows to fit on, rows to score).
        group_ids: [n] int64: images of a group are one draw.
        progress: called with the parameters and the best score so far; or None.

    Attributes:
        out_of_fold: candidates → (candidate, fold, scores of its rows, converged), in any order.
        trials: every candidate, from simple to complex.
        held: logits [m, K] of the chosen trial's scored rows, their labels [m], and which of the
            n rows these are.
    """

    out_of_fold: Callable[[Sequence[Parameters]], Scores]

    def __init__(
        self,
        kind: HeadKind,
        select: str,
        y: np.ndarray,
        folds: Sequence[Fold],
        group_ids: np.ndarray,
        progress: Callable[[Parameters, float], None] | None,
    ):
        self.kind, self.select, self.folds, self.progress = kind, select, folds, progress
        self.labels = [y[held] for _, held in folds]
        self.rows = np.concatenate([np.zeros(0, np.int64), *(held for _, held in folds)])
        self.group_ids = group_ids[self.rows]
        self.trials: list[Trial] = []
        self.held: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._held: dict[int, _Held] = {}  # a trial's id → what it scored

    @property
    def best(self) -> Trial:
        """Return the trial to choose.

        That with the highest score; where others are within one paired standard error of it, the
        one of the lowest log-loss among these, and of several such the simplest. A trial that did
        not converge is never chosen over one that did.
        """
        pool = [trial for trial in self.trials if trial.converged] or self.trials
        top = max(pool, key=lambda trial: trial.score)
        own = self._held[id(top)].influence

        def tie(trial: Trial) -> bool:
            error = standard_error(own - self._held[id(trial)].influence, self.group_ids)
            return top.score - trial.score <= error * (1 + 1e-9)  # one image is one standard error

        return min((trial for trial in pool if tie(trial)), key=lambda trial: trial.log_loss)

    def tell_solved(self, solved: int, penalties: int) -> None:
        """Tell how many of a path's penalties are solved."""
        if self.progress:
            best = max((trial.score for trial in self.trials), default=0.0)
            self.progress({"solved": solved, "penalties": penalties}, best)

    def choose(self, candidates: Sequence[Parameters], *, refine: bool) -> Trial:
        """Return the best of the candidates.

        Without folds the middle one is taken untried.
        """
        if not self.folds:
            middle = candidates[len(candidates) // 2]
            nan = float("nan")
            self.trials = [Trial(middle, nan, nan, 0.0, [], 1.0, True)]
            return self.trials[0]
        self._try(candidates)
        if refine:
            self._refine()
        best = self.best
        logits = self._held[id(best)].scores / np.float32(best.temperature)
        self.held = logits, np.concatenate(self.labels), self.rows
        return best

    def _try(self, candidates: Sequence[Parameters]) -> None:
        """Score candidates and enter them, in the grid's order from simple to complex."""
        arrived: dict[int, dict[int, np.ndarray]] = {}
        converged = dict.fromkeys(range(len(candidates)), True)
        with closing(self.out_of_fold(candidates)) as results:
            for number, fold, scores, good in results:
                arrived.setdefault(number, {})[fold] = scores
                converged[number] &= good
                if len(arrived[number]) == len(self.folds):
                    self._enter(candidates[number], arrived.pop(number), converged[number])
        parameter = self.kind.parameter
        if parameter is not None and self.kind.refine:
            falling = self.kind.grid[0] > self.kind.grid[-1]  # type: ignore[operator]
            self.trials.sort(key=lambda t: t.parameters[parameter], reverse=falling)

    def _enter(self, parameters: Parameters, scores: dict[int, np.ndarray], good: bool) -> None:
        by_fold = [scores[fold] for fold in range(len(self.folds))]
        pooled, labels = np.concatenate(by_fold), np.concatenate(self.labels)
        temperature = 1.0
        if not (self.kind.log_loss or self.kind.probabilities):
            temperature = fit_temperature(pooled, labels)
        probabilities = softmax(pooled, temperature)
        each = [
            score(self.select, own, softmax(values, temperature))
            for own, values in zip(self.labels, by_fold, strict=True)
        ]
        trial = Trial(
            parameters, score(self.select, labels, probabilities),
            -score("log-loss", labels, probabilities), float(np.std(each)), each, temperature, good,
        )  # fmt: skip
        self.trials.append(trial)
        self._held[id(trial)] = _Held(pooled, influence(self.select, labels, probabilities))
        if self.progress:
            self.progress(parameters, max(trial.score for trial in self.trials))

    def _refine(self) -> None:
        """Go a decade beyond an edge that won, then between the best and its neighbours."""
        parameter = self.kind.parameter
        assert parameter is not None
        for _ in range(EXTENSIONS):
            values = [trial.parameters[parameter] for trial in self.trials]
            place = self.trials.index(self.best)
            if place not in (0, len(values) - 1):
                break
            edge, inner = values[:2] if place == 0 else values[:-3:-1]
            self._try(
                [{**self.best.parameters, parameter: edge * 10 if edge > inner else edge / 10}]
            )
        values = [trial.parameters[parameter] for trial in self.trials]
        place = self.trials.index(self.best)
        around = [*values[max(0, place - 1) : place], *values[place + 1 : place + 2]]
        middles = sorted(float(np.sqrt(value * values[place])) for value in around)
        self._try([{**self.best.parameters, parameter: value} for value in middles])


class _Held(NamedTuple):
    """What a trial gave the held-out rows: scores [m, K], and what each row adds to its score."""

    scores: np.ndarray
    influence: np.ndarray
