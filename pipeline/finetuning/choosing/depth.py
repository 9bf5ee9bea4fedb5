"""How many stages learn (`--unfreeze auto`): the last one, half of them or all, as the data say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.finetuning.bench import Bench
from pipeline.finetuning.choosing.budget import short_schedule
from pipeline.finetuning.choosing.candidates import choosing_rows, minutes
from pipeline.finetuning.choosing.journal import Journal
from pipeline.finetuning.choosing.runs import Runs
from pipeline.finetuning.network import places_of
from pipeline.finetuning.settings import Epoch
from pipeline.finetuning.task import class_weights
from pipeline.finetuning.training import Diverged
from pipeline.heads import metrics
from pipeline.heads.uncertainty import draws, mean_error
from pipeline.images.names import counted
from pipeline.trunks.staging.stages import StagedTrunk

#: The recipe that each depth is tried with, and the share of the budget that a depth may take.
RECIPE, SHARE = "bold", 0.25


def depths(trunk: StagedTrunk, layer: str) -> list[str]:
    """Return what is tried: the last stage, the last half of the stages, all."""
    stages = [place for place in places_of(trunk, layer) if place != "neck"]
    half = stages[-max(1, len(stages) // 2) :]
    return list(dict.fromkeys([stages[-1], ",".join(half), "all"]))


def choose_depth(
    asked: Sequence[str], bench_at: Callable[[str], Bench], budget: float
) -> tuple[str, list[Epoch], float]:
    """Return how many stages learn best in a short schedule, its history, and the seconds it took.

    Within one paired standard error fewer stages win. What takes more than a quarter of the budget
    is not tried. Images that may decide later do not choose here.

    Args:
        asked: from `depths`, fewest first.
        bench_at: gives the bench at a depth.
        budget: seconds of the whole search.
    """
    found: dict[str, np.ndarray] = {}
    history: list[Epoch] = []
    spent = 0.0
    for unfreeze in asked:
        bench = bench_at(unfreeze)
        progress, task = bench.progress, bench.task
        journal = Journal.open(
            bench.state(f"at {unfreeze}", ".json"), budget, resume=task.options.resume,
            progress=progress,
        )  # fmt: skip
        runs = Runs(bench, journal, None)
        steps = short_schedule(len(task.train), bench.settings.batch_size)
        seconds = steps * len(task.train) * runs.time_a_step()[0]
        if found and seconds > SHARE * budget:
            progress.say(
                f"{unfreeze} is not tried: {counted(steps, 'epoch')} take about "
                f"{minutes(seconds)} of a budget of {minutes(budget)}."
            )
            break
        rows = choosing_rows(task)
        told = f"{unfreeze}, {RECIPE}, {counted(steps, 'epoch')}"
        try:
            trained = runs.train(RECIPE, steps, told, train=task.train, select=rows)
        except Diverged:
            progress.say(f"{unfreeze} is given up: its loss was not finite.")
            continue
        finally:
            bench.network.put(runs.start)  # the trunk's tensors are shared
        labels, groups = task.table.labels[rows], draws(task.table.groups_of(rows))
        logits = runs.logits(trained.tensors, rows)
        own = metrics.softmax(metrics.tempered(logits, labels))
        found[unfreeze] = metrics.losses(labels, own, class_weights(task, task.train))
        history += runs.history
        spent += journal.spent
        progress.say(f"{told}: log-loss {found[unfreeze].mean():.4f}")
        bench.network.put(runs.start)
    if not found:
        return asked[0], history, spent
    best = min(found, key=lambda one: float(found[one].mean()))
    for unfreeze, losses in found.items():  # fewest stages first
        behind = losses - found[best]
        if behind.mean() <= mean_error(behind, groups):
            return unfreeze, history, spent
    return best, history, spent
