"""Several recipes on the same activations: two rungs, the winner, and what decides about it.

All recipes are tried at a short schedule and the best two at a long one, each down to a small rate
before it is compared, since bold ones look worst in the middle. Where few images choose, the winner
is then trained on folds of train, whose held-out predictions decide between it and the head, and
once on all of train.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.finetuning.boundary import Prepared
from pipeline.finetuning.choosing.budget import FINALISTS, FOLDS, Cost, Plan, needed, plan_for
from pipeline.finetuning.choosing.decision import Decision, decide
from pipeline.finetuning.choosing.recipes import FIRST, RECIPES
from pipeline.finetuning.network import Network
from pipeline.finetuning.outcome import Outcome, Scored, head_logits
from pipeline.finetuning.prepare import Handover, last_layer
from pipeline.finetuning.settings import Epoch, Part, Settings
from pipeline.finetuning.states import keep_state, take_up
from pipeline.finetuning.task import Task, class_weights, refit
from pipeline.finetuning.training import Diverged, Training
from pipeline.heads import metrics
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.task import make_folds
from pipeline.progress import Progress
from pipeline.store.atomic import write_bytes

#: Images that choose, from which on half of them decide.
MANY = 1000
#: Seconds of training after which a candidate's state is written, and at its end.
KEEP_EVERY = 20.0
#: Share of the way from the head to the model that is tried beside the model itself (WiSE-FT;
#: Wortsman et al. 2022).
BETWEEN = 0.5


@dataclass(frozen=True)
class Trial:
    """A recipe that was trained for so many epochs, and what it scores.

    Attributes:
        recipe: its name.
        training: at its end.
        chose: logits of the images that choose.
        log_loss: of these, divided by the temperature that suits them best.
    """

    recipe: str
    training: Training
    chose: np.ndarray
    log_loss: float

    @property
    def epochs(self) -> int:
        """Return for how many epochs it was trained."""
        return self.training.settings.epochs


@dataclass
class Candidates:
    """The search for the recipe that suits the data, and what decides about it.

    Attributes:
        task: which images do what.
        network: what learns; holds the start.
        fast: the same tensors in a form that runs faster.
        prepared: gives activations of every view of all learners.
        settings: what all recipes have in common.
        head: fitted on `task.train`; the network starts from it.
        handover: how exactly it was carried over.
        folder: of states of unfinished runs.
        progress: told of every candidate.
        notes: takes sentences for the person.
    """

    task: Task
    network: Network
    fast: Network
    prepared: Prepared
    settings: Settings
    head: SearchResult
    handover: Handover | None
    folder: Path
    progress: Progress
    notes: list[str]
    history: list[Epoch] = field(default_factory=list)
    run: list[Training] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    finished: bool = True

    def __post_init__(self) -> None:
        self.start = self.network.copy()
        self.best: Trial | None = None
        task = self.task
        groups = task.group_ids[task.select]
        self.choosing: np.ndarray = task.select
        self.deciding: np.ndarray | None = None
        if len(task.select) >= MANY:
            labels = task.table.labels[task.select]
            for halves in make_folds(task.select, labels, groups, count=2, seed=0)[:1]:
                self.choosing, self.deciding = halves

    def outcome(self, budget: float) -> Outcome:
        """Try recipes within a budget of seconds, decide, and return what is kept.

        A KeyboardInterrupt ends it with the best whole candidate, if there is one; see `kept`.
        """
        plan, budget = self._plan(budget)
        tried = self._rung(plan.recipes, plan.short or plan.long, plan, budget)
        if plan.short:
            first = sorted(tried, key=lambda trial: trial.log_loss)[:FINALISTS]
            names = tuple(name for name in RECIPES if name in {one.recipe for one in first})
            tried = self._rung(names, plan.long, replace(plan, short=0), budget) or first
        if not tried:
            self.notes.append("No recipe kept its loss finite: the head stays best.")
            return self._head_stays(None)
        winner = self._winner(tried)
        self.progress.say(f"Recipe {winner.recipe}: deciding between it and the head.")
        if self.deciding is not None:
            return self._on_half(winner)
        left = budget - self._spent()
        if left < 0.8 * self._cost(winner).deciding(winner.epochs):
            self.notes.append(
                "The budget had no time for folds of train to decide: the images that chose the "
                "recipe decided, too."
            )
            return self.provisional(winner)
        return self._on_folds(winner)

    # -- trying -----------------------------------------------------------------------------

    def _plan(self, budget: float) -> tuple[Plan, float]:
        """Return what to try, as an unfinished run had it, and tell it."""
        path = self.folder / f"{self.task.folder.name}.json"
        if path.exists() and self.task.options.resume is not False:
            kept = json.loads(path.read_text(encoding="utf-8"))
            plan = Plan(**{**kept["plan"], "recipes": tuple(kept["plan"]["recipes"])})
            budget = kept["budget"]
        else:
            several = len(self.network.cut.places) > 1
            # with one stage unfrozen there is none that learns more slowly
            able = [one for one in FIRST if several or RECIPES[one].layer_decay == 1]
            plan = plan_for(self._measured(), budget, able)
            held = json.dumps({"plan": asdict(plan), "budget": budget})
            write_bytes(path, held.encode(), what="the plan of the run")
        short = f"{plan.short} epochs, the best {FINALISTS} for " if plan.short else ""
        least = "" if plan.seconds <= budget else ", the least there is"
        names = ", ".join(plan.recipes)
        self.progress.say(
            f"Trying {names} for {short}{plan.long} epochs: about {minutes(plan.seconds)} of a "
            f"budget of {minutes(budget)}{least}."
        )
        return plan, budget

    def _measured(self) -> Cost:
        """Return what steps cost, from a few that change nothing."""
        tuner = self._training("bold", 1, self.task.train, self.choosing, self.start)
        return self._cost_of(*tuner.time_a_step())

    def _cost_of(self, step: float, score: float) -> Cost:
        task = self.task
        return Cost(
            len(task.train), len(self.choosing), len(task.learners), step, score,
            self.settings.batch_size, self.deciding is not None,
        )  # fmt: skip

    def _cost(self, trial: Trial) -> Cost:
        """Return what steps cost, from a candidate's own."""
        epochs = trial.training.history[1:]
        images = len(self.task.train) + len(self.choosing) / 3
        step = float(np.mean([one.seconds for one in epochs])) / images
        return self._cost_of(step, step / 3)

    def _spent(self) -> float:
        return time.monotonic() - self.began

    def _rung(self, names: tuple[str, ...], epochs: int, plan: Plan, budget: float) -> list[Trial]:
        """Return the recipes' candidates that kept their loss finite, as far as time allows."""
        tried: list[Trial] = []
        for number, name in enumerate(names):
            if tried and self._spent() > budget:
                self.notes.append(
                    f"The budget was spent: {', '.join(names[number:])} were not tried for "
                    f"{epochs} epochs."
                )
                break
            tuner = self._training(name, epochs, self.task.train, self.choosing, self.start)
            try:
                self._run(tuner, f"{name}, {epochs} epochs")
            except Diverged:
                self.notes.append(f"The recipe {name} was given up: its loss was not finite.")
                continue
            logits = tuner.logits(tuner.select)
            trial = Trial(name, tuner, logits, self._log_loss(logits))
            tried.append(trial)
            if self.best is None or trial.log_loss < self.best.log_loss:
                self.best = trial
            accuracy = float((logits.argmax(1) == tuner.select.labels).mean())
            left = needed(self._cost(trial), plan, names[number + 1 :]) if plan.short else (
                (len(names) - number - 1) * self._cost(trial).seconds(epochs)
                + self._cost(trial).deciding(plan.long)
            )  # fmt: skip
            seconds = sum(one.seconds for one in tuner.history)
            self.progress.say(
                f"{name}, {epochs} epochs: log-loss {trial.log_loss:.4f} ({accuracy:.3f}), "
                f"{seconds:.0f} s; about {minutes(left)} left"
            )
        return tried

    def _training(
        self,
        name: str,
        epochs: int,
        train: np.ndarray,
        select: np.ndarray,
        start: dict[str, Tensor],
    ) -> Training:
        """Return a recipe's training, the network at its start."""
        recipe, table = RECIPES[name], self.task.table
        self.network.put(start)
        if recipe.start == "random":
            head = last_layer(self.network.head, seed=self.settings.seed)
            self.network.start_from(head)
        same = asdict(recipe)
        del same["start"]
        settings = replace(self.settings, epochs=epochs, **same)
        return Training(
            self.network, self.fast, self.prepared.source, Part.of(table, train),
            Part.of(table, select), settings, class_weights(self.task, train), notes=self.notes,
        )  # fmt: skip

    def _run(self, tuner: Training, name: str) -> None:
        """Train to the end, from where an unfinished run was, and note the epochs.

        Raises:
            Diverged: the loss is no longer finite.
        """
        named = name.replace(", ", "-").replace(" ", "-")
        saved = self.folder / f"{self.task.folder.name}-{named}.safetensors"
        if self.task.options.resume is False or not take_up(tuner, saved, None, self.progress):
            tuner.begin()
        self.progress.start(name, 0)
        kept = time.monotonic()
        while not tuner.ended:
            one = tuner.epoch()
            self.progress.update(f"epoch {one.number}, train {one.train_loss:.4f}")
            if tuner.ended or time.monotonic() - kept > KEEP_EVERY:
                keep_state(tuner, saved, self.handover)
                kept = time.monotonic()
        tuner.keep_best()
        self.run.append(tuner)
        self.history += [replace(one, candidate=name) for one in tuner.history]

    def _log_loss(self, logits: np.ndarray) -> float:
        """Return the log-loss of the images that choose, as the selection weighs them."""
        return float(self._losses(logits).mean())

    def _losses(self, logits: np.ndarray) -> np.ndarray:
        labels = self.task.table.labels[self.choosing]
        own = metrics.losses(labels, metrics.softmax(metrics.tempered(logits, labels)))
        weights = class_weights(self.task, self.task.train)
        return own if weights is None else own * weights[labels] / weights[labels].mean()

    def _winner(self, tried: list[Trial]) -> Trial:
        """Return the gentlest of those within a standard error of the best."""
        best = min(tried, key=lambda trial: trial.log_loss)
        groups = self._groups(self.choosing)
        for trial in tried:  # from gentle to bold
            behind = self._losses(trial.chose) - self._losses(best.chose)
            each = (behind - behind.mean()) / len(behind)
            if behind.mean() <= metrics.standard_error(each, groups):
                return trial
        return best

    def _groups(self, rows: np.ndarray) -> np.ndarray | None:
        return metrics.draws(self.task.table.groups_of(rows))

    # -- deciding ---------------------------------------------------------------------------

    def _decide(
        self, on: str, rows: np.ndarray, head: np.ndarray, models: dict[float, np.ndarray]
    ) -> Decision:
        labels = self.task.table.labels[rows]
        models = {share: metrics.tempered(logits, labels) for share, logits in models.items()}
        return decide(
            on, labels, metrics.tempered(head, labels), models, groups=self._groups(rows),
            weights=class_weights(self.task, self.task.learners),
        )  # fmt: skip

    def _shares(self, recipe: str) -> tuple[float, ...]:
        """Return shares of the way to the model: from a random layer there is nothing between."""
        return (1.0,) if RECIPES[recipe].start == "random" else (BETWEEN, 1.0)

    def _between(self, tuner: Training, part: Part, recipe: str) -> dict[float, np.ndarray]:
        """Return the logits of a part at each share of the way from the start to the end."""
        found = {}
        for share in self._shares(recipe):
            self.network.put(tuner.between(share))
            found[share] = tuner.logits(part)
        return found

    def _on_half(self, winner: Trial) -> Outcome:
        """Decide on the half of the images that chose nothing; the share is the choosing half's."""
        assert self.deciding is not None
        tuner, rows = winner.training, self.deciding
        chose = self._between(tuner, tuner.select, winner.recipe)
        share = min(chose, key=lambda one: self._log_loss(chose[one]))
        self.network.put(tuner.between(share))
        model = tuner.logits(Part.of(self.task.table, rows))
        head = head_logits(self.head, self.task, rows)
        on = f"{self.task.selects}-half"
        decision = self._decide(on, rows, head, {share: model})
        kept = model if decision.kept else head
        scored = {on: Scored(rows, kept, head, chose=True)}
        return self._made(winner.recipe, tuner, self.head, self.task.train, decision, scored)

    def _on_folds(self, winner: Trial) -> Outcome:
        """Decide by predictions of folds of train, and train on all of it."""
        task, table, name = self.task, self.task.table, winner.recipe
        rows, epochs = task.learners, winner.epochs
        labels = table.labels[rows]
        folds = make_folds(rows, labels, task.group_ids[rows], count=FOLDS, seed=0)
        classes = len(table.classes)
        heads = np.zeros((len(rows), classes), np.float32)
        models = {share: np.zeros((len(rows), classes), np.float32) for share in self._shares(name)}
        for number, (fitted, held) in enumerate(folds, 1):
            head = refit(task, fitted)
            tuner = self._training(name, epochs, fitted, held[:0], self._start(head))
            try:
                self._run(tuner, f"{name}, fold {number} of {len(folds)}")
            except Diverged:
                self.notes.append(f"The recipe {name} was given up: its loss was not finite.")
                return self._head_stays(winner)
            place = np.searchsorted(rows, held)
            heads[place] = head_logits(head, self.task, held)
            for share, logits in self._between(tuner, Part.of(table, held), name).items():
                models[share][place] = logits
            self.progress.say(f"Fold {number} of {len(folds)} held out.")
        decision = self._decide("folds", rows, heads, models)
        kept = models[decision.share] if decision.kept else heads
        scored = {"folds": Scored(rows, kept, heads, chose=True)}
        head = refit(task, rows)
        tuner = self._training(name, epochs, rows, rows[:0], self._start(head))
        if decision.kept:
            try:
                self._run(tuner, f"{name}, all of train")
            except Diverged:
                self.notes.append(f"The recipe {name} was given up: its loss was not finite.")
                return self._head_stays(winner)
        return self._made(name, tuner, head, rows, decision, scored)

    def _start(self, head: SearchResult) -> dict[str, Tensor]:
        """Return the network's tensors before the first step, from another head."""
        assert head.linear is not None
        self.network.put(self.start)
        self.network.start_from(last_layer(self.network.head, head=head.linear))
        return self.network.copy()

    # -- what is kept -----------------------------------------------------------------------

    def provisional(self, trial: Trial | None) -> Outcome:
        """Return what the images that chose say alone: of a run that was ended early."""
        if trial is None:
            return self._head_stays(None)
        rows, tuner = self.choosing, trial.training
        head = head_logits(self.head, self.task, rows)
        models = self._between(tuner, tuner.select, trial.recipe)
        decision = self._decide(self.task.selects, rows, head, models)
        kept = models[decision.share] if decision.kept else head
        scored = {self.task.selects: Scored(rows, kept, head, chose=True)}
        return self._made(trial.recipe, tuner, self.head, self.task.train, decision, scored)

    def _head_stays(self, trial: Trial | None) -> Outcome:
        name = "bold" if trial is None else trial.recipe
        tuner = self._training(name, 1, self.task.train, self.choosing, self.start)
        head = head_logits(self.head, self.task, self.choosing)
        on = self.task.selects
        scored = {on: Scored(self.choosing, head, head, chose=True)}
        decision = Decision(on, len(head), 0.0, 0.0, 0.0, 0, 0)
        return self._made(name, tuner, self.head, self.task.train, decision, scored)

    def _made(
        self,
        recipe: str,
        tuner: Training,
        head: SearchResult,
        train: np.ndarray,
        decision: Decision,
        scored: dict[str, Scored],
    ) -> Outcome:
        """Put what is kept into the network, score the reported splits, return all of it."""
        start = self._start(head)
        tensors = tuner.between(decision.share) if decision.kept else start
        self.network.put(tensors)
        table, chose = self.task.table, {self.task.selects}
        for split, rows in self.task.reported.items():
            if split not in scored:
                own = head_logits(head, self.task, rows)
                model = tuner.logits(Part.of(table, rows)) if decision.kept else own
                scored[split] = Scored(rows, model, own, chose=split in chose)
        return Outcome(
            tensors=tensors, start=start, head=head, train=train, scored=scored,
            selects=decision.on, settings=tuner.settings, recipe=recipe, history=self.history,
            epochs=tuner.settings.epochs, best_epoch=tuner.settings.epochs if decision.kept else 0,
            decision=decision, handover=self.handover, finished=self.finished,
            uses=sum(one.uses for one in self.run),
            notes=self.notes,
        )  # fmt: skip


def minutes(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
