"""What fine-tuning starts from: table, head, and which images train, choose and are reported.

Imports no torch: a rerun of what is there starts fast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning.options import FinetuneOptions
from pipeline.heads import resolve
from pipeline.heads.cross_validation.near_duplicates import NearDuplicate
from pipeline.heads.cross_validation.search import Plan, SearchResult, search
from pipeline.heads.head import Head
from pipeline.heads.leaderboard import Ranked
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.registry import HEADS
from pipeline.heads.task import (
    assign,
    check_finite,
    check_table,
    check_views,
    learned,
    split_rows,
)
from pipeline.images.names import counted, listed
from pipeline.store.cache import Cache
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.results import HEAD, MODEL
from pipeline.store.table import FeatureTable

#: One in so many training images is set aside to choose the epoch.
PARTS = 5


@dataclass(frozen=True, eq=False)
class Task:
    """A model that is asked for, and which rows of the table do what.

    Attributes:
        head: `head.json` of the head to start from.
        table: its table.
        options: with what `--from-scratch` settles settled.
        folder: where the model is, or will be; its name is the model's id, twelve hexadecimal
            digits of all that the model depends on.
        train: rows to learn from.
        select: rows whose log-loss chooses the epoch.
        selects: `val`, or `train-part`.
        reported: split to its labelled rows; the choosing split is among them where it is val.
        group_ids: int64 [N] of all rows of the table: which images belong together.
    """

    head: HeadInfo
    table: FeatureTable
    options: FinetuneOptions
    folder: Path
    train: np.ndarray
    select: np.ndarray
    selects: str
    reported: dict[str, np.ndarray]
    group_ids: np.ndarray

    @property
    def learners(self) -> np.ndarray:
        """Return all rows of train: those to learn from and a part of them set aside."""
        if self.selects == "val":
            return self.train
        return np.sort(np.concatenate([self.train, self.select]))

    @property
    def scored(self) -> dict[str, np.ndarray]:
        """Return every split with its rows, the choosing part included."""
        own = {} if self.selects == "val" else {self.selects: self.select}
        return {**own, **self.reported}

    def without(self, lost: Mapping[bytes, str], notes: list[str]) -> Task:
        """Return the task without images that can no longer be had.

        Args:
            lost: digest to the reason.
            notes: takes a sentence for the person.

        Raises:
            PipelineError: what is left is too little to learn from and to choose by.
        """
        if not lost:
            return self
        digests = np.array(self.table.digests)
        gone = np.isin(digests, [digest.hex() for digest in lost])

        def left(rows: np.ndarray) -> np.ndarray:
            return np.asarray(rows[~gone[rows]])

        named = [self.table.paths[row] for row in np.flatnonzero(gone).tolist()]
        sentence = (
            f"{counted(len(named), 'image')} could not be used and count nowhere: "
            f"{listed(named, 3)} ({next(iter(lost.values()))})."
        )
        train, select = left(self.train), left(self.select)
        if len(np.unique(self.table.labels[train])) < 2 or not len(select):
            raise PipelineError(f"{sentence} Too few are left to learn from.")
        notes.append(sentence)
        reported = {split: left(rows) for split, rows in self.reported.items()}
        reported = {split: rows for split, rows in reported.items() if len(rows)}
        return replace(self, train=train, select=select, reported=reported)

    def made(self) -> ModelInfo | None:
        """Return `model.json` of a model that is finished; else it is to be made (again)."""
        try:
            info = MODEL.read(self.folder)
            with safe_open(self.folder / "model.safetensors", framework="numpy"):
                return info if info.finished else None
        except (PipelineError, SafetensorError, OSError):
            return None


def find_task(
    cache: Cache, asked: Head | str | Path | None, options: FinetuneOptions, notes: list[str]
) -> Task:
    """Return which model a head and options make.

    Args:
        cache: where heads, tables and models are.
        asked: see `find_head`.
        options: checked.
        notes: takes sentences for the person.

    Raises:
        PipelineError: there is no such head, or too few images.
    """
    if options.from_scratch:
        options = replace(options, unfreeze="all", start="random")
    head, table = find_head(cache, asked, notes)
    parts = options.deciding()
    parts |= {"head": head.id, "table_id": head.table_id, "schema": MODEL.schema}
    parts["versions"] = {name: version(name) for name in ("headstart", "torch", "torchvision")}
    model_id = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache.root / "models" / model_id
    return Task(head, table, options, folder, *_part_rows(table, head, options.select_on))


def find_head(
    cache: Cache, asked: Head | str | Path | None, notes: list[str]
) -> tuple[HeadInfo, FeatureTable]:
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
    elif asked is not None:
        artefact = resolve.find(cache, asked)
        if artefact.kind is not HEAD:
            raise PipelineError(
                f"The model {artefact.folder.name} is no head: fine-tuning starts from a head."
            )
        info = HEAD.read(artefact.folder)
    else:
        board = resolve.heads_of(cache, cache.open_table())
        first = starter(board, notes)
        if first is None:
            listed = ", ".join(f"{one.info.clf} {one.info.id}" for one in board)
            have = f"; it has {listed}" if listed else ""
            raise PipelineError(
                f"The current table has no head fitted by log-loss to start from{have}. Fit one "
                "with `pipeline fit-head --clf logreg`."
            )
        info = first
    if not info.linear:
        usable = ", ".join(name for name, kind in HEADS.items() if kind.linear or not kind.make)
        raise PipelineError(
            f"The head {info.id} is of kind {info.clf}, which is not linear and cannot be a "
            f"network's last layer. Kinds that can: {usable}."
        )
    table = resolve.table_of(cache, info)
    if table is None:
        raise PipelineError(
            f"The table of the head {info.id} ({info.table_id[:12]}) is not in the cache "
            f"{cache.root}. `pipeline extract` makes it again."
        )
    return info, table


def fitted_on(head: HeadInfo, table: FeatureTable) -> str:
    """Return on how much of a table's training images a head was fitted, for people."""
    all_images, shots = len(table.training_rows), head.recipe["shots"]
    if not head.partial:
        return f"fitted on all {all_images:,} training images"
    share = head.recipe["train_fraction"]
    each = f"{counted(shots, 'image')} a class" if shots else f"{share:g} of each class"
    return f"fitted on {each} ({head.train_images:,} of {all_images:,} training images)"


def starter(board: Sequence[Ranked[HeadInfo]], notes: list[str]) -> HeadInfo | None:
    """Return the head of the best log-loss among those that were fitted by it, None without one.

    Args:
        board: from `resolve.heads_of`, those fitted on a part of train last.
        notes: takes why a better head of another kind was passed over.
    """
    able = [one for one in board if one.info.linear and one.info.log_loss]
    if not able:
        return None
    group = [one for one in able if one.group == able[0].group]
    start = min(group, key=lambda one: one.info.held_out_log_loss or 0.0)
    other = "its scores are not log-odds; name it to start from it all the same"
    notes += [
        f"Starting from {start.info.clf} and not from the best head, {one.info.clf}: "
        f"{other if one.info.linear else 'it is not linear'}."
        for one in board
        if one.group == start.group and one.best and one != start
    ]
    return start.info


def _part_rows(
    table: FeatureTable, info: HeadInfo, select_on: str
) -> tuple[np.ndarray, np.ndarray, str, dict[str, np.ndarray], np.ndarray]:
    """Return the last five of a `Task`; the rows of train are the head's own.

    The part that chooses depends on the head's seed and not on fine-tuning's, so that every run
    compares on the same images.

    Raises:
        UsageError: `--select-on val` without both val and test.
        PipelineError: too few images to set a part aside.
    """
    check_finite(table)
    check_table(table)
    options = replace(_fitted_by(info), select_on="cv", repeats=0)
    duplicates = [NearDuplicate(**one) for one in info.near_duplicates]
    head = split_rows(table, options, [], duplicates, choose=False)
    both = {"val", "test"} <= set(head.reported)
    if select_on == "val" and not both:
        have = ", ".join(name for name in table.split_counts if name)
        raise UsageError(
            f"--select-on val needs train, val and test, so that test can be reported; this table "
            f"has {have}. Use --select-on train-part."
        )
    if select_on == "val" or (select_on == "auto" and both):
        return head.train, head.reported["val"], "val", head.reported, head.group_ids
    aside = _aside(table.labels[head.train], head.group_ids[head.train], options.seed)
    if aside is None:
        raise PipelineError(
            f"{len(head.train)} training images are too few to set a part aside that chooses the "
            "epoch: two classes need two different images at least."
        )
    parts = head.train[~aside], head.train[aside]
    return *parts, "train-part", head.reported, head.group_ids


def _aside(labels: np.ndarray, group_ids: np.ndarray, seed: int) -> np.ndarray | None:
    """Return which images are set aside, bool [n]: a fold that leaves as many classes as can be.

    None where every fold would leave fewer than two.
    """
    count = min(PARTS, len(np.unique(group_ids)))
    if count < 2:
        return None
    of = assign(labels, group_ids, count, seed)
    left = [len(np.unique(labels[of != fold])) for fold in range(count)]
    best = int(np.argmax(left))  # the first of those that leave most
    return of == best if left[best] > 1 else None


def _fitted_by(info: HeadInfo) -> FitHeadOptions:
    return FitHeadOptions.recorded(info.recipe, f"The head {info.folder or info.id}")


def refit(task: Task, rows: np.ndarray) -> SearchResult:
    """Return the head fitted on rows of the table, with the penalty that was chosen.

    Its logits are divided by the temperatures of the named head, which held-out images chose: a
    head that interpolates its images is sure of all of them, and leaves no gradient to learn from.
    """
    info, table = task.head, task.table
    kind, options = HEADS[info.clf], _fitted_by(info)
    grid = None if kind.parameter is None else (float(info.parameters[kind.parameter]),)
    plan = Plan(
        grid=grid,
        balanced=options.class_weight == "balanced",
        normalize=info.normalize,
        seed=options.seed,
        jobs=1,
    )
    check_views(table, options.views)
    features, labels, train, _ = learned(table, options.views, rows, [])
    found = search(
        solved_by(info.clf), features, labels, classes=len(table.classes), train=train, folds=[],
        plan=plan,
    )  # fmt: skip
    assert found.linear is not None
    temperature = (info.temperature or 1.0) * info.calibration_temperature
    chosen = replace(found.chosen, temperature=temperature)
    return replace(found, chosen=chosen, linear=replace(found.linear, temperature=temperature))


def solved_by(clf: str) -> str:
    """Return the kind that finds the same head fastest: `linear` has the objective of `logreg`."""
    return "linear" if clf == "logreg" else clf


def class_weights(task: Task, rows: np.ndarray) -> np.ndarray | None:
    """Return what the head weighs each class with, [K], for rows to learn from; None: all alike."""
    if task.head.recipe["class_weight"] != "balanced":
        return None
    counts = np.bincount(task.table.labels[rows], minlength=len(task.table.classes))
    return np.asarray(len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1)))
