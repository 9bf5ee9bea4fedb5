"""Choose a head's penalty by cross-validation on the training images, and fit it on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads.cross_validation.candidates import Fold, checked, class_scores, fit, out_of_fold
from pipeline.heads.estimators.normalize import Normalizer
from pipeline.heads.estimators.stacked import Stacked
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
class Found:
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
    progress: Callable[[str, Parameters, float], None] | None = None,
) -> Found:
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
        progress: called with the name, the parameters and the best score so far.
    """
    began = time.perf_counter()
    kind = HEADS[name]
    if kind.most is not None and len(train) > kind.most:
        raise PipelineError(
            f"it compares all pairs of training images, and {len(train):,} are more than "
            f"{kind.most:,}; give --train-fraction."
        )
    normalizer = Normalizer.fit(plan.normalize or kind.normalize, features, train)
    scored = np.unique(np.concatenate([held for _, held in folds])) if folds else train[:0]
    used = np.union1d(train, scored)
    y = labels[used]
    # the sweep reads rows in turn and needs no copy of all
    read = normalizer.apply if kind.make is not None else normalizer.view
    x: Any = read(features, used)
    here = [(np.searchsorted(used, a), np.searchsorted(used, b)) for a, b in folds]
    evaluate = _Evaluation(name, kind, x, y, here, classes, plan, progress)
    if folds:
        evaluate.run(kind.candidates(plan.grid))
        if kind.refine and plan.grid is None:
            evaluate.refine()
        chosen = evaluate.choose()
    else:
        candidates = kind.candidates(plan.grid)
        nothing = Trial(candidates[len(candidates) // 2], float("nan"), 0.0, [], 1.0, True)
        evaluate.trials, chosen = [nothing], nothing
    found = Found(name, chosen, evaluate.trials, normalizer, held=evaluate.chosen_held)
    inside = np.searchsorted(used, train)
    if evaluate.solver is not None:
        weight, bias = evaluate.solver.fit(chosen.parameters)
        found.linear = _fold(found, weight, bias)
    else:
        _fit_final(found, kind, x[inside] if len(inside) < len(x) else x, y[inside], classes, plan)
    lost = sum(not trial.converged for trial in found.trials)
    if lost:
        found.notes.append(f"{name}: the solver stopped before it converged at {lost} candidates.")
    found.seconds = time.perf_counter() - began
    return found


class _Evaluation:
    """The trials of one search: scores candidates, keeps the best one's held-out scores."""

    def __init__(
        self,
        name: str,
        kind: HeadKind,
        x: Any,  # [n, D], an array or for `linear` `Normalized`
        y: np.ndarray,
        folds: Sequence[Fold],
        classes: int,
        plan: Plan,
        progress: Callable[[str, Parameters, float], None] | None,
    ):
        self.name, self.kind, self.x, self.y = name, kind, x, y
        self.folds, self.classes, self.plan = folds, classes, plan
        self.progress = progress
        self.trials: list[Trial] = []
        self.solver = None
        if kind.make is None:
            from pipeline.heads.estimators.torch_linear import LinearSearch

            self.solver = LinearSearch(x, y, folds, classes, plan.balanced, self._tell)
        self._held: dict[int, np.ndarray] = {}  # a leading trial's id → its held-out scores
        self.chosen_held: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def best(self) -> Trial:
        """Return the trial with the highest score; ties go to the simplest."""
        return max(self.trials, key=lambda trial: trial.score)

    def run(self, candidates: Sequence[Parameters]) -> None:
        """Score candidates and enter them, in the grid's order from simple to complex."""
        arrived: dict[int, dict[int, np.ndarray]] = {}
        converged = dict.fromkeys(range(len(candidates)), True)
        with closing(self._scores(candidates)) as results:
            for number, fold, scores, good in results:
                arrived.setdefault(number, {})[fold] = scores
                converged[number] &= good
                if len(arrived[number]) == len(self.folds):
                    self._enter(candidates[number], arrived.pop(number), converged[number])
        parameter = self.kind.parameter
        if parameter is not None and self.kind.refine:
            falling = self.kind.grid[0] > self.kind.grid[-1]  # type: ignore[operator]
            self.trials.sort(key=lambda t: t.parameters[parameter], reverse=falling)

    def _tell(self, solved: int, problems: int) -> None:
        if self.progress:
            best = self.best.score if self.trials else 0.0
            self.progress(self.name, {"solved": solved, "problems": problems}, best)

    def _scores(self, candidates: Sequence[Parameters]) -> Any:
        if self.solver is not None:
            return self.solver.out_of_fold(candidates)
        return out_of_fold(
            self.name, candidates, self.x, self.y, self.folds, classes=self.classes,
            balanced=self.plan.balanced, seed=self.plan.seed, jobs=self.plan.jobs,
        )  # fmt: skip

    def _enter(self, parameters: Parameters, scores: dict[int, np.ndarray], good: bool) -> None:
        rows = np.concatenate([held for _, held in self.folds])
        pooled = np.concatenate([scores[fold] for fold in range(len(self.folds))])
        # the order of the classes, and so every measure but the log-loss, needs no temperature
        temperature = self._temperature(pooled) if self.plan.select == "log-loss" else 1.0
        each = [
            score(self.plan.select, self.y[held], softmax(scores[fold], temperature))
            for fold, (_, held) in enumerate(self.folds)
        ]
        total = score(self.plan.select, self.y[rows], softmax(pooled, temperature))
        trial = Trial(parameters, total, float(np.std(each)), each, temperature, good)
        self.trials.append(trial)
        self._held[id(trial)] = pooled
        leading = {id(t) for t in self.trials if t.score >= self.best.score}
        self._held = {key: held for key, held in self._held.items() if key in leading}
        if self.progress:
            self.progress(self.name, parameters, self.best.score)

    def _temperature(self, pooled: np.ndarray) -> float:
        if self.kind.log_loss or self.kind.probabilities:
            return 1.0
        rows = np.concatenate([held for _, held in self.folds])
        return fit_temperature(pooled, self.y[rows])

    def choose(self) -> Trial:
        """Return the best trial, its temperature fitted on what it scored on held-out rows."""
        place = self.trials.index(self.best)
        best, held = self.trials[place], self._held[id(self.trials[place])]
        chosen = self.trials[place] = replace(best, temperature=self._temperature(held))
        rows = np.concatenate([scored for _, scored in self.folds])
        self.chosen_held = held / np.float32(chosen.temperature), self.y[rows]
        return chosen

    def refine(self) -> None:
        """Go a decade beyond an edge that won, then between the best and its neighbours."""
        parameter = self.kind.parameter
        assert parameter is not None

        def values() -> list[float]:
            return [trial.parameters[parameter] for trial in self.trials]

        for _ in range(EXTENSIONS):
            place = self.trials.index(self.best)
            if place not in (0, len(self.trials) - 1):
                break
            edge, inner = (values()[i] for i in ((0, 1) if place == 0 else (-1, -2)))
            beyond = edge * 10 if edge > inner else edge / 10
            self.run([{**self.best.parameters, parameter: beyond}])
        place = self.trials.index(self.best)
        around = [v for v in values()[max(0, place - 1) : place + 2] if v != values()[place]]
        middles = [float(np.sqrt(value * values()[place])) for value in around]
        self.run([{**self.best.parameters, parameter: value} for value in sorted(middles)])


def _fit_final(
    found: Found, kind: HeadKind, x: np.ndarray, y: np.ndarray, classes: int, plan: Plan
) -> None:
    assert kind.make is not None
    estimator = kind.make(plan.seed, plan.balanced)
    fit(estimator, found.chosen.parameters, x, y)
    if kind.linear is None:
        found.estimator = estimator
        return
    weight, bias = every_class(*kind.linear(estimator), estimator.classes_, classes)
    found.linear = _fold(found, weight, bias)


def _fold(found: Found, weight: np.ndarray, bias: np.ndarray) -> LinearHead:
    """Return the head in the space of raw features."""
    normalizer = found.normalizer
    return LinearHead.fold(
        weight,
        bias,
        mean=normalizer.mean,
        scale=normalizer.scale,
        l2=normalizer.kind == "l2",
        temperature=found.chosen.temperature,
    )
