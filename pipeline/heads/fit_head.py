"""Stage two: choose and fit heads on a table's features. No images, no trunk."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError, UsageError
from pipeline.heads import calibration, metrics, predictions
from pipeline.heads.cross_validation import near_duplicates
from pipeline.heads.cross_validation.near_duplicates import NearDuplicate, find_near_duplicates
from pipeline.heads.cross_validation.resplits import resplit
from pipeline.heads.cross_validation.search import Plan, SearchResult, search
from pipeline.heads.head import Head
from pipeline.heads.options import HeadRecipe
from pipeline.heads.registry import HEADS, parse_grid
from pipeline.heads.task import Task, check_table, check_views, learned, split_rows
from pipeline.options import from_options
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.folders import commit_folder
from pipeline.store.results import HEAD
from pipeline.store.table import FeatureTable

#: What of a table's provenance a head keeps, so that it can compute features of other images.
OF_FEATURES = (
    "trunk", "weights", "weights_digest", "weights_asked", "keys", "layer", "pool", "precision",
    "preprocess",
)  # fmt: skip


@dataclass(frozen=True)
class Fitting:
    """What `fit-head` did.

    Attributes:
        table: that it was done on.
        heads: fitted (or found fitted already), in the order asked for.
        reused: ids of those that were there already.
        failed: head's name to the reason.
        leaks: images that stand in two splits.
        notes: sentences for the person.
        seconds: of the whole run.
    """

    table: FeatureTable
    heads: tuple[Head, ...]
    reused: tuple[str, ...]
    failed: dict[str, str]
    leaks: tuple[near_duplicates.Leak, ...]
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "table": str(self.table.path),
            "table_id": self.table.table_id,
            "heads": [{**head.info, "path": str(head.folder)} for head in self.heads],
            "reused": list(self.reused),
            "failed": self.failed,
            "leaks": [leak.to_json() for leak in self.leaks],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


def fit_head(
    table: FeatureTable | str | Path | None = None,
    clf: str = "logreg",
    *,
    cache: str | Path | None = None,
    **options: Any,
) -> Head:
    """Choose a head's penalty by cross-validation, fit it, keep it, and return it.

    Args:
        table: a table, its file, name or id; the cache's current one without it.
        clf: one head's name; see `pipeline.heads.registry.HEADS`.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.
        **options: any other field of `HeadRecipe`.

    Raises:
        PipelineError: with a sentence that says what to do.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> head.classes_[:3]
        ('0', '1', '2')
    """
    recipe = from_options(HeadRecipe, {"clf": clf, **options}, verb="fit_head")
    if len(recipe.check()) != 1:
        raise UsageError("fit_head fits one head; the command fits several.")
    done = run(table, recipe, Cache.at(cache))
    if done.failed:
        raise PipelineError(next(iter(done.failed.values())))
    return done.heads[0]


def run(
    table: FeatureTable | str | Path | None,
    recipe: HeadRecipe,
    cache: Cache,
    progress: Progress | None = None,
) -> Fitting:
    """Do what `fit_head` does for every head asked for, and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    names = recipe.check()
    if not isinstance(table, FeatureTable):
        table = cache.open_table(table)
    check_table(table)
    check_views(table, recipe.views)
    notes: list[str] = []
    if recipe.class_weight and len(names) > 1:
        left = [name for name in names if not HEADS[name].balanced]
        names = [name for name in names if HEADS[name].balanced]
        notes += [f"Left out, since they cannot weigh classes: {', '.join(left)}."] if left else []
    note = near_duplicates.too_many(table.splits, table.features.shape[1])
    notes += [note] if note else []
    task = split_rows(table, recipe, notes)
    folders = {
        name: cache.root / "heads" / _head_id(table, replace(recipe, clf=name)) for name in names
    }
    fitted = {name: head for name, folder in folders.items() if (head := _kept(folder)) is not None}
    reused = tuple(head.id for head in fitted.values())
    duplicates = _duplicates(table, next(iter(fitted.values()), None))
    failed: dict[str, str] = {}
    for name in names:
        if name in fitted:
            continue
        progress.start(name, 0)
        try:
            fitted[name] = _fit(name, table, task, recipe, folders[name], progress, duplicates)
        except PipelineError as error:
            failed[name] = f"{name} could not be fitted: {str(error).splitlines()[0]}"
    if failed and not fitted:
        raise PipelineError(" ".join(failed.values()))
    return Fitting(
        table,
        tuple(fitted[name] for name in names if name in fitted),
        reused,
        failed,
        tuple(near_duplicates.leaks(duplicates, table.paths, table.splits)),
        tuple(notes),
        time.monotonic() - began,
    )


def _duplicates(table: FeatureTable, kept: Head | None) -> list[NearDuplicate]:
    """Return near-duplicates across splits; a head that is kept has those of its table."""
    if kept is None:
        return find_near_duplicates(table.features, table.digests, table.splits)
    return [NearDuplicate(**one) for one in kept.info["near_duplicates"]]


def _head_id(table: FeatureTable, recipe: HeadRecipe) -> str:
    """Return what a head depends on, hashed: not the processes, not the table's place."""
    parts = {
        **asdict(replace(recipe, jobs=None)),
        "table_id": table.table_id,
        "schema": HEAD.schema,
    }
    text = json.dumps({**parts, "versions": _versions(recipe.clf)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _versions(name: str) -> dict[str, str]:
    packages = ["headstart", "numpy", "scikit-learn", *(["torch"] if name == "linear" else [])]
    return {package: version(package) for package in packages}


def _kept(folder: Path) -> Head | None:
    """Return a head that is fitted already; one that is damaged is fitted again."""
    if not folder.is_dir():
        return None
    try:
        return Head.open(folder)
    except PipelineError:
        return None


def _fit(
    name: str,
    table: FeatureTable,
    task: Task,
    recipe: HeadRecipe,
    folder: Path,
    progress: Progress,
    duplicates: list[NearDuplicate],
) -> Head:
    def tell(head: str, parameters: dict[str, Any], best: float) -> None:
        shown = ", ".join(f"{k}={_short(v)}" for k, v in parameters.items())
        progress.update(f"{head} {shown}  best {recipe.select} {abs(best):.4f}")

    plan = Plan(
        select=recipe.select,
        grid=parse_grid(recipe.grid) if recipe.grid else None,
        balanced=recipe.class_weight == "balanced",
        normalize=recipe.normalize,
        seed=recipe.seed,
        jobs=recipe.jobs,
    )
    classes = len(table.classes)
    features, labels, train, folds = learned(table, recipe.views, task.train, task.folds)
    found = search(
        name, features, labels, classes=classes, train=train, folds=folds, plan=plan, progress=tell
    )
    majority = int(np.bincount(table.labels[task.train], minlength=classes).argmax())
    probabilities = {
        split: found.probabilities(np.asarray(table.features[rows]), classes)
        for split, rows in task.reported.items()
    }
    scored = {
        split: metrics.measure(table.labels[rows], probabilities[split], table.classes, majority)
        for split, rows in task.reported.items()
    }
    repeats = resplit(name, table, task, recipe, plan) if recipe.repeats else None
    info = _info(name, table, task, recipe, found, folder.name, scored, repeats, majority)
    info["near_duplicates"] = [asdict(one) for one in duplicates]
    head = Head(info, linear=found.linear, estimator=_estimator(found), folder=folder)

    def write(into: Path) -> None:
        for split, rows in task.reported.items():
            predictions.write(into / f"predictions-{split}.csv", table, rows, probabilities[split])
        head.write(into)

    commit_folder(folder, write, what="the head")
    return head


def _estimator(found: SearchResult) -> Any:
    if found.linear is not None:
        return None
    from sklearn.pipeline import Pipeline

    return Pipeline([("normalize", found.normalizer.step()), ("classify", found.estimator)])


def _info(
    name: str,
    table: FeatureTable,
    task: Task,
    recipe: HeadRecipe,
    found: SearchResult,
    head_id: str,
    scored: dict[str, metrics.Metrics],
    repeats: dict[str, Any] | None,
    majority: int,
) -> dict[str, Any]:
    kind = HEADS[name]
    chosen = found.chosen
    uses_scores = found.linear is not None or not kind.probabilities
    held = None if found.held is None else calibration.fit(*found.held, on=task.selects)
    return {
        "schema": HEAD.schema,
        "id": head_id,
        "clf": name,
        "title": kind.title,
        "log_loss": kind.log_loss,
        "linear": found.linear is not None,
        "table_id": table.table_id,
        "table": str(table.path),
        "fingerprint": table.fingerprint,
        "trunk": table.provenance["trunk"],
        "dim": int(table.features.shape[1]),
        "features": {name: table.provenance[name] for name in OF_FEATURES},
        "classes": list(table.classes),
        "majority": table.classes[majority],
        "recipe": asdict(replace(recipe, clf=name)),
        "normalize": found.normalizer.kind,
        "parameters": chosen.parameters,
        "temperature": chosen.temperature if uses_scores else None,
        "calibration": held,
        "selected_by": recipe.select,
        "selected_on": task.selects,
        "folds": len(task.folds) if task.selects == "cv" else 0,
        "score": _json_number(chosen.score),
        "spread": chosen.spread,
        "trials": [{**asdict(t), "score": _json_number(t.score)} for t in found.trials],
        "train_images": len(task.train),
        "metrics": {
            split: {**values.to_json(), "selected_on": split == task.selects}
            for split, values in scored.items()
        },
        "repeats": repeats,
        "notes": found.notes,
        "seconds": found.seconds,
        "versions": _versions(name),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _json_number(value: float) -> float | None:
    return None if value != value else value
