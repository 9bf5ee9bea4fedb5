"""What recipes are tried, and for how long: as much as the budget allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.finetuning.choosing.recipes import FIRST, RECIPES

#: Epochs and steps of a short schedule, at least: few images need steps, not epochs.
EPOCHS, STEPS = 4, 120
#: (recipes, how many times as long the last rung is, what decides), from rich to poor. `folds` of
#: train; `half` of the images that choose, where these are enough; or all of them (`select`), which
#: have chosen nothing where there is one recipe.
SHAPES = (
    (6, 3, "folds"), (4, 3, "folds"), (3, 3, "folds"), (3, 2, "folds"), (2, 2, "folds"),
    (2, 2, "half"), (1, 2, "select"), (1, 1, "select"),
)  # fmt: skip
#: Images that choose from which on half of them may decide where there is no time for folds, and
#: from which on they always do.
SOME, MANY = 400, 1000
#: Candidates of the last rung.
FINALISTS = 2
#: Folds of train that decide where few images choose.
FOLDS = 3
#: The least budget, in seconds, and how many times stage one's own time it is.
LEAST, TIMES = 300.0, 30
#: Share of the budget that a plan fills: what steps cost is estimated from a few.
FILL = 0.85


@dataclass(frozen=True)
class Cost:
    """What the steps of an epoch cost.

    Attributes:
        train: images to learn from while recipes are compared.
        select: images that choose.
        learners: images to learn from in the end.
        step: seconds for an image that is learned from.
        score: seconds for an image that is scored.
        batch_size: images a step.
    """

    train: int
    select: int
    learners: int
    step: float
    score: float
    batch_size: int

    def seconds(self, epochs: int) -> float:
        """Return what a candidate of so many epochs takes."""
        return epochs * (self.train * self.step + self.select * self.score)

    def fold(self, epochs: int) -> float:
        """Return what one of the folds that decide takes."""
        learned = (FOLDS - 1) / FOLDS * self.learners * self.step
        return learned * epochs + 2 / FOLDS * self.learners * self.score

    def last(self, epochs: int) -> float:
        """Return what the fit on all images to learn from takes; 0 where all were learned from."""
        return self.learners * self.step * epochs if self.learners > self.train else 0.0

    def deciding(self, epochs: int, by: str) -> float:
        """Return what deciding takes, the last fit included.

        Args:
            epochs: of the winner.
            by: what decides: `folds`, `half` or `select`.
        """
        return self.last(epochs) + (FOLDS * self.fold(epochs) if by == "folds" else 0.0)


@dataclass(frozen=True)
class Plan:
    """Recipes to try, on two rungs of whole schedules.

    Attributes:
        recipes: names, from gentle to bold.
        short: epochs of the first rung; 0: there is none, since all are finalists.
        long: epochs of the last rung.
        decides: `folds` of train, `half` of the images that choose, or all of these: `select`.
        seconds: that all of it is estimated to take.
    """

    recipes: tuple[str, ...]
    short: int
    long: int
    decides: str
    seconds: float


def plan_for(
    cost: Cost, budget: float, recipes: Sequence[str] = FIRST, *, used: bool = False
) -> Plan:
    """Return the richest plan that fits the budget; the poorest, shortened, where none does.

    Args:
        cost: of the steps.
        budget: seconds.
        recipes: that there are, in the order in which they are taken up.
        used: whether images that choose a recipe have chosen something already: then they cannot
            decide.
    """
    short = short_schedule(cost.train, cost.batch_size)
    plan = None
    for count, times, by in SHAPES:
        if by == "half" and cost.select < SOME:
            continue
        if by == "select" and used:
            by = "half" if cost.select >= SOME else "folds"
        by = "half" if cost.select >= MANY else by
        plan = _plan(cost, recipes[:count], short, times, by)
        if plan.seconds <= FILL * budget:
            return plan
    assert plan is not None
    epochs = max(1, int(plan.long * FILL * budget / plan.seconds))
    return _plan(cost, recipes[:1], epochs, 1, plan.decides)


def short_schedule(images: int, batch_size: int) -> int:
    """Return the epochs of a short schedule over so many images."""
    return max(EPOCHS, math.ceil(STEPS / math.ceil(images / batch_size)))


def draws_views(epochs: int) -> bool:
    """Tell whether a schedule draws augmented views.

    One that had to be cut short shows no image often enough to be learned by heart; it has more to
    learn from views that are alike.
    """
    return epochs >= EPOCHS


def last_rung(plan: Plan, cost: Cost, seconds: float) -> int:
    """Return how many epochs the last rung has, once the first is done and its cost is known.

    As many as the seconds that are left allow, up to the most that a plan may have; 0 where not
    even as many as in the first rung fit: then the first rung's best is the winner.

    Args:
        plan: with a first rung.
        cost: of the steps, as the first rung had them.
        seconds: that are left of the budget.
    """
    most = plan.short * max(times for _, times, _ in SHAPES)
    for epochs in range(most, plan.short, -1):
        if FINALISTS * cost.seconds(epochs) + cost.deciding(epochs, plan.decides) <= seconds:
            return epochs
    return 0


def _plan(cost: Cost, names: Sequence[str], short: int, times: int, by: str) -> Plan:
    recipes = tuple(name for name in RECIPES if name in names)
    plan = Plan(recipes, 0 if len(names) <= FINALISTS else short, short * times, by, 0.0)
    return replace(plan, seconds=needed(cost, plan))


def needed(cost: Cost, plan: Plan, tried: int = 0, finals: int = 0) -> float:
    """Return the seconds that a plan still takes.

    Args:
        cost: of the steps.
        plan: what is to be done.
        tried: candidates of the first rung that are done.
        finals: candidates of the last rung that are done.
    """
    first = (len(plan.recipes) - tried) * cost.seconds(plan.short) if plan.short else 0.0
    last = (min(FINALISTS, len(plan.recipes)) - finals) * cost.seconds(plan.long)
    return first + last + cost.deciding(plan.long, plan.decides)
