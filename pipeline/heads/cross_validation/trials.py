"""The trials of a search: what candidates scored on held-out rows, and which of them is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.heads.cross_validation.candidates import Fold, Scores
from pipeline.heads.metrics import fit_temperature, influence, score, softmax
from pipeline.heads.registry import HeadKind, Parameters
from pipeline.heads.uncertainty import standard_error

#: How often a log-spaced grid may be extended by a decade beyond an edge that won.
EXTENSIONS = 3
#: It is not where the log-loss is flat: it fell by less than this to the edge.
FLAT = 1e-4


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


class _Held(NamedTuple):
    """What a trial gave the held-out rows: scores [m, K], and what each row adds to its score."""

    scores: np.ndarray
    influence: np.ndarray


class Trials:
    """The trials of one search: scores candidates, and chooses among them.

    Args:
        kind: of head.
        select: one of `metrics.SELECTIONS`.
        labels: [N] int64.
        folds: (rows to fit on, rows to score).
        group_ids: [N] int64: images of a group are one draw.
        progress: called with the parameters and the best score so far; or None.

    Attributes:
        out_of_fold: candidates → (candidate, fold, scores of its rows, converged), in any order.
        all: every candidate, from simple to complex.
        held: logits [m, K] of the chosen trial's scored rows, their labels [m], and which of the
            N rows these are; None where nothing was held out.
    """

    out_of_fold: Callable[[Sequence[Parameters]], Scores]

    def __init__(
        self,
        kind: HeadKind,
        select: str,
        labels: np.ndarray,
        folds: Sequence[Fold],
        group_ids: np.ndarray,
        progress: Callable[[Parameters, float], None] | None,
    ):
        self.kind, self.select, self.folds, self.progress = kind, select, folds, progress
        self.labels = [labels[held] for _, held in folds]
        self.rows = np.concatenate([np.zeros(0, np.int64), *(held for _, held in folds)])
        self.group_ids = group_ids[self.rows]
        self.all: list[Trial] = []
        self.held: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._held: dict[int, _Held] = {}  # a trial's id → what it scored

    @property
    def best(self) -> Trial:
        """Return the trial to choose.

        That with the highest score; where others are within one paired standard error of it, the
        one of the lowest log-loss among these, and of several such the simplest. A trial that did
        not converge is never chosen over one that did.
        """
        pool = [trial for trial in self.all if trial.converged] or self.all
        top = max(pool, key=lambda trial: trial.score)
        own = self._held[id(top)].influence

        def tie(trial: Trial) -> bool:
            error = standard_error(own - self._held[id(trial)].influence, self.group_ids)
            return top.score - trial.score <= error * (1 + 1e-9)  # one image is one standard error

        return min((trial for trial in pool if tie(trial)), key=lambda trial: trial.log_loss)

    def tell_solved(self, solved: int, penalties: int) -> None:
        """Tell how many of a path's penalties are solved."""
        if self.progress:
            best = max((trial.score for trial in self.all), default=0.0)
            self.progress({"solved": solved, "penalties": penalties}, best)

    def choose(self, candidates: Sequence[Parameters], *, refine: bool) -> Trial:
        """Return the best of the candidates.

        Without folds the middle one is taken untried.
        """
        if not self.folds:
            middle = candidates[len(candidates) // 2]
            nan = float("nan")
            self.all = [Trial(middle, nan, nan, 0.0, [], 1.0, True)]
            return self.all[0]
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
            self.all.sort(key=lambda t: t.parameters[parameter], reverse=falling)

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
        self.all.append(trial)
        self._held[id(trial)] = _Held(pooled, influence(self.select, labels, probabilities))
        if self.progress:
            self.progress(parameters, max(trial.score for trial in self.all))

    def _refine(self) -> None:
        """Go a decade beyond an edge that won, then between the best and its neighbours."""
        parameter = self.kind.parameter
        assert parameter is not None
        for _ in range(EXTENSIONS):
            values = [trial.parameters[parameter] for trial in self.all]
            place = self.all.index(self.best)
            if place not in (0, len(values) - 1):
                break
            edge, inner = values[:2] if place == 0 else values[:-3:-1]
            before = self.all[values.index(inner)]
            if self.best.score <= before.score and self.best.log_loss > before.log_loss - FLAT:
                break
            self._try(
                [{**self.best.parameters, parameter: edge * 10 if edge > inner else edge / 10}]
            )
        values = [trial.parameters[parameter] for trial in self.all]
        place = self.all.index(self.best)
        around = [*values[max(0, place - 1) : place], *values[place + 1 : place + 2]]
        middles = sorted(float(np.sqrt(value * values[place])) for value in around)
        self._try([{**self.best.parameters, parameter: value} for value in middles])
