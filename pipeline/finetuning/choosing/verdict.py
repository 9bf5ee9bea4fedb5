"""`Verdict`: whether the winner is better than the head, decided by images that did not choose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipeline.finetuning.bench import Bench
from pipeline.finetuning.choosing.budget import FOLDS, Cost
from pipeline.finetuning.choosing.decision import Decision, decide
from pipeline.finetuning.choosing.journal import Journal
from pipeline.finetuning.choosing.runs import Runs, Trained
from pipeline.finetuning.outcome import Outcome, Scored, head_logits
from pipeline.finetuning.task import class_weights, refit
from pipeline.finetuning.training import Diverged
from pipeline.heads import metrics
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.task import make_folds
from pipeline.heads.uncertainty import draws

#: Share of a fit's estimated seconds that must be left for it to begin.
ENOUGH = 0.8


@dataclass(frozen=True)
class Verdict:
    """What decides between head and model, and what is kept.

    Attributes:
        bench: what trainings share.
        runs: that train.
        journal: of the search: the time that is left.
        choosing: rows of the table that chose the recipe.
        deciding: rows that did not, and decide; None: folds of train do, or what would choose.
    """

    bench: Bench
    runs: Runs
    journal: Journal
    choosing: np.ndarray
    deciding: np.ndarray | None

    def of(self, winner: Trained, cost: Cost, *, by: str) -> Outcome:
        """Decide about the winner, as far as time allows, and return what is kept.

        Args:
            winner: of the search.
            cost: of its steps.
            by: what decides, as `Plan.decides` has it.
        """
        if by == "folds" and self.journal.left < ENOUGH * cost.fold(winner.epochs):
            self.bench.notes.append(
                "The budget had no time for folds of train to decide: the images that chose the "
                "recipe decided, too."
            )
            return self.early(winner)
        try:
            if self.deciding is not None:
                return self._on_half(winner, cost)
            return (self._on_folds if by == "folds" else self._on_choosing)(winner, cost)
        except Diverged:
            self.bench.notes.append(
                f"The recipe {winner.recipe} was given up: its loss was not finite."
            )
            return self.head_stays()

    def early(self, best: Trained | None) -> Outcome:
        """Return what can be said of the best candidate of a run that was ended early."""
        if best is None:
            return self.head_stays()
        if self.deciding is not None:
            return self._on_half(best, None)
        return self._on_choosing(best, None)

    def head_stays(self) -> Outcome:
        """Return the head alone, where there is no model to decide about."""
        task = self.bench.task
        rows, on = task.select, task.selects
        head = head_logits(self.bench.head, task, rows)
        start = dict(self.runs.start)
        nothing = Trained("", self.bench.settings, task.train, start, start, 0.0)
        decision = Decision(on, 0, 0.0, 0.0, 0.0, 0, 0)
        return self._made(nothing, self.bench.head, task.train, decision, rows, head, {})

    def _on_choosing(self, winner: Trained, cost: Cost | None) -> Outcome:
        """Decide by the images that choose, and train on all of train where there is a cost."""
        rows, task, runs = self.choosing, self.bench.task, self.runs
        before = head_logits(self.bench.head, task, rows)
        after = {share: runs.logits(runs.at(winner, share), rows) for share in winner.shares}
        decision = self._decide(task.selects, rows, before, after)
        winner, head, fitted = self._on_all(winner, decision, cost)
        return self._made(winner, head, fitted, decision, rows, before, after)

    def _on_half(self, winner: Trained, cost: Cost | None) -> Outcome:
        """Decide on the half of the images that chose nothing; the share is the choosing half's."""
        assert self.deciding is not None
        task, rows, runs = self.bench.task, self.deciding, self.runs
        labels = task.table.labels[self.choosing]
        weights = class_weights(task, task.train)

        def loss(share: float) -> float:
            logits = runs.logits(runs.at(winner, share), self.choosing)
            return tempered_loss(logits, labels, weights)

        share = min(winner.shares, key=loss)
        model = {share: runs.logits(runs.at(winner, share), rows)}
        before = head_logits(self.bench.head, task, rows)
        decision = self._decide(f"{task.selects}-half", rows, before, model)
        winner, head, fitted = self._on_all(winner, decision, cost)
        return self._made(winner, head, fitted, decision, rows, before, model)

    def _on_folds(self, winner: Trained, cost: Cost) -> Outcome:
        """Decide by predictions of folds of train, and train on all of it.

        Where the budget ends before the last fold, those decide that were held out until then;
        where it ends before the fit on all of train, the winner itself is kept.

        Raises:
            Diverged: a loss is no longer finite.
        """
        bench, runs, name, epochs = self.bench, self.runs, winner.recipe, winner.epochs
        task, rows = bench.task, bench.task.learners
        labels, notes, journal = task.table.labels[rows], bench.notes, self.journal
        folds = make_folds(rows, labels, task.group_ids[rows], count=FOLDS, seed=0)
        held_out: list[np.ndarray] = []
        heads: list[np.ndarray] = []
        models: dict[float, list[np.ndarray]] = {share: [] for share in winner.shares}
        for number, (fitted, held) in enumerate(folds, 1):
            if held_out and journal.left < ENOUGH * cost.fold(epochs):
                notes.append(
                    f"The budget was spent: {number - 1} of {len(folds)} folds of train decided."
                )
                break
            head = refit(task, fitted)
            fold = runs.train(
                name, epochs, f"{name}, fold {number} of {len(folds)}", train=fitted,
                select=held[:0], head=head,
            )  # fmt: skip
            held_out.append(held)
            heads.append(head_logits(head, task, held))
            for share, of in models.items():
                of.append(runs.logits(runs.at(fold, share), held))
            bench.progress.say(f"Fold {number} of {len(folds)} held out.")
        held = np.concatenate(held_out)
        order = np.argsort(held, kind="stable")
        before = np.concatenate(heads)[order]
        after = {share: np.concatenate(of)[order] for share, of in models.items()}
        decision = self._decide("folds", held[order], before, after)
        winner, head, fitted = self._on_all(winner, decision, cost)
        return self._made(winner, head, fitted, decision, held[order], before, after)

    def _on_all(
        self, winner: Trained, decision: Decision, cost: Cost | None
    ) -> tuple[Trained, SearchResult, np.ndarray]:
        """Return the winner trained on all of train, its head, and which rows these are.

        Where nothing is kept the head alone is fitted on them; where the budget is spent, or a run
        was ended early (without a cost), both stay as they are.

        Raises:
            Diverged: the loss is no longer finite.
        """
        bench, task, rows = self.bench, self.bench.task, self.bench.task.learners
        if cost is None or len(rows) == len(task.train):
            return winner, bench.head, task.train
        if decision.kept and self.journal.left < ENOUGH * cost.last(winner.epochs):
            bench.notes.append(
                "The budget was spent: what is kept learned from the part of train that did not "
                "choose the recipe."
            )
            return winner, bench.head, task.train
        head = refit(task, rows)
        if decision.kept:
            winner = self.runs.train(
                winner.recipe, winner.epochs, f"{winner.recipe}, all of train", train=rows,
                select=rows[:0], head=head,
            )  # fmt: skip
        return winner, head, rows

    def _decide(
        self, on: str, rows: np.ndarray, head: np.ndarray, models: dict[float, np.ndarray]
    ) -> Decision:
        task = self.bench.task
        labels = task.table.labels[rows]
        models = {share: metrics.tempered(logits, labels) for share, logits in models.items()}
        return decide(
            on, labels, metrics.tempered(head, labels), models,
            groups=draws(task.table.groups_of(rows)), weights=class_weights(task, task.learners),
        )  # fmt: skip

    def _made(
        self,
        winner: Trained,
        head: SearchResult,
        train: np.ndarray,
        decision: Decision,
        rows: np.ndarray,
        before: np.ndarray,
        after: dict[float, np.ndarray],
    ) -> Outcome:
        """Score the reported splits and return all of it.

        Args:
            winner: what is kept if anything is.
            head: that it started from.
            train: rows that both learned from.
            decision: between them.
            rows: that decided.
            before: the head's logits of these.
            after: the model's, for each share of the way to it.
        """
        bench, runs, kept = self.bench, self.runs, decision.kept
        start = runs.start_from(head)
        tensors: dict[str, Tensor] = runs.at(winner, decision.share) if kept else start
        model = after[decision.share] if kept else before
        scored = {decision.on: Scored(rows, model, before, chose=True)}
        for split, own in bench.task.reported.items():
            if split not in scored:
                alone = head_logits(head, bench.task, own)
                model = runs.logits(tensors, own) if kept else alone
                scored[split] = Scored(own, model, alone, chose=split == bench.task.selects)
        return Outcome(
            tensors=tensors, start=start, head=head, train=train, scored=scored,
            selects=decision.on, settings=winner.settings, recipe=winner.recipe,
            history=runs.history, epochs=winner.epochs, best_epoch=winner.epochs if kept else 0,
            decision=decision, handover=runs.handover, finished=True, uses=runs.uses,
            notes=bench.notes,
        )  # fmt: skip


def tempered_loss(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> float:
    """Return the log-loss of logits [n, K] at the temperature that suits them best."""
    own = metrics.softmax(metrics.tempered(logits, labels))
    return metrics.log_loss(labels, own, weights)
