"""Choose a head's penalty by cross-validation on the training images, and fit it on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

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
from pipeline.heads.metrics import fit_temperature, score, softmax
from pipeline.heads.registry import HEADS, HeadKind, Parameters

#: How often a log-spaced grid may be extended by a decade beyond an edge that won.
EXTENSIONS = 3


@dataclass(frozen=True)
class Trial:
    """One candidate and what it scored.

    Attributes:
        parameters: of the estimator.
        score: of the pooled held-out predictions by `--select`, larger is better.
        spread: standard deviation of the folds' scores.
        folds: the folds' scores.
        temperature: what its scores are divided by to become logits; 1 for a trial that was
            neither chosen nor compared by log-loss.
        converged: whether the solver did, on every fold.
    """

    parameters: Parameters
    score: float
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
        held: logits [n, K] of the chosen trial for images that it was not fitted on, and their
            labels [n]; None where nothing was held out.
        notes: sentences for the person.
        seconds: search and final fit.
    """

    name: str
    chosen: Trial
    trials: list[Trial]
    normalizer: Normalizer
    linear: LinearHead | None = None
    estimator: Any = None
    held: tuple[np.ndarray, np.ndarray] | None = None
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
    progress: Callable[[Parameters, float], None] | None = None,
) -> SearchResult:
    """Return the head of a kind that scores best on held-out rows, fitted on all of `train`.

    Args:
        name: of `HEADS`.
        features: [N, D] float32, raw; only rows named in `train` and `folds` are read.
        labels: [N] int64 in [0, classes).
        classes: K.
        train: rows to fit the final head and the normaliser on.
        folds: (rows to fit on, rows to score), rows of `features`; a row that is never scored
            (a view) is missing from one fold. Without any, the middle of the grid is taken
            untried.
        plan: how to choose.
        progress: called with the parameters and the best score so far.
    """
    began = time.perf_counter()
    kind = HEADS[name]
    if kind.most is not None and len(train) > kind.most:
        raise PipelineError(
            f"it compares all pairs of training images, and {len(train):,} are more than "
            f"{kind.most:,}; give --train-fraction."
        )
    normalizer = Normalizer.fit(plan.normalize or kind.normalize, features, train)
    used = np.unique(np.concatenate([train, *(held for _, held in folds)]))
    y, inside = labels[used], np.searchsorted(used, train)
    parts = [(np.searchsorted(used, a), np.searchsorted(used, b)) for a, b in folds]
    evaluation = _Evaluation(kind, plan.select, y, parts, progress)
    if kind.make is None:
        from pipeline.heads.cross_validation.linear_search import LinearSearch

        # the sweep reads rows in turn and needs no copy of all
        x: Any = Normalized(normalizer, features, used)
        solver = LinearSearch(x, y, parts, classes, plan.balanced, evaluation.tell_solved)
        evaluation.out_of_fold = solver.out_of_fold
    else:
        x = normalizer.apply(features, used)
        evaluation.out_of_fold = partial(
            out_of_fold, name, features=x, labels=y, folds=parts, classes=classes,
            balanced=plan.balanced, seed=plan.seed, jobs=plan.jobs,
        )  # fmt: skip
    chosen = evaluation.choose(kind.candidates(plan.grid), refine=kind.refine and plan.grid is None)
    result = SearchResult(name, chosen, evaluation.trials, normalizer, held=evaluation.held)
    if kind.make is None:
        weights = solver.fit(chosen.parameters)
    else:
        estimator = kind.make(plan.seed, plan.balanced)
        fit(estimator, chosen.parameters, x[inside] if len(inside) < len(x) else x, y[inside])
        if kind.linear is None:
            result.estimator = estimator
        else:
            weights = every_class(*kind.linear(estimator), estimator.classes_, classes)
    if result.estimator is None:
        result.linear = LinearHead.fold(
            *weights, mean=normalizer.mean, scale=normalizer.scale, l2=normalizer.kind == "l2",
            temperature=chosen.temperature,
        )  # fmt: skip
    lost = sum(not trial.converged for trial in result.trials)
    if lost:
        result.notes.append(f"{name}: the solver stopped before it converged at {lost} candidates.")
    result.seconds = time.perf_counter() - began
    return result


class _Evaluation:
    """The trials of one search: scores candidates, keeps the best one's held-out scores.

    Args:
        kind: of head.
        select: one of `metrics.SELECTIONS`.
        y: labels [n].
        folds: (rows to fit on, rows to score).
        progress: called with the parameters and the best score so far; or None.

    Attributes:
        out_of_fold: candidates → (candidate, fold, scores of its rows, converged), in any order.
        trials: every candidate, from simple to complex.
        held: logits [n, K] and labels [n] of the chosen trial's scored rows.
    """

    out_of_fold: Callable[[Sequence[Parameters]], Scores]

    def __init__(
        self,
        kind: HeadKind,
        select: str,
        y: np.ndarray,
        folds: Sequence[Fold],
        progress: Callable[[Parameters, float], None] | None,
    ):
        self.kind, self.select, self.folds, self.progress = kind, select, folds, progress
        self.labels = [y[held] for _, held in folds]
        self.trials: list[Trial] = []
        self.held: tuple[np.ndarray, np.ndarray] | None = None
        self._scores: dict[int, np.ndarray] = {}  # a leading trial's id → its held-out scores

    @property
    def best(self) -> Trial:
        """Return the trial with the highest score; ties go to the simplest."""
        return max(self.trials, key=lambda trial: trial.score)

    def tell_solved(self, solved: int, problems: int) -> None:
        """Tell how many of a sweep's problems are solved."""
        if self.progress:
            best = self.best.score if self.trials else 0.0
            self.progress({"solved": solved, "problems": problems}, best)

    def choose(self, candidates: Sequence[Parameters], *, refine: bool) -> Trial:
        """Return the best of the candidates, its temperature fitted on what it scored.

        Without folds the middle one is taken untried.
        """
        if not self.folds:
            middle = candidates[len(candidates) // 2]
            self.trials = [Trial(middle, float("nan"), 0.0, [], 1.0, True)]
            return self.trials[0]
        self._try(candidates)
        if refine:
            self._refine()
        best = self.best
        scores = self._scores[id(best)]
        chosen = replace(best, temperature=self._temperature(scores))
        self.trials[self.trials.index(best)] = chosen
        self.held = scores / np.float32(chosen.temperature), np.concatenate(self.labels)
        return chosen

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
        pooled = np.concatenate(by_fold)
        # the order of the classes, and so every measure but the log-loss, needs no temperature
        temperature = self._temperature(pooled) if self.select == "log-loss" else 1.0
        total, *each = (
            score(self.select, labels, softmax(values, temperature))
            for labels, values in zip(
                [np.concatenate(self.labels), *self.labels], [pooled, *by_fold], strict=True
            )
        )
        trial = Trial(parameters, total, float(np.std(each)), each, temperature, good)
        self.trials.append(trial)
        self._scores[id(trial)] = pooled
        leading = {id(t) for t in self.trials if t.score >= self.best.score}
        self._scores = {key: kept for key, kept in self._scores.items() if key in leading}
        if self.progress:
            self.progress(parameters, self.best.score)

    def _temperature(self, pooled: np.ndarray) -> float:
        if self.kind.log_loss or self.kind.probabilities:
            return 1.0
        return fit_temperature(pooled, np.concatenate(self.labels))

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
