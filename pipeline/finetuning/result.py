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
from pipeline.finetuning.choosing.augmentation import Augmentation
from pipeline.finetuning.network import Network
from pipeline.finetuning.outcome import Outcome, Scored
from pipeline.finetuning.settings import Epoch
from pipeline.finetuning.task import Task
from pipeline.heads import metrics, predictions, uncertainty
from pipeline.heads.metrics import softmax
from pipeline.plotting import plain_figure, png
from pipeline.store.atomic import commit_folder
from pipeline.store.records import FeatureSource
from pipeline.store.result_records import EpochFigures, ModelInfo
from pipeline.store.results import MODEL
from pipeline.store.score_records import ModelScores, Paired
from pipeline.store.table import FeatureTable
from pipeline.trunks.registry import LoadedTrunk

#: A difference in accuracy counts where chance alone makes one less often (McNemar's exact test).
LEVEL = 0.05


def commit(
    task: Task,
    network: Network,
    outcome: Outcome,
    *,
    trunk: LoadedTrunk,
    prepared: Prepared,
    augmentation: Augmentation,
) -> ModelInfo:
    """Put what is kept into the network, write the folder, return `model.json`.

    Args:
        task: which rows did what, and the folder.
        network: that was trained.
        outcome: what is kept, and how it was found.
        trunk: whose parameters the network uses.
        prepared: where activations came from.
        augmentation: which views were drawn.
    """
    network.put(outcome.tensors)
    started = time.perf_counter()
    table, head, options = task.table, task.head, task.options
    decisive = outcome.scored[outcome.selects]
    calibrated = metrics.calibrate(decisive.model, table.labels[decisive.rows], on=outcome.selects)
    if not outcome.best_epoch and outcome.handover is not None:
        # the head as it is, whose temperature was fitted with it
        calibrated = replace(calibrated, temperature=1.0, after=calibrated.before)
    trained = table.labels[outcome.train]
    majority = int(np.bincount(trained, minlength=len(table.classes)).argmax())
    scored = {
        split: _scores(task, one, majority, calibrated.temperature)
        for split, one in outcome.scored.items()
    }
    decision = outcome.decision
    rows, after = prepared.rows, network.cut.after
    source = {one.name: getattr(table.provenance, one.name) for one in fields(FeatureSource)}
    source |= {
        name: getattr(trunk, name) for name in ("weights", "weights_asked", "weights_digest")
    }
    source["precision"] = outcome.settings.precision
    del source["dtype"]  # of rows, and a model keeps none
    info = ModelInfo(
        **source,
        schema=MODEL.schema,
        id=task.folder.name,
        finished=outcome.finished,
        head=head.id,
        head_clf=head.clf,
        head_metrics=head.metrics,
        table_id=table.table_id,
        table=str(table.path),
        fingerprint=table.fingerprint,
        from_scratch=options.from_scratch,
        unfreeze=outcome.unfreeze,
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
        settings=outcome.settings.to_json(),
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        kept_recipe=outcome.recipe,
        augmentation=augmentation.to_json(),
        decision=None if decision is None else asdict(decision),
        # epoch 0 is the head itself, whatever rounding says
        beats_head=outcome.best_epoch > 0
        and (
            _beats(decisive, scored[outcome.selects], table) if decision is None else decision.kept
        ),
        selected_on=outcome.selects,
        compared_on=_compared_on(task, outcome.train, decisive.rows),
        train_images=len(outcome.train),
        metrics=scored,
        handover=None if outcome.handover is None else asdict(outcome.handover),
        moved=_moved(network, outcome),
        history=tuple(_plain(epoch) for epoch in outcome.history),
        uses=outcome.uses,
        activations="" if rows is None else rows.key.fingerprint,
        shards=() if rows is None else tuple(rows.index.shards(prepared.keys)),
        activations_computed=0 if rows is None else len(rows.computed),
        seconds={
            "activations": 0.0 if rows is None else rows.seconds,
            "head": outcome.head.seconds,
            "training": sum(epoch.seconds for epoch in outcome.history),
            "evaluation": time.perf_counter() - started,
        },
        notes=tuple(outcome.notes),
        versions={name: version(name) for name in ("headstart", "torch", "torchvision")},
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    tensors = model.tensors_of(network, standalone=info.standalone)

    def write(into: Path) -> None:
        nonlocal info
        for split, of in outcome.scored.items():
            path = into / f"predictions-{split}.csv"
            predictions.write(path, table, of.rows, softmax(of.model))
        _write_history(into / "history.csv", outcome.history)
        draw_curve(into / "curve.png", outcome.history, best=outcome.best_epoch, on=task.selects)
        info = model.write(into, info, tensors)

    commit_folder(task.folder, write, what="the model")
    return replace(info, folder=task.folder)


def beats(before: float, after: float, paired: Paired) -> bool:
    """Tell whether a model is better than its head on the images that chose its epoch.

    It is where its log-loss is lower and it is not less often right by more than chance explains.

    Args:
        before: log-loss of the head, its logits divided by the temperature that suits them best.
        after: of the model, likewise.
        paired: how they differ.
    """
    worse = paired.head_alone > paired.model_alone and paired.p < LEVEL
    return after < before and not worse


def _beats(decisive: Scored, scored: ModelScores, table: FeatureTable) -> bool:
    labels = table.labels[decisive.rows]
    before, after = (
        metrics.log_loss(labels, softmax(metrics.tempered(logits, labels)))
        for logits in (decisive.head, decisive.model)
    )
    return beats(before, after, scored.paired)


def _scores(task: Task, scored: Scored, majority: int, temperature: float) -> ModelScores:
    """Return the metrics of the model, at its temperature, and of its head on a split."""
    table, rows = task.table, scored.rows
    labels, groups = table.labels[rows], uncertainty.draws(table.groups_of(rows))
    after, before = softmax(scored.model, temperature), softmax(scored.head)
    return ModelScores(
        selected_on=scored.chose,
        model=metrics.measure(labels, after, table.classes, majority, group_ids=groups),
        start=metrics.measure(labels, before, table.classes, majority, group_ids=groups),
        paired=_paired(labels, before, after, groups),
    )


def _paired(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, groups: np.ndarray | None
) -> Paired:
    """Return how far the differences of two on the same images are from chance.

    Args:
        labels: int64 [n].
        before: probabilities [n, K] of the head.
        after: of the model.
        groups: from `uncertainty.draws`.
    """
    test = uncertainty.mcnemar(before.argmax(1) == labels, after.argmax(1) == labels, groups)
    one, other = (metrics.influence("log-loss", labels, p) for p in (before, after))
    error = uncertainty.standard_error(one - other, groups)
    return Paired(test.first_alone, test.second_alone, test.p, error, test.groups)


def _compared_on(task: Task, train: np.ndarray, decisive: np.ndarray) -> str:
    """Return a hash of the images that were learned from and of those that chose or decided."""
    sha = hashlib.sha256()
    for rows in (train, decisive):
        sha.update("\n".join(task.table.digests[row] for row in rows).encode() + b"\0")
    return sha.hexdigest()[:12]


def _moved(network: Network, outcome: Outcome) -> dict[str, float]:
    """Return how far each place's parameters moved, relative to their length (L2)."""
    moved, parameters = {}, {f"trunk.{name}" for name in network.cut.learns}
    parameters |= {f"head.{name}" for name, _ in network.head.named_parameters()}
    for place in (*network.cut.places, "head"):
        root = {"head": "head.", "neck": "trunk.neck."}.get(place, f"trunk.stages.{place}.")
        start, now = (
            [
                value.detach().cpu().double()
                for name, value in tensors.items()
                if name.startswith(root) and name in parameters
            ]
            for tensors in (outcome.start, outcome.tensors)
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
        writer.writerow(one.name for one in fields(Epoch))
        for epoch in history:
            writer.writerow("" if value is None else value for value in _plain(epoch).values())


def draw_curve(path: Path, history: Sequence[Epoch], *, best: int, on: str) -> None:
    """Write a PNG: losses and accuracy over the epochs, a line for each candidate.

    Args:
        path: of the picture.
        history: of every candidate, each from epoch 0 on.
        best: number of the epoch that was kept, where there is one candidate.
        on: what the scores were measured on.
    """
    figure = plain_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(epoch.candidate for epoch in history))
    for name in names:
        own = [epoch for epoch in history if epoch.candidate == name]
        numbers = [epoch.number for epoch in own]
        if len(names) == 1:
            left.plot(numbers[1:], [e.train_loss for e in own[1:]], color="0.6", label="train")
        if not all(epoch.loss != epoch.loss for epoch in own):
            left.plot(numbers, [e.loss for e in own], label=name or on)
            right.plot(numbers, [100 * e.accuracy for e in own], label=name or on)
    levels = (history[0].loss, 100 * history[0].accuracy) if history else (0.0, 0.0)
    for axes, level, name in zip((left, right), levels, ("log-loss", "accuracy, %"), strict=True):
        axes.axhline(level, color="0.3", linestyle=":", linewidth=1, label="before the first step")
        if len(names) == 1:
            axes.axvline(best, color="C2", linestyle="--", linewidth=1, label=f"kept: epoch {best}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{name} on {on}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    path.write_bytes(png(figure))
