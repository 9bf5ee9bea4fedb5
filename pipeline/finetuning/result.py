"""From a trained network to `cache/models/<id>/`: figures, predictions, picture, weights."""

from __future__ import annotations

import csv
import hashlib
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor

from pipeline.finetuning import model
from pipeline.finetuning.network.handover import Handover
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.prepare import Prepared
from pipeline.finetuning.task import Task
from pipeline.finetuning.training import curve
from pipeline.finetuning.training.records import Epoch, Part
from pipeline.finetuning.training.training import Training
from pipeline.heads import calibration, metrics, predictions
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.metrics import softmax
from pipeline.store.folders import commit_folder
from pipeline.store.records import (
    Calibration,
    EpochFigures,
    HeadInfo,
    Metrics,
    ModelInfo,
    ModelScores,
    Paired,
)
from pipeline.store.results import MODEL
from pipeline.store.table import FeatureTable
from pipeline.trunks.registry import LoadedTrunk

#: A difference in accuracy counts where chance alone makes one less often (McNemar's exact test).
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that a model's folder is made from.

    Attributes:
        model_id: twelve hexadecimal digits.
        head: `head.json` of the head that was named.
        table: its table.
        trunk: whose parameters the network uses.
        task: which rows did what.
        options: as it was asked for.
        refitted: the head that fine-tuning started from.
        prepared: where activations came from.
        tuner: the training, with its best epoch.
        initial: the learned tensors before the first step.
        handover: how exactly the head was carried over; None for a random start.
    """

    model_id: str
    head: HeadInfo
    table: FeatureTable
    trunk: LoadedTrunk
    task: Task
    options: FinetuneOptions
    refitted: SearchResult
    prepared: Prepared
    tuner: Training
    initial: dict[str, Tensor]
    handover: Handover | None


def commit(outcome: Outcome, folder: Path, *, finished: bool) -> ModelInfo:
    """Put the best epoch into the network, score it, write the folder, return `model.json`."""
    tuner, table, task = outcome.tuner, outcome.table, outcome.task
    tuner.keep_best()
    started = time.perf_counter()
    logits = {}
    for split, rows in task.scored.items():
        digests = tuple(bytes.fromhex(table.digests[row]) for row in rows)
        logits[split] = tuner.logits(Part(digests, table.labels[rows]))
    chances = {split: softmax(values) for split, values in logits.items()}
    held = calibration.fit(logits[task.selects], table.labels[task.select], on=task.selects)
    info = _info(outcome, chances, held, finished, time.perf_counter() - started)
    tensors = model.tensors_of(tuner.network, standalone=info.standalone)

    def write(into: Path) -> None:
        nonlocal info
        for split, rows in task.scored.items():
            predictions.write(into / f"predictions-{split}.csv", table, rows, chances[split])
        _write_history(into / "history.csv", tuner.history)
        curve.draw(
            into / "curve.png", tuner.history, best=tuner.best_epoch, selected_on=task.selects
        )
        info = model.write(into, info, tensors)

    commit_folder(folder, write, what="the model")
    return replace(info, folder=folder)


def _info(
    outcome: Outcome,
    chances: dict[str, np.ndarray],
    held: Calibration,
    finished: bool,
    evaluated: float,
) -> ModelInfo:
    tuner, table, task = outcome.tuner, outcome.table, outcome.task
    network, history = tuner.network, tuner.history
    given, options, head = table.provenance, outcome.options, outcome.head
    scored = _scores(outcome, chances)
    chosen = scored[task.selects]
    return ModelInfo(
        schema=MODEL.schema,
        id=outcome.model_id,
        finished=finished,
        head=head.id,
        head_clf=head.clf,
        head_metrics=head.metrics,
        table_id=table.table_id,
        table=str(table.path),
        fingerprint=table.fingerprint,
        trunk=given.trunk,
        keys=given.keys,
        layer=given.layer,
        pool=given.pool,
        preprocess=given.preprocess,
        weights=outcome.trunk.weights,
        weights_asked="random" if options.from_scratch else given.weights_asked,
        weights_digest=outcome.trunk.weights_digest,
        from_scratch=options.from_scratch,
        unfreeze=options.unfreeze,
        boundary=network.cut.after,
        learns=network.cut.learns,
        places=network.cut.places,
        l2=network.l2,
        # with nothing frozen in front the file holds the whole trunk as it is
        standalone=options.standalone or network.cut.after == "pixels",
        precision=tuner.settings.precision,
        live=outcome.prepared.live,
        classes=table.classes,
        majority=table.classes[_majority(outcome)],
        calibration=held,
        recipe=asdict(options),
        settings=asdict(tuner.settings),
        epochs=len(history) - 1,
        best_epoch=tuner.best_epoch,
        # epoch 0 is the head itself, whatever rounding says
        beats_head=tuner.best_epoch > 0 and beats(chosen),
        selected_on=task.selects,
        compared_on=_compared_on(outcome),
        train_images=len(task.train),
        metrics=scored,
        handover=None if outcome.handover is None else asdict(outcome.handover),
        moved=_moved(outcome),
        history=tuple(_plain(epoch) for epoch in history),
        activations=outcome.prepared.fingerprint,
        shards=tuple(outcome.prepared.shards),
        activations_computed=outcome.prepared.computed,
        seconds={
            "activations": outcome.prepared.seconds,
            "head": outcome.refitted.seconds,
            "training": sum(epoch.seconds for epoch in history),
            "evaluation": evaluated,
        },
        notes=tuple(tuner.notes),
        versions={name: version(name) for name in ("headstart", "torch", "torchvision")},
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


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


def _scores(outcome: Outcome, chances: dict[str, np.ndarray]) -> dict[str, ModelScores]:
    """Return for each split the metrics of the model and of the head that it started from."""
    table, task, classes = outcome.table, outcome.task, outcome.table.classes
    majority = _majority(outcome)
    found = {}
    for split, rows in task.scored.items():
        features = np.asarray(table.features[rows])
        before = outcome.refitted.probabilities(features, len(classes))

        def measured(p: np.ndarray, labels: np.ndarray = table.labels[rows]) -> Metrics:
            return metrics.measure(labels, p, classes, majority)

        found[split] = ModelScores(
            # a split that chose the head's penalty has chosen, too
            selected_on=split in (task.selects, outcome.head.selected_on),
            model=measured(chances[split]),
            start=measured(before),
            paired=_paired(table.labels[rows], before, chances[split]),
        )
    return found


def _paired(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> Paired:
    """Return how far the differences of two on the same images are from chance.

    Args:
        labels: int64 [n].
        before: probabilities [n, K] of the head.
        after: of the model.
    """
    test = metrics.mcnemar(before.argmax(1) == labels, after.argmax(1) == labels)
    one, other = (metrics.losses(labels, chances) for chances in (before, after))
    error = float(np.std(one - other) / np.sqrt(len(labels)))
    return Paired(test.first_alone, test.second_alone, test.p, error)


def _majority(outcome: Outcome) -> int:
    labels = outcome.table.labels[outcome.task.train]
    return int(np.bincount(labels, minlength=len(outcome.table.classes)).argmax())


def _compared_on(outcome: Outcome) -> str:
    """Return a hash of the images that were learned from and of those that chose the epoch."""
    sha = hashlib.sha256()
    for rows in (outcome.task.train, outcome.task.select):
        sha.update("\n".join(outcome.table.digests[row] for row in rows).encode() + b"\0")
    return sha.hexdigest()[:12]


def _moved(outcome: Outcome) -> dict[str, float]:
    """Return how far each place's parameters moved, relative to their length (L2)."""
    network = outcome.tuner.network
    now = network.learned()
    found = {}
    for place in (*network.cut.places, "head"):
        root = {"head": "head.", "neck": "trunk.neck."}.get(place, f"trunk.stages.{place}.")
        names = [
            name
            for name, value in now.items()
            if name.startswith(root) and value.is_floating_point()
        ]
        start = {name: outcome.initial[name].cpu().double() for name in names}
        before = sum(float(value.square().sum()) for value in start.values())
        way = sum(
            float((now[name].detach().cpu().double() - start[name]).square().sum())
            for name in names
        )
        found[place] = (way / before) ** 0.5 if before else 0.0
    return found


def _plain(epoch: Epoch) -> EpochFigures:
    values = {name: None if value != value else value for name, value in asdict(epoch).items()}
    return cast(EpochFigures, values)


def _write_history(path: Path, history: list[Epoch]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(asdict(history[0]))
        for epoch in history:
            writer.writerow("" if value is None else value for value in _plain(epoch).values())
