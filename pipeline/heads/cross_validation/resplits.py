"""How much an accuracy owes to the split: the same search on other splits of the same images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads.cross_validation import folds as folding
from pipeline.heads.cross_validation.search import Plan, search
from pipeline.heads.options import HeadRecipe
from pipeline.heads.task import Task, group_ids_of, make_folds
from pipeline.store.table import FeatureTable


def resplit(
    name: str, table: FeatureTable, task: Task, recipe: HeadRecipe, plan: Plan
) -> dict[str, Any]:
    """Return accuracies over resplits of train and the reported split, of the same sizes."""
    split = "test" if "test" in task.reported else next(iter(task.reported), None)
    if split is None:
        raise PipelineError("--repeats needs a val or test split to resplit with train.")
    train, held = task.train, task.reported[split]
    pool = np.sort(np.concatenate([train, held]))
    group_ids = group_ids_of(table, pool)
    parts = max(2, round(len(pool) / len(held)))
    accuracies = []
    for number in range(recipe.repeats):
        seed = recipe.seed + 1 + number
        of = folding.assign(table.labels[pool], group_ids, parts, seed)
        inside, outside = pool[of != 0], pool[of == 0]
        labels, inner = table.labels[inside], group_ids_of(table, inside)
        if recipe.shots is not None or recipe.train_fraction is not None:
            part = folding.subsample(
                labels, inner, shots=recipe.shots, fraction=recipe.train_fraction, seed=seed
            )
            inside, labels, inner = inside[part], labels[part], inner[part]
        folds = make_folds(inside, labels, inner, count=recipe.folds, seed=seed)
        found = search(
            name, table.features, table.labels, classes=len(table.classes), train=inside,
            folds=folds, plan=replace(plan, seed=seed),
        )  # fmt: skip
        probabilities = found.probabilities(np.asarray(table.features[outside]), len(table.classes))
        accuracies.append(float((probabilities.argmax(1) == table.labels[outside]).mean()))
    return {
        "split": split,
        "accuracies": accuracies,
        "mean": float(np.mean(accuracies)),
        "spread": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0,
    }
