"""How much an accuracy owes to the split: the same search on other splits of the same images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads.cross_validation import folds as folding
from pipeline.heads.cross_validation.search import Plan, search
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.task import Task, group_ids_of, make_folds, subsampled
from pipeline.store.records import Repeats
from pipeline.store.table import FeatureTable


def resplit(
    name: str, table: FeatureTable, task: Task, options: FitHeadOptions, plan: Plan
) -> Repeats:
    """Return accuracies over resplits of train and the reported split, of the same sizes."""
    split = "test" if "test" in task.reported else next(iter(task.reported), None)
    if split is None:
        raise PipelineError("--repeats needs a val or test split to resplit with train.")
    train, held = task.train, task.reported[split]
    pool = np.sort(np.concatenate([train, held]))
    group_ids = group_ids_of(table, pool)
    parts, classes = max(2, round(len(pool) / len(held))), len(table.classes)
    accuracies = []
    for seed in range(options.seed + 1, options.seed + 1 + options.repeats):
        part_of = folding.assign(table.labels[pool], group_ids, parts, seed)
        outside = pool[part_of == 0]
        inside, inner = subsampled(table, pool[part_of != 0], options, seed=seed)
        folds = make_folds(inside, table.labels[inside], inner, count=options.folds, seed=seed)
        result = search(
            name, table.features, table.labels, classes=classes, train=inside, folds=folds,
            plan=replace(plan, seed=seed),
        )  # fmt: skip
        guesses = result.probabilities(np.asarray(table.features[outside]), classes).argmax(1)
        accuracies.append(float((guesses == table.labels[outside]).mean()))
    return {
        "split": split,
        "accuracies": accuracies,
        "mean": float(np.mean(accuracies)),
        "spread": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0,
    }
