"""From a plan to a trained model: the network, its activations, the epochs, the folder."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.finetuning.boundary import Wanted
from pipeline.finetuning.network import handover
from pipeline.finetuning.network.handover import Handover
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.plan import Plan
from pipeline.finetuning.prepare import Prepared, faster, load_trunk, make_network, make_source
from pipeline.finetuning.result import Outcome, commit
from pipeline.finetuning.task import Task, refit
from pipeline.finetuning.training import state
from pipeline.finetuning.training.records import Part, Settings
from pipeline.finetuning.training.training import Training, train
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import log_loss, softmax
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.records import ModelInfo
from pipeline.store.table import FeatureTable
from pipeline.trunks.engines.devices import choose_device, choose_precision


def make(plan: Plan, cache: Cache, notes: list[str], progress: Progress) -> ModelInfo:
    """Train the model of a plan, keep it, and return its `model.json`.

    Args:
        plan: what to train, and where it will be kept.
        cache: where activations and unfinished runs are.
        notes: takes sentences for the person.
        progress: told of every epoch.

    Raises:
        PipelineError: with a sentence that says what to do.
    """
    info, table, task, options, folder = plan.head, plan.table, plan.task, plan.options, plan.folder
    device = choose_device(options.device)
    trunk = load_trunk(table, options, cache)
    found = refit(info, table, task)
    assert found.linear is not None
    start = None if options.start == "random" else found.linear
    network = make_network(trunk, table, options, start, task.train)
    precision = choose_precision(options.precision, device)
    wanted = _wanted(table, task, options)
    prepared = make_source(
        cache, table, trunk, network, wanted, options=options, device=device, progress=progress
    )
    if prepared.views < 0 <= options.drawn:
        notes.append("There was no room for activations: they were computed anew in every epoch.")
    network.to(torch.device(device)).to(memory_format=torch.channels_last)
    initial = {name: value.detach().clone() for name, value in network.learned().items()}
    tuner = Training(
        network,
        faster(network, prepared.source, wanted.scored[0], device=device, precision=precision),
        prepared.source,
        _part(table, task.train),
        _part(table, task.select),
        settings_of(options, prepared, precision),
        notes=notes,
    )
    saved = cache.root / "training" / f"{plan.model_id}.safetensors"
    agreed = _begin(tuner, saved, options, table, task, start, progress)
    outcome = Outcome(
        plan.model_id, info, table, trunk, task, options, found, prepared, tuner, initial, agreed
    )
    clock = time.monotonic()

    def after_epoch(training: Training) -> None:
        if not training.ended:
            _keep(training, saved, agreed)
        _tell(training, progress, time.monotonic() - clock)

    try:
        finite = train(tuner, after_epoch=after_epoch)
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            f"One image does not fit the memory of {device}; unfreeze fewer stages, or give "
            "--device cpu."
        ) from error
    except KeyboardInterrupt:
        commit(outcome, folder, finished=False)
        again = "The same command" + ("" if options.resume is None else " with --resume")
        progress.say(
            f"Kept epoch {tuner.best_epoch}, the best so far, in {folder}. {again} goes on."
        )
        raise
    written = commit(outcome, folder, finished=finite)
    saved.unlink(missing_ok=True)
    if not prepared.live:
        cache.end_run(prepared.fingerprint, prepared.keys)  # the model names them now
    if not finite:
        raise PipelineError(
            f"The loss was no longer finite in epoch {len(tuner.history)}, at a learning rate of "
            f"{options.rate:g}. Kept is epoch {tuner.best_epoch}, the best until then, in "
            f"{folder}. Try --lr {options.rate / 10:g}."
        )
    return written


def _begin(
    tuner: Training,
    saved: Path,
    options: FinetuneOptions,
    table: FeatureTable,
    task: Task,
    start: LinearHead | None,
    progress: Progress,
) -> Handover | None:
    """Check the hand-over at step 0, or take up an unfinished run."""
    if options.resume is not False and (facts := _take_up(tuner, saved, options, progress)):
        progress.say(f"Going on after epoch {len(tuner.history) - 1}.")
        return None if facts["handover"] is None else Handover(**facts["handover"])
    if options.resume:
        progress.say("There is no unfinished run of this to resume: starting at the beginning.")
    elif options.resume is False and saved.exists():
        progress.say(
            "Starting over. (An unfinished run of the same was there; --resume goes on with one.)"
        )
    features, logits = tuner.begin()
    first = tuner.history[0]
    line = f"epoch 0  selection {first.loss:.4f} ({first.accuracy:.3f})"
    if start is None:
        progress.say(f"{line}, from a random last layer")
        _keep(tuner, saved, None)
        return None
    agreed = handover.check(
        features,
        logits,
        table=np.asarray(table.features[task.select]),
        head=start,
        precisions=(str(table.provenance.precision), tuner.settings.precision),
    )
    before = softmax(start.scores(np.asarray(table.features[task.select])), start.temperature)
    labels = table.labels[task.select]
    progress.say(
        f"{line}; the head {log_loss(labels, before):.4f} "
        f"({np.mean(before.argmax(1) == labels):.3f}); logits differ by {agreed.logits:.2g} of "
        f"their length, {agreed.tolerance:g} is allowed"
    )
    _keep(tuner, saved, agreed)
    return agreed


def _take_up(
    tuner: Training, saved: Path, options: FinetuneOptions, progress: Progress
) -> dict[str, Any] | None:
    """Put an unfinished run's state into the training and return its facts, None without one."""
    try:
        held = state.read(saved)
        if held is not None:
            tuner.restore(*held)
    except PipelineError as error:
        if options.resume:
            raise type(error)(f"{error} Run the same command without --resume.") from error
        progress.say(f"{error} Starting over.")
        return None
    return None if held is None else held[1]


def _keep(tuner: Training, saved: Path, agreed: Handover | None) -> None:
    """Write the state from which `--resume` goes on."""
    tensors, facts = tuner.state()
    state.keep(saved, tensors, {**facts, "handover": None if agreed is None else asdict(agreed)})


def _tell(training: Training, progress: Progress, seconds: float) -> None:
    """Tell one line of the epoch that ended."""
    last, epochs = training.history[-1], training.settings.epochs
    mean = float(np.mean([epoch.seconds for epoch in training.history[1:]]))
    left = mean * (epochs - last.number)
    mark = "  best" if training.best_epoch == last.number else ""
    progress.say(
        f"epoch {last.number}/{epochs}  train {last.train_loss:.4f}  selection {last.loss:.4f} "
        f"({last.accuracy:.3f})  lr {last.lr:.2e}, head {last.head_lr:.2e}  {last.seconds:.1f} s, "
        f"{left:.0f} s left{mark}"
    )


def _wanted(table: FeatureTable, task: Task, options: FinetuneOptions) -> Wanted:
    root = Path(options.data or table.provenance.root).expanduser().absolute()
    if not root.is_dir() and options.data is not None:
        raise PipelineError(f"--data {root} is not a folder.")
    scored = np.concatenate(list(task.scored.values()))
    every = np.unique(np.concatenate([task.train, scored]))
    digests = [bytes.fromhex(digest) for digest in table.digests]
    return Wanted(
        train=tuple(digests[row] for row in task.train),
        scored=tuple(digests[row] for row in scored),
        views=max(0, options.drawn),
        paths={digests[row]: f"{root}/{table.paths[row]}" for row in every},
    )


def _part(table: FeatureTable, rows: np.ndarray) -> Part:
    return Part(tuple(bytes.fromhex(table.digests[row]) for row in rows), table.labels[rows])


def settings_of(options: FinetuneOptions, prepared: Prepared, precision: str) -> Settings:
    """Return how to train: the options with what was left open settled."""
    return Settings(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.rate,
        head_lr_factor=options.head_factor,
        optimizer=options.optimizer,
        weight_decay=options.weight_decay,
        schedule=options.schedule,
        label_smoothing=options.label_smoothing,
        patience=options.patience,
        ema=options.ema,
        blend=0.0 if options.from_scratch or options.start == "random" else options.blend,
        views=prepared.views,
        seed=options.seed,
        precision=precision,
    )
