"""What fine-tuning starts from: table, head, and which images train, choose and are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError, UsageError, nearest
from pipeline.heads.cross_validation import folds as folding
from pipeline.heads.cross_validation.search import Plan, SearchResult, search
from pipeline.heads.head import Head
from pipeline.heads.leaderboard import leaderboard
from pipeline.heads.options import HeadRecipe
from pipeline.heads.registry import HEADS
from pipeline.heads.task import (
    check_table,
    check_views,
    group_ids_of,
    learned,
    make_folds,
    split_rows,
)
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD
from pipeline.store.table import FeatureTable

#: One in so many training images is set aside to choose the epoch.
PARTS = 5


@dataclass(frozen=True)
class Task:
    """Which rows of the table do what.

    Attributes:
        train: rows to learn from.
        select: rows whose log-loss chooses the epoch.
        selects: `val`, or `train-part`.
        reported: split to its labelled rows; the choosing split is among them where it is val.
    """

    train: np.ndarray
    select: np.ndarray
    selects: str
    reported: dict[str, np.ndarray]

    @property
    def scored(self) -> dict[str, np.ndarray]:
        """Return every split with its rows, the choosing part included."""
        own = {} if self.selects == "val" else {self.selects: self.select}
        return {**own, **self.reported}


def find_head(
    cache: Cache, asked: Head | str | Path | None, notes: list[str]
) -> tuple[dict[str, Any], FeatureTable]:
    """Return the `head.json` to start from, and its table.

    Args:
        cache: where heads and tables are.
        asked: a head, its id (or how that begins), its folder or its kind; the best one of the
            current table that was fitted by log-loss without it.
        notes: takes why a better head of another kind was passed over.

    Raises:
        PipelineError: there is none, or none that can start a network.
    """
    if isinstance(asked, Head):
        info = asked.info
    elif asked is not None and Path(asked).is_dir():
        info = HEAD.read(Path(asked))
    else:
        info = _among(cache, None if asked is None else str(asked), notes)
    if not info["linear"]:
        usable = ", ".join(name for name, kind in HEADS.items() if kind.linear or not kind.make)
        raise PipelineError(
            f"The head {info['id']} is of kind {info['clf']}, which is not linear and cannot be a "
            f"network's last layer. Kinds that can: {usable}."
        )
    return info, _table_of(cache, info)


def _among(cache: Cache, asked: str | None, notes: list[str]) -> dict[str, Any]:
    heads, _ = HEAD.every(cache.root)
    if asked is not None:
        fits = [info for info in heads if len(asked) >= 4 and str(info["id"]).startswith(asked)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            listed = ", ".join(str(info["id"]) for info in fits)
            raise PipelineError(f"'{asked}' begins the ids of several heads: {listed}.")
    table = cache.open_table()
    board = leaderboard(heads, table.table_id)
    there = ", ".join(f"{info['clf']} {info['id']}" for info in board)
    if asked is not None:
        named = next((info for info in board if info["clf"] == asked), None)
        if named is None:
            known = [info["clf"] for info in board] + [str(info["id"]) for info in heads]
            hint = nearest(asked, known)
            have = f" The current table has {there}." if there else " There is none yet."
            raise PipelineError(f"There is no head '{asked}'.{hint}{have}")
        return named
    start = starter(board, notes)
    if start is None:
        have = f"; it has {there}" if there else ""
        raise PipelineError(
            f"The current table has no head fitted by log-loss to start from{have}. Fit one with "
            "`pipeline fit-head --clf logreg`."
        )
    return start


def starter(board: Sequence[dict[str, Any]], notes: list[str]) -> dict[str, Any] | None:
    """Return the first head of a leaderboard that was fitted by log-loss, None without one.

    Args:
        board: from `heads.leaderboard`.
        notes: takes why a better head of another kind was passed over.
    """
    usable = [info for info in board if info["linear"] and info["log_loss"]]
    # a fit on a few shots is an experiment, however new
    whole = [i for i in usable if not (i["recipe"]["shots"] or i["recipe"]["train_fraction"])]
    start = next(iter([*whole, *usable]), None)
    if start is None:
        return None
    better = [
        info
        for info in board
        if info["group"] == start["group"] and info["best"] and info["id"] != start["id"]
    ]
    for info in better:
        why = (
            "its scores are not log-odds; name it to start from it all the same"
            if info["linear"]
            else "it is not linear"
        )
        notes.append(
            f"Starting from {start['clf']} and not from the best head, {info['clf']}: {why}."
        )
    return start


def _table_of(cache: Cache, info: dict[str, Any]) -> FeatureTable:
    places = [path for path in cache.table_files() if path.stem.endswith(info["table_id"][:12])]
    places += [Path(info["table"])] if Path(info.get("table", "")).is_file() else []
    if not places:
        raise PipelineError(
            f"The table of the head {info['id']} ({info['table_id'][:12]}) is not in the cache "
            f"{cache.root}. `pipeline extract` makes it again."
        )
    table = FeatureTable.open(places[0])
    if table.table_id != info["table_id"] or table.fingerprint != info["fingerprint"]:
        raise PipelineError(
            f"The table {places[0]} is not that of the head {info['id']}: it comes from "
            f"{table.provenance['trunk']} ({table.fingerprint[:12]}), the head from "
            f"{info['trunk']} ({info['fingerprint'][:12]}). Fit a head on it with "
            "`pipeline fit-head`."
        )
    return table


def part_rows(table: FeatureTable, info: dict[str, Any], select_on: str, notes: list[str]) -> Task:
    """Return which rows train, choose and are reported; those of train are the head's own.

    The part that chooses depends on the head's seed and not on fine-tuning's, so that every run
    compares on the same images.

    Raises:
        UsageError: `--select-on val` without both val and test.
        PipelineError: too few images to set a part aside.
    """
    check_table(table)
    recipe = HeadRecipe(**{**info["recipe"], "select_on": "cv", "repeats": 0})
    head = split_rows(table, recipe, [])
    both = {"val", "test"} <= set(head.reported)
    if select_on == "val" and not both:
        have = ", ".join(name for name in table.split_counts if name)
        raise UsageError(
            f"--select-on val needs train, val and test, so that test can be reported; this table "
            f"has {have}. Use --select-on train-part."
        )
    if select_on == "val" or (select_on == "auto" and both):
        return Task(head.train, head.reported["val"], "val", head.reported)
    aside = _aside(table.labels[head.train], group_ids_of(table, head.train), recipe.seed)
    if aside is None:
        raise PipelineError(
            f"{len(head.train)} training images are too few to set a part aside that chooses the "
            "epoch: two classes need two different images at least."
        )
    return Task(head.train[~aside], head.train[aside], "train-part", head.reported)


def _aside(labels: np.ndarray, group_ids: np.ndarray, seed: int) -> np.ndarray | None:
    """Return which images are set aside, bool [n]: a fold that leaves as many classes as can be.

    None where every fold would leave fewer than two.
    """
    count = min(PARTS, len(np.unique(group_ids)))
    if count < 2:
        return None
    of = folding.assign(labels, group_ids, count, seed)
    left = [len(np.unique(labels[of != fold])) for fold in range(count)]
    best = int(np.argmax(left))  # the first of those that leave most
    return of == best if left[best] > 1 else None


def refit(info: dict[str, Any], table: FeatureTable, task: Task) -> SearchResult:
    """Return the head fitted on the images that train, with the penalty that was chosen.

    One that is not fitted by log-loss gets its temperature from folds of these images.
    """
    kind, recipe = HEADS[info["clf"]], HeadRecipe(**info["recipe"])
    grid = None if kind.parameter is None else (float(info["parameters"][kind.parameter]),)
    plan = Plan(
        grid=grid,
        balanced=recipe.class_weight == "balanced",
        normalize=info["normalize"],
        seed=recipe.seed,
        jobs=1,
    )
    parts = []
    if not kind.log_loss:
        labels, group_ids = table.labels[task.train], group_ids_of(table, task.train)
        parts = make_folds(task.train, labels, group_ids, count=recipe.folds, seed=recipe.seed)
    check_views(table, recipe.views)
    features, labels, train, folds = learned(table, recipe.views, task.train, parts)
    return search(
        info["clf"], features, labels, classes=len(table.classes), train=train, folds=folds,
        plan=plan,
    )  # fmt: skip
