"""From a trained network to `cache/models/<id>/`: figures, predictions, picture, weights."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
from torch.nn.utils import get_total_norm

from pipeline.finetuning import model
from pipeline.finetuning.boundary import Prepared
from pipeline.finetuning.prepare import Handover
from pipeline.finetuning.recipe import Epoch, Part
from pipeline.finetuning.task import Task
from pipeline.finetuning.training import Training
from pipeline.heads import metrics, predictions
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.metrics import softmax
from pipeline.plotting import plain_figure, png
from pipeline.store.atomic import commit_folder
from pipeline.store.records import FeatureSource
from pipeline.store.result_records import EpochFigures, ModelInfo, ModelScores, Paired
from pipeline.store.results import MODEL
from pipeline.trunks.registry import LoadedTrunk

#: A difference in accuracy counts where chance alone makes one less often (McNemar's exact test).
LEVEL = 0.05


def commit(
    task: Task,
    tuner: Training,
    *,
    trunk: LoadedTrunk,
    refitted: SearchResult,
    prepared: Prepared,
    handover: Handover | None,
    finished: bool,
) -> ModelInfo:
    """Put the best epoch into the network, score it, write the folder, return `model.json`.

    Args:
        task: which rows did what, and the folder.
        tuner: the training, with its best epoch.
        trunk: whose parameters the network uses.
        refitted: the head that fine-tuning started from.
        prepared: where activations came from.
        handover: how exactly the head was carried over; None for a random start.
        finished: whether training came to its end.
    """
    tuner.keep_best()
    started = time.perf_counter()
    table, head, options, network = task.table, task.head, task.options, tuner.network
    logits = {split: tuner.logits(Part.of(table, rows)) for split, rows in task.scored.items()}
    probabilities = {split: softmax(values) for split, values in logits.items()}
    labels = table.labels[task.select]
    calibrated = metrics.calibrate(logits[task.selects], labels, on=task.selects)
    trained = table.labels[task.train]
    majority = int(np.bincount(trained, minlength=len(table.classes)).argmax())
    scored = _scores(task, refitted, probabilities, majority)
    rows, after = prepared.rows, network.cut.after
    source = {one.name: getattr(table.provenance, one.name) for one in fields(FeatureSource)}
    source |= {
        name: getattr(trunk, name) for name in ("weights", "weights_asked", "weights_digest")
    }
    source["precision"] = tuner.settings.precision
    info = ModelInfo(
        **source,
        schema=MODEL.schema,
        id=task.folder.name,
        finished=finished,
        head=head.id,
        head_clf=head.clf,
        head_metrics=head.metrics,
        table_id=table.table_id,
        table=str(table.path),
        fingerprint=table.fingerprint,
        from_scratch=options.from_scratch,
        unfreeze=options.unfreeze,
        boundary=after,
        learns=network.cut.learns,
        places=network.cut.places,
        l2=network.l2,
        # with nothing frozen in front the file holds the whole trunk as it is
        standalone=options.standalone or after == "pixels",
        live=rows is None,
        classes=table.classes,
        majority=table.classes[majority],
        calibration=calibrated,
        recipe=asdict(options),
        settings=asdict(tuner.settings),
        epochs=len(tuner.history) - 1,
        best_epoch=tuner.best_epoch,
        # epoch 0 is the head itself, whatever rounding says
        beats_head=tuner.best_epoch > 0 and beats(scored[task.selects]),
        selected_on=task.selects,
        compared_on=_compared_on(task),
        train_images=len(task.train),
        metrics=scored,
        handover=None if handover is None else asdict(handover),
        moved=_moved(tuner),
        history=tuple(_plain(epoch) for epoch in tuner.history),
        activations="" if rows is None else rows.key.fingerprint,
        shards=() if rows is None else tuple(rows.index.shards(prepared.keys)),
        activations_computed=0 if rows is None else len(rows.computed),
        seconds={
            "activations": 0.0 if rows is None else rows.seconds,
            "head": refitted.seconds,
            "training": sum(epoch.seconds for epoch in tuner.history),
            "evaluation": time.perf_counter() - started,
        },
        notes=tuple(tuner.notes),
        versions={name: version(name) for name in ("headstart", "torch", "torchvision")},
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    tensors = model.tensors_of(network, standalone=info.standalone)

    def write(into: Path) -> None:
        nonlocal info
        for split, of in task.scored.items():
            predictions.write(into / f"predictions-{split}.csv", table, of, probabilities[split])
        _write_history(into / "history.csv", tuner.history)
        draw_curve(
            into / "curve.png", tuner.history, best=tuner.best_epoch, selected_on=task.selects
        )
        info = model.write(into, info, tensors)

    commit_folder(task.folder, write, what="the model")
    return replace(info, folder=task.folder)


def beats(scored: ModelScores) -> bool:
    """Tell whether a model is better than its head on the images that chose its epoch.

    It is where its log-loss is lower and it is not less often right by more than chance explains:
    smoothed labels lower the log-loss of a head that is too sure of itself, whatever they cost.

    Args:
        scored: of `metrics`, of that part.
    """
    paired = scored.paired
    worse = paired.head_alone > paired.model_alone and paired.p < LEVEL
    return scored.model.log_loss < scored.start.log_loss and not worse


def _scores(
    task: Task, refitted: SearchResult, probabilities: dict[str, np.ndarray], majority: int
) -> dict[str, ModelScores]:
    """Return for each split the metrics of the model and of the head that it started from."""
    table, classes = task.table, task.table.classes
    compared = {}
    for split, rows in task.scored.items():
        labels, after = table.labels[rows], probabilities[split]
        groups = metrics.draws(table.groups_of(rows))
        before = refitted.probabilities(np.asarray(table.features[rows]), len(classes))
        compared[split] = ModelScores(
            # a split that chose the head's penalty has chosen, too
            selected_on=split in (task.selects, task.head.selected_on),
            model=metrics.measure(labels, after, classes, majority, group_ids=groups),
            start=metrics.measure(labels, before, classes, majority, group_ids=groups),
            paired=_paired(labels, before, after, groups),
        )
    return compared


def _paired(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, groups: np.ndarray | None
) -> Paired:
    """Return how far the differences of two on the same images are from chance.

    Args:
        labels: int64 [n].
        before: probabilities [n, K] of the head.
        after: of the model.
        groups: from `metrics.draws`.
    """
    test = metrics.mcnemar(before.argmax(1) == labels, after.argmax(1) == labels, groups)
    one, other = (metrics.influence("log-loss", labels, p) for p in (before, after))
    error = metrics.standard_error(one - other, groups)
    return Paired(test.first_alone, test.second_alone, test.p, error, test.groups)


def _compared_on(task: Task) -> str:
    """Return a hash of the images that were learned from and of those that chose the epoch."""
    sha = hashlib.sha256()
    for rows in (task.train, task.select):
        sha.update("\n".join(task.table.digests[row] for row in rows).encode() + b"\0")
    return sha.hexdigest()[:12]


def _moved(tuner: Training) -> dict[str, float]:
    """Return how far each place's parameters moved, relative to their length (L2)."""
    learned, moved = tuner.network.learned(), {}
    for place in (*tuner.network.cut.places, "head"):
        root = {"head": "head.", "neck": "trunk.neck."}.get(place, f"trunk.stages.{place}.")
        start, now = (
            [
                value.detach().cpu().double()
                for name, value in tensors.items()
                if name.startswith(root) and value.is_floating_point()
            ]
            for tensors in (tuner.start, learned)
        )
        length = float(get_total_norm(start))
        way = get_total_norm([after - before for before, after in zip(start, now, strict=True)])
        moved[place] = float(way) / length if length else 0.0
    return moved


def _plain(epoch: Epoch) -> EpochFigures:
    values = {name: None if value != value else value for name, value in asdict(epoch).items()}
    return cast(EpochFigures, values)


def _write_history(path: Path, history: list[Epoch]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(asdict(history[0]))
        for epoch in history:
            writer.writerow("" if value is None else value for value in _plain(epoch).values())


def draw_curve(path: Path, history: Sequence[Epoch], *, best: int, selected_on: str) -> None:
    """Write a PNG: losses and accuracy over the epochs, step 0's level, the best epoch marked.

    Args:
        path: of the picture.
        history: from epoch 0 on.
        best: number of the epoch that was kept.
        selected_on: what the scores were measured on.
    """
    figure = plain_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in history]
    left.plot(numbers[1:], [e.train_loss for e in history[1:]], color="0.6", label="train")
    left.plot(numbers, [e.loss for e in history], color="C0", label=selected_on)
    right.plot(numbers, [100 * e.accuracy for e in history], color="C0", label=selected_on)
    levels = (history[0].loss, 100 * history[0].accuracy)
    for axes, level, name in zip((left, right), levels, ("log-loss", "accuracy, %"), strict=True):
        axes.axhline(level, color="0.3", linestyle=":", linewidth=1, label="before the first step")
        axes.axvline(best, color="C2", linestyle="--", linewidth=1, label=f"kept: epoch {best}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    path.write_bytes(png(figure))
