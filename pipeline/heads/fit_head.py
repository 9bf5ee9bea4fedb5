"""Stage two: choose and fit heads on a table's features. No images, no trunk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipeline import clusters
from pipeline.cores import usable_cores
from pipeline.errors import PipelineError
from pipeline.heads import metrics, predictions, uncertainty
from pipeline.heads.cross_validation import near_duplicates
from pipeline.heads.cross_validation.near_duplicates import NearDuplicate, find_near_duplicates
from pipeline.heads.cross_validation.search import Plan, SearchResult, search
from pipeline.heads.estimators.described import settings, short
from pipeline.heads.head import Head
from pipeline.heads.leaderboard import rank_heads
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.registry import kind_of, parse_grid
from pipeline.heads.task import (
    Task,
    assign,
    check_finite,
    check_table,
    check_views,
    learned,
    make_folds,
    split_rows,
    subsampled,
)
from pipeline.progress import Progress, Silent
from pipeline.store.atomic import commit_folder
from pipeline.store.cache import Cache
from pipeline.store.records import FeatureSource
from pipeline.store.result_records import HeadInfo, HeadOptions, HeadTrial, Repeats
from pipeline.store.results import HEAD
from pipeline.store.score_records import SplitMetrics
from pipeline.store.table import FeatureTable

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


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
            "heads": [{**head.info.to_json(), "path": str(head.folder)} for head in self.heads],
            "reused": list(self.reused),
            "failed": self.failed,
            "leaks": [vars(leak) for leak in self.leaks],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


def fit_head(
    table: FeatureTable | str | Path | None = None,
    clf: str | BaseEstimator | Sequence[str | BaseEstimator] = "logreg",
    *,
    folds: int = 5,
    grid: str | Sequence[float] | None = None,
    normalize: str | None = None,
    select: str = "accuracy",
    select_on: str = "cv",
    shots: int | None = None,
    train_fraction: float | None = None,
    views: int = 0,
    class_weight: str | None = None,
    compare_all: bool = False,
    repeats: int = 0,
    jobs: int | None = None,
    on: str | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
) -> Head:
    """Choose a head's penalty by cross-validation, fit it, keep it, and return it.

    Args:
        table: a table, its file, name or id; the cache's current one without it.
        clf: kind of head: `linear`, `logreg`, `ridge`, `svm`, `svm-rbf`, `lda`, `nb`, `knn`,
            `ncm` or `mlp`; or a classifier of scikit-learn with its parameters set, which is
            fitted on a copy. Several, or `all`, for the best of them by selection.
        folds: of the cross-validation, at least 2.
        grid: values (`0.01,0.1,1`) or a range (`1e-6:1e5:45`) in place of the kind's own.
        normalize: `none`, `standard`, `l2`, or None for each kind's own.
        select: `accuracy`, `balanced-accuracy`, `log-loss` or `f1-macro`.
        select_on: `cv`: folds of train choose; `val`: the val split does, and test is reported.
        shots: train on this many images of each class; None for all.
        train_fraction: train on this share of each class, in (0, 1]; None for all.
        views: augmented views of each training image that are learned from besides.
        class_weight: `balanced`, or None.
        compare_all: look for near-copies among more than 20,000 images too, in time that grows
            with their square.
        repeats: resplits over which mean and spread are reported besides.
        jobs: processes, -1 for all cores; None for the cores that the process may use, or what
            `joblib.parallel_config` says.
        on: `dask` for processes of a Dask cluster on this machine, or the address of a running Dask
            scheduler, whose workers see the table at the same place and fit scikit-learn's kinds.
        seed: of folds, subsamples and estimators, from 0.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        The head: `predict_proba` of features [N, D], `classes_` [K], and `info`, what it scored.

    Raises:
        UsageError: an option that cannot be right; a `ValueError` too.
        PipelineError: there is no such table, it has too few labels, or no head could be fitted.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> [str(name) for name in head.classes_[:3]]
        ['0', '1', '2']
    """
    done = fit_heads(table, FitHeadOptions.of(locals()), Cache.at(cache))
    ranked = rank_heads([head.info for head in done.heads], done.table.table_id)
    return next(head for head in done.heads if head.id == ranked[0].info.id)


def fit_heads(
    table: FeatureTable | str | Path | None,
    options: FitHeadOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Fitting:
    """Do what `fit_head` does for every head asked for, and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    options.check()
    names = options.names
    if not isinstance(table, FeatureTable):
        table = cache.open_table(table)
    check_table(table)
    check_views(table, options.views)
    notes: list[str] = []
    if options.class_weight and len(names) > 1:
        left = [short(name) for name in names if not kind_of(name).balanced]
        names = [name for name in names if kind_of(name).balanced]
        notes += [f"Left out, since they cannot weigh classes: {', '.join(left)}."] if left else []
    note = near_duplicates.too_many(len(table.splits), options.compare_all)
    notes += [note] if note else []
    folders = {
        name: cache.root / "heads" / _head_id(table, replace(options, clf=name)) for name in names
    }
    fitted = {name: head for name, folder in folders.items() if (head := _kept(folder)) is not None}
    reused = tuple(head.id for head in fitted.values())
    if missing := any(name not in fitted for name in names):
        check_finite(table)
    if fitted:  # a head that is kept has those of its table
        pairs = next(iter(fitted.values())).info.near_duplicates
        duplicates = [NearDuplicate(**pair) for pair in pairs]
    else:
        duplicates = find_near_duplicates(
            table.features, table.digests, table.splits,
            pairs=(*near_duplicates.ACROSS, ("train", "train")), compare_all=options.compare_all,
        )  # fmt: skip
    task = split_rows(table, options, notes, duplicates, choose=missing)
    failed: dict[str, str] = {}
    with clusters.joblib_on(options.on if missing else None, usable_cores()):
        for name in names:
            if name in fitted:
                continue
            progress.start(short(name), 0)
            try:
                fitted[name] = _fit(name, table, task, options, folders[name], progress, duplicates)
            except PipelineError as error:
                failed[name] = f"{short(name)} could not be fitted: {str(error).splitlines()[0]}"
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


def _head_id(table: FeatureTable, options: FitHeadOptions) -> str:
    """Return what a head depends on, hashed: not the processes, not the table's place."""
    policy = table.provenance.augment if options.views else ""
    parts = {**options.deciding(), "table_id": table.table_id, "policy": policy}
    parts["schema"] = HEAD.schema
    text = json.dumps({**parts, "versions": _versions(options.clf)}, sort_keys=True)
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
    options: FitHeadOptions,
    folder: Path,
    progress: Progress,
    duplicates: list[NearDuplicate],
) -> Head:
    from joblib import effective_n_jobs

    def tell(parameters: dict[str, Any], best: float) -> None:
        shown = ", ".join(
            f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in parameters.items()
        )
        progress.update(f"{short(name)} {shown}  best {options.select} {abs(best):.4f}")

    kind, classes = kind_of(name), len(table.classes)
    alone = options.jobs is None and effective_n_jobs(None) == 1  # no `joblib.parallel_config`
    plan = Plan(
        select=options.select,
        grid=parse_grid(options.grid) if options.grid else None,
        balanced=options.class_weight == "balanced",
        normalize=options.normalize,
        seed=options.seed,
        jobs=usable_cores() if alone else options.jobs,
    )
    features, labels, train, folds = learned(table, options.views, task.train, task.folds)
    # a view is never scored: it needs a number, and any will do
    group_ids = np.resize(task.group_ids, len(labels))
    result = search(
        name, features, labels, classes=classes, train=train, folds=folds, plan=plan,
        group_ids=group_ids, progress=tell, say=progress.say,
    )  # fmt: skip
    majority = int(np.bincount(table.labels[task.train], minlength=classes).argmax())
    probabilities = {
        split: result.probabilities(np.asarray(table.features[rows]), classes)
        for split, rows in task.reported.items()
    }
    scored = {
        split: metrics.measure(
            table.labels[rows],
            probabilities[split],
            table.classes,
            majority,
            group_ids=uncertainty.draws(table.groups_of(rows)),
        )
        for split, rows in task.reported.items()
    }
    chosen, linear, tried = result.chosen, result.linear is not None, bool(folds)
    info = HeadInfo(
        schema=HEAD.schema,
        id=folder.name,
        clf=short(name),
        title=kind.title,
        log_loss=kind.log_loss,
        linear=linear,
        table_id=table.table_id,
        table=str(table.path),
        fingerprint=table.fingerprint,
        trunk=table.provenance.trunk,
        dim=table.dim,
        features=FeatureSource.from_json(table.provenance.to_json()),
        classes=table.classes,
        majority=table.classes[majority],
        recipe=cast(HeadOptions, asdict(replace(options, clf=name))),
        policy=table.provenance.augment if options.views else "",
        normalize=result.normalizer.kind,
        parameters=chosen.parameters or settings(name),
        temperature=None if kind.probabilities and not linear else chosen.temperature,
        calibration=result.held and metrics.calibrate(*result.held[:2], on=task.selects),
        selected_by=options.select,
        selected_on=task.selects,
        folds=len(task.folds) if task.selects == "cv" else 0,
        score=chosen.score if tried else None,
        held_out_log_loss=chosen.log_loss if tried else None,
        spread=chosen.spread,
        trials=tuple(
            cast(HeadTrial, asdict(trial) | ({} if tried else {"score": None, "log_loss": None}))
            for trial in result.trials
        ),
        train_images=len(task.train),
        metrics={
            split: SplitMetrics(**vars(values), selected_on=split == task.selects)
            for split, values in scored.items()
        },
        repeats=resplit(name, table, task, options, plan, progress) if options.repeats else None,
        notes=tuple(result.notes),
        seconds=result.seconds,
        versions=_versions(name),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        near_duplicates=tuple(asdict(one) for one in duplicates),
        folder=folder,
    )
    head = Head(info, linear=result.linear, estimator=_estimator(result), folder=folder)

    def write(into: Path) -> None:
        if result.held is not None:
            _out_of_fold(result, options.select, group_ids).write(into)
        for split, rows in task.reported.items():
            predictions.write(into / f"predictions-{split}.csv", table, rows, probabilities[split])
        head.write(into)

    commit_folder(folder, write, what="the head")
    return head


def _out_of_fold(result: SearchResult, select: str, group_ids: np.ndarray) -> predictions.OutOfFold:
    assert result.held is not None
    logits, labels, rows = result.held
    each = metrics.influence(select, labels, metrics.softmax(logits))
    own = np.unique(group_ids[rows], return_inverse=True)[1]
    return predictions.OutOfFold(rows, logits, np.bincount(own, each))


def _estimator(result: SearchResult) -> Any:
    if result.linear is not None:
        return None
    from sklearn.pipeline import Pipeline

    return Pipeline([("normalize", result.normalizer.step()), ("classify", result.estimator)])


def resplit(
    name: str,
    table: FeatureTable,
    task: Task,
    options: FitHeadOptions,
    plan: Plan,
    progress: Progress,
) -> Repeats:
    """Return accuracies over resplits of train and the reported split, of the same sizes."""
    split = "test" if "test" in task.reported else next(iter(task.reported), None)
    if split is None:
        raise PipelineError("--repeats needs a val or test split to resplit with train.")
    train, held = task.train, task.reported[split]
    pool = np.sort(np.concatenate([train, held]))
    group_ids = task.group_ids
    parts, classes = max(2, round(len(pool) / len(held))), len(table.classes)
    accuracies = []
    for seed in range(options.seed + 1, options.seed + 1 + options.repeats):
        part_of = assign(table.labels[pool], group_ids[pool], parts, seed)
        outside = pool[part_of == 0]
        inside = subsampled(table, pool[part_of != 0], group_ids, options, seed=seed)
        own = table.labels[inside], group_ids[inside]
        folds = make_folds(inside, *own, count=options.folds, seed=seed)
        result = search(
            name, table.features, table.labels, classes=classes, train=inside, folds=folds,
            plan=replace(plan, seed=seed), group_ids=group_ids, say=progress.say,
        )  # fmt: skip
        guesses = result.probabilities(np.asarray(table.features[outside]), classes).argmax(1)
        accuracies.append(float((guesses == table.labels[outside]).mean()))
    return {
        "split": split,
        "accuracies": accuracies,
        "mean": float(np.mean(accuracies)),
        "spread": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0,
    }
