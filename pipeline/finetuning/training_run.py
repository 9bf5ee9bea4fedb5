"""From a task to a trained model: the network, its activations, the epochs, the folder."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.errors import DamagedError, PipelineError
from pipeline.finetuning.activations import LostImages
from pipeline.finetuning.boundary import make_source
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.prepare import Handover, check_handover, faster, load_trunk, make_network
from pipeline.finetuning.recipe import Part, Settings
from pipeline.finetuning.result import commit
from pipeline.finetuning.task import Task, refit
from pipeline.finetuning.training import Diverged, Training
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import log_loss, softmax
from pipeline.images.names import counted
from pipeline.progress import Progress
from pipeline.store.atomic import write_bytes
from pipeline.store.cache import Cache
from pipeline.store.result_records import ModelInfo
from pipeline.trunks.engines.devices import choose_device, choose_precision
from pipeline.trunks.engines.products import products


def make_model(task: Task, cache: Cache, notes: list[str], progress: Progress) -> ModelInfo:
    """Train the model of a task, keep it, and return its `model.json`.

    Images that vanish while the network learns from them are left out from the last epoch on.

    Args:
        task: what to train, and where it will be kept.
        cache: where activations and unfinished runs are.
        notes: takes sentences for the person.
        progress: told of every epoch.

    Raises:
        PipelineError: with a sentence that says what to do.
    """
    try:
        return _make(task, cache, notes, progress)
    except LostImages as error:
        smaller = task.without(error.lost, notes)
        progress.say(f"{error} Going on without ({counted(len(error.lost), 'image')} in all).")
        going_on = replace(task.options, resume=None)
        return make_model(replace(smaller, options=going_on), cache, notes, progress)


def _make(task: Task, cache: Cache, notes: list[str], progress: Progress) -> ModelInfo:
    options = task.options
    device = choose_device(options.device)
    trunk = load_trunk(task, cache)
    refitted = refit(task)
    assert refitted.linear is not None
    start = None if options.start == "random" else refitted.linear
    network = make_network(trunk, task, start)
    precision = choose_precision(options.precision, device)
    prepared = make_source(
        task, cache, trunk, after=network.cut.after, device=device, progress=progress
    )
    task = task.without(prepared.lost, notes)
    if prepared.views < 0 <= options.drawn:
        notes.append("There was no room for activations: they were computed anew in every epoch.")
    network.to(torch.device(device)).to(memory_format=torch.channels_last)
    source = prepared.source
    train, select = Part.of(task.table, task.train), Part.of(task.table, task.select)
    fast = faster(network, source, select.digests[0], device=device, precision=precision)
    settings = settings_of(options, views=prepared.views, precision=precision)
    tuner = Training(network, fast, source, train, select, settings, notes=notes)
    saved = cache.root / "training" / f"{task.folder.name}.safetensors"
    agreed = _begin(tuner, saved, task, start, progress)
    keep = partial(
        commit, task, tuner, trunk=trunk, refitted=refitted, prepared=prepared, handover=agreed
    )
    finite = True
    try:
        with products(precision):
            while finite and not tuner.ended:
                finite = _epoch(tuner, saved, agreed, progress)
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            f"One image does not fit the memory of {device}; unfreeze fewer stages, or give "
            "--device cpu."
        ) from error
    except KeyboardInterrupt:
        keep(finished=False)
        again = "The same command" + ("" if options.resume is None else " with --resume")
        progress.say(
            f"Kept epoch {tuner.best_epoch}, the best so far, in {task.folder}. {again} goes on."
        )
        raise
    written = keep(finished=finite)
    saved.unlink(missing_ok=True)
    if prepared.rows is not None:
        cache.end_run(prepared.rows.key.fingerprint, prepared.keys)  # the model names them now
    if not finite:
        raise PipelineError(
            f"The loss was no longer finite in epoch {len(tuner.history)}, at a learning rate of "
            f"{options.rate:g}. Kept is epoch {tuner.best_epoch}, the best until then, in "
            f"{task.folder}. Try --lr {options.gentler_rate:g}."
        )
    return written


def _begin(
    tuner: Training, saved: Path, task: Task, start: LinearHead | None, progress: Progress
) -> Handover | None:
    """Check the hand-over at step 0, or take up an unfinished run."""
    resume = task.options.resume
    if resume is not False and (facts := _take_up(tuner, saved, resume, progress)):
        progress.say(f"Going on after epoch {len(tuner.history) - 1}.")
        return None if facts["handover"] is None else Handover(**facts["handover"])
    if resume:
        progress.say("There is no unfinished run of this to resume: starting at the beginning.")
    elif resume is False and saved.exists():
        progress.say(
            "Starting over. (An unfinished run of the same was there; --resume goes on with one.)"
        )
        saved.unlink()
    features, logits = tuner.begin()
    first = tuner.history[0]
    line = f"epoch 0  selection {first.loss:.4f} ({first.accuracy:.3f})"
    agreed = None
    if start is None:
        progress.say(f"{line}, from a random last layer")
    else:
        stored = np.asarray(task.table.features[task.select])
        agreed = check_handover(
            features,
            logits,
            table=stored,
            head=start,
            precisions=(str(task.table.provenance.precision), tuner.settings.precision),
        )
        before = softmax(start.scores(stored), start.temperature)
        labels = tuner.select.labels
        progress.say(
            f"{line}; the head {log_loss(labels, before):.4f} "
            f"({np.mean(before.argmax(1) == labels):.3f}); logits differ by {agreed.logits:.2g} of "
            f"their length, {agreed.tolerance:g} is allowed"
        )
    _keep_state(tuner, saved, agreed)
    return agreed


def _take_up(
    tuner: Training, saved: Path, resume: bool | None, progress: Progress
) -> dict[str, Any] | None:
    """Put an unfinished run's state into the training and return its facts, None without one."""
    try:
        kept = read_state(saved)
        if kept is not None:
            tuner.restore(*kept)
    except PipelineError as error:
        if resume:
            raise type(error)(f"{error} Run the same command without --resume.") from error
        progress.say(f"{error} Starting over.")
        return None
    return None if kept is None else kept[1]


def _keep_state(tuner: Training, saved: Path, agreed: Handover | None) -> None:
    """Write the state from which `--resume` goes on."""
    tensors, facts = tuner.state()
    write_state(saved, tensors, {**facts, "handover": None if agreed is None else asdict(agreed)})


def _epoch(tuner: Training, saved: Path, agreed: Handover | None, progress: Progress) -> bool:
    """Train for one epoch, keep the state and report on it; return whether the loss is finite."""
    try:
        last = tuner.epoch()
    except Diverged:
        return False
    if not tuner.ended:
        _keep_state(tuner, saved, agreed)
    mean = float(np.mean([epoch.seconds for epoch in tuner.history[1:]]))
    left = mean * (tuner.settings.epochs - last.number)
    mark = "  best" if tuner.best_epoch == last.number else ""
    progress.say(
        f"epoch {last.number}/{tuner.settings.epochs}  train {last.train_loss:.4f}  selection "
        f"{last.loss:.4f} ({last.accuracy:.3f})  lr {last.lr:.2e}, head {last.head_lr:.2e}  "
        f"{last.seconds:.1f} s, {left:.0f} s left{mark}"
    )
    return True


def settings_of(options: FinetuneOptions, *, views: int, precision: str) -> Settings:
    """Return how to train: the options with what was left open settled.

    Args:
        options: of `finetune`.
        views: that there is room for, as `draw` takes it.
        precision: of the arithmetic.
    """
    same = {one.name: getattr(options, one.name) for one in fields(Settings)}
    same |= {"lr": options.rate, "head_lr_factor": options.head_factor}
    if options.start == "random":
        same["blend"] = 0.0
    return Settings(**{**same, "views": views, "precision": precision})


def write_state(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a state and rename it into place.

    Args:
        path: a `.safetensors` file.
        tensors: by name, any device.
        facts: plain JSON values.

    Raises:
        PipelineError: the file and the system's reason.
    """
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    image = save(on_cpu, metadata={"facts": json.dumps(facts)})
    write_bytes(path, image, what="the state of the run")


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return a state, or None where there is none.

    Raises:
        DamagedError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedError(
            f"The state of the unfinished run {path} is damaged ({error})."
        ) from error
