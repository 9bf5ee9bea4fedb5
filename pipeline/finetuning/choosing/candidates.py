"""Several recipes on the same activations: two rungs, the winner, and what decides about it.

All recipes are tried at a short schedule and the best two at a long one, each down to a small rate
before it is compared, since bold ones look worst in the middle. Where few images choose, the winner
is then trained on folds of train, whose held-out predictions decide between it and the head, and
once on all of train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.finetuning.bench import Bench
from pipeline.finetuning.choosing.budget import (
    FINALISTS,
    SOME,
    Cost,
    Plan,
    last_rung,
    needed,
    plan_for,
)
from pipeline.finetuning.choosing.journal import Journal
from pipeline.finetuning.choosing.recipes import FIRST, RECIPES
from pipeline.finetuning.choosing.runs import Runs, Trained
from pipeline.finetuning.choosing.verdict import Verdict, tempered_loss
from pipeline.finetuning.outcome import Outcome
from pipeline.finetuning.prepare import Handover
from pipeline.finetuning.task import Task, class_weights
from pipeline.finetuning.training import Diverged
from pipeline.heads import metrics
from pipeline.heads.task import make_folds
from pipeline.heads.uncertainty import draws, mean_error
from pipeline.images.names import counted


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate, and what it scores.

    Attributes:
        trained: its network.
        logits: of the images that choose, [n, K].
        log_loss: of these, divided by the temperature that suits them best.
    """

    trained: Trained
    logits: np.ndarray
    log_loss: float


class Candidates:
    """The search for the recipe that suits the data, and what decides about it.

    Args:
        bench: what trainings share.
        handover: how exactly the head was carried over.
        budget: seconds.
        used: whether images that choose a recipe have chosen something already.

    Raises:
        DamagedError: an unfinished run is to be gone on with, and its plan cannot be read.
    """

    def __init__(
        self, bench: Bench, handover: Handover | None, budget: float, *, used: bool = False
    ):
        self.bench, self.task = bench, bench.task
        path = bench.state(suffix=".json")
        resume = bench.task.options.resume
        self.journal = Journal.open(path, budget, resume=resume, progress=bench.progress)
        self.runs = Runs(bench, self.journal, handover)
        self.plan = self._plan(used=used)
        self.choosing, deciding = bench.task.select, None
        if self.plan.decides == "half":
            self.choosing, deciding = _halves(bench.task)
        self.verdict = Verdict(bench, self.runs, self.journal, self.choosing, deciding)
        self.best: Trial | None = None

    def outcome(self) -> Outcome:
        """Try recipes within the budget, decide, and return what is kept.

        A KeyboardInterrupt leaves the best whole candidate to `early`.
        """
        plan = self.plan
        tried = self._rung(plan.recipes, plan.short or plan.long, plan)
        if plan.short and tried:
            tried = self._finals(plan, tried)
        if not tried:
            self.bench.notes.append("No recipe kept its loss finite: the head stays best.")
            return self.verdict.head_stays()
        winner = self._winner(tried)
        cost = self._cost(winner)
        self.bench.progress.say(
            f"Recipe {winner.recipe}: deciding between it and the head, "
            f"{self._left(cost.deciding(winner.epochs, plan.decides))}."
        )
        return self.verdict.of(winner, cost, by=plan.decides)

    def early(self) -> Outcome:
        """Return what can be said of the best whole candidate of a run that was ended early."""
        found = self.verdict.early(None if self.best is None else self.best.trained)
        return replace(found, finished=False)

    def _plan(self, *, used: bool) -> Plan:
        """Return what to try, as an unfinished run had it, and tell it."""
        plan, budget = self.journal.plan, self.journal.budget
        if plan is None:
            several = len(self.bench.network.cut.places) > 1
            # with one stage unfrozen there is none that learns more slowly
            able = [one for one in FIRST if several or RECIPES[one].layer_decay == 1]
            plan = plan_for(self._cost_of(*self.runs.time_a_step()), budget, able, used=used)
            self._settle(plan, settled=not plan.short)
        short = f"{counted(plan.short, 'epoch')}, the best {FINALISTS} for " if plan.short else ""
        least = "" if plan.seconds <= budget else ", the least there is"
        self.bench.progress.say(
            f"Trying {', '.join(plan.recipes)} for {short}{counted(plan.long, 'epoch')}: about "
            f"{minutes(plan.seconds)} of a budget of {minutes(budget)}{least}."
        )
        if self.bench.settings.views != self.runs.settings_of(plan.recipes[0], plan.long).views:
            self.bench.notes.append(
                f"In {counted(plan.long, 'epoch')} no image is seen often enough to be learned by "
                "heart: the evaluation views alone were drawn."
            )
        return plan

    def _settle(self, plan: Plan, *, settled: bool) -> None:
        self.journal.plan, self.journal.settled = plan, settled
        self.journal.write()

    def _finals(self, plan: Plan, tried: list[Trial]) -> list[Trial]:
        """Try the best of the first rung for longer, as the time allows that it left."""
        if not self.journal.settled:
            cost = self._cost(max(tried, key=lambda trial: trial.trained.seconds).trained)
            long = last_rung(plan, cost, self.journal.left)
            if 0 < long < plan.long:
                self.bench.notes.append(
                    f"The first rung took longer than planned: the last one has "
                    f"{counted(long, 'epoch')} and not {plan.long}."
                )
            plan = replace(plan, long=long)
            self._settle(plan, settled=True)
        first = sorted(tried, key=lambda trial: trial.log_loss)[:FINALISTS]
        if not plan.long:
            self.bench.notes.append("The budget had no time for a last rung of longer schedules.")
            return tried
        best = {trial.trained.recipe for trial in first}
        names = [name for name in RECIPES if name in best]
        return self._rung(names, plan.long, replace(plan, short=0)) or first

    def _rung(self, names: Sequence[str], count: int, plan: Plan) -> list[Trial]:
        """Return the recipes' candidates that kept their loss finite, as far as time allows."""
        tried: list[Trial] = []
        for number, name in enumerate(names):
            told = f"{name}, {counted(count, 'epoch')}"
            if tried and self.journal.left < 0:
                self.bench.notes.append(
                    f"The budget was spent: {', '.join(names[number:])} were not tried for "
                    f"{counted(count, 'epoch')}."
                )
                break
            try:
                trained = self.runs.train(
                    name, count, told, train=self.task.train, select=self.choosing
                )
            except Diverged:
                self.bench.notes.append(f"The recipe {name} was given up: its loss was not finite.")
                continue
            trial = self._scored(trained)
            tried.append(trial)
            if self.best is None or trial.log_loss < self.best.log_loss:
                self.best = trial
            done = {"tried" if plan.short else "finals": number + 1}
            right = trial.logits.argmax(1) == self.task.table.labels[self.choosing]
            self.bench.progress.say(
                f"{told}: log-loss {trial.log_loss:.4f} ({right.mean():.3f}), "
                f"{count * trained.seconds:.0f} s; "
                f"{self._left(needed(self._cost(trained), plan, **done))}"
            )
        return tried

    def _left(self, seconds: float) -> str:
        """Return how long so many seconds of work will take: no longer than the budget lasts."""
        left = max(0.0, self.journal.left)
        if seconds <= left:
            return f"about {minutes(seconds)} left"
        return f"{minutes(left)} of the budget left, for what would take about {minutes(seconds)}"

    def _scored(self, trained: Trained) -> Trial:
        logits = self.runs.logits(trained.tensors, self.choosing)
        weights = class_weights(self.task, self.task.train)
        labels = self.task.table.labels[self.choosing]
        return Trial(trained, logits, tempered_loss(logits, labels, weights))

    def _winner(self, tried: list[Trial]) -> Trained:
        """Return the gentlest of those within a standard error of the best."""
        labels = self.task.table.labels[self.choosing]
        weights = class_weights(self.task, self.task.train)

        def losses(trial: Trial) -> np.ndarray:
            own = metrics.softmax(metrics.tempered(trial.logits, labels))
            return metrics.losses(labels, own, weights)

        best = min(tried, key=lambda trial: trial.log_loss)
        groups = draws(self.task.table.groups_of(self.choosing))
        for trial in tried:  # from gentle to bold
            behind = losses(trial) - losses(best)
            if behind.mean() <= mean_error(behind, groups):
                return trial.trained
        return best.trained

    def _cost(self, trained: Trained) -> Cost:
        """Return what steps cost, from a candidate's own."""
        images = len(self.task.train) + len(self.task.select) / 3
        step = trained.seconds / images
        return self._cost_of(step, step / 3)

    def _cost_of(self, step: float, score: float) -> Cost:
        task = self.task
        return Cost(
            len(task.train), len(task.select), len(task.learners), step, score,
            self.bench.settings.batch_size,
        )  # fmt: skip


def choosing_rows(task: Task) -> np.ndarray:
    """Return rows of the table that may choose whatever decides later."""
    return _halves(task)[0] if len(task.select) >= SOME else task.select


def _halves(task: Task) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows that choose and those that decide; None where they cannot be parted."""
    labels, groups = task.table.labels[task.select], task.group_ids[task.select]
    for choosing, deciding in make_folds(task.select, labels, groups, count=2, seed=0)[:1]:
        return choosing, deciding
    return task.select, None


def minutes(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min" if seconds < 600 else f"{seconds / 60:.0f} min"
