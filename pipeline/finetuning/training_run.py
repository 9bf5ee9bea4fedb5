"""From a task to a trained model: one recipe, or several of which the data choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.finetuning.activations import LostImages
from pipeline.finetuning.bench import Bench, Setup
from pipeline.finetuning.choosing.budget import LEAST, TIMES
from pipeline.finetuning.choosing.candidates import Candidates
from pipeline.finetuning.choosing.depth import choose_depth, depths
from pipeline.finetuning.outcome import Outcome, Scored, head_logits
from pipeline.finetuning.prepare import Handover, check_handover
from pipeline.finetuning.settings import Epoch, Part
from pipeline.finetuning.states import keep_state, states_of, take_up
from pipeline.finetuning.task import Task
from pipeline.finetuning.training import Diverged, Training
from pipeline.images.names import counted
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.result_records import ModelInfo
from pipeline.store.timings import rate
from pipeline.trunks.engines.products import products

#: Training images of a class below which it is told.
FEW = 5


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
    if few := few_images(task):
        progress.say(few)
    unfinished = unfinished_run(task, cache, progress)
    setup = Setup.of(task, cache, notes, progress)
    if task.options.resume is False:
        for path in unfinished:
            path.unlink(missing_ok=True)
    unfreeze, budget = task.options.unfreeze, budget_of(task, cache)
    history: list[Epoch] = []
    try:
        with products(setup.precision):
            if unfreeze == "auto":
                asked = depths(setup.trunk.module, task.table.provenance.layer)
                unfreeze, history, spent = choose_depth(asked, setup.bench, budget)
                budget = max(budget - spent, budget / 2)
                progress.say(f"What learns is {unfreeze}.")
            bench = setup.bench(unfreeze)
            keep = partial(setup.keep, bench, unfreeze=unfreeze, history=history)
            if task.options.single:
                written = _one_recipe(bench, keep)
            else:
                written = _several(bench, keep, budget, used=bool(history))
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            f"One image does not fit the memory of {setup.device}; unfreeze fewer stages, or give "
            "--device cpu."
        ) from error
    setup.end()
    return written


def unfinished_run(task: Task, cache: Cache, progress: Progress) -> list[Path]:
    """Return the states of an unfinished run of the same, and tell what becomes of it."""
    states = states_of(cache.root / "training", task.folder.name)
    if task.options.resume and not states:
        progress.say("There is no unfinished run of this to resume: starting at the beginning.")
    elif task.options.resume is False and states:
        progress.say(
            "Starting over. (An unfinished run of the same was there; --resume goes on with one.)"
        )
    return states


def few_images(task: Task) -> str:
    """Return a sentence on classes of so few training images that little is learned; else ""."""
    counts = np.bincount(task.table.labels[task.train], minlength=len(task.table.classes))
    few = [
        f"{task.table.classes[label]} {counts[label]:,}"
        for label in np.argsort(counts, kind="stable")
        if counts[label] < FEW
    ]
    if not few:
        return ""
    return (
        f"{counted(len(few), 'class has', 'classes have')} fewer than {FEW} images to learn from "
        f"({', '.join(few[:3])}{', …' * (len(few) > 3)}): what is learned of them is little."
    )


def budget_of(task: Task, cache: Cache) -> float:
    """Return the seconds that trying recipes may take."""
    if task.options.budget is not None:
        return 60 * task.options.budget
    each = rate(cache.memo, task.table.fingerprint) or 0.0
    return max(LEAST, TIMES * each * len(task.table.digests))


def _several(
    bench: Bench, keep: Callable[[Outcome], ModelInfo], budget: float, *, used: bool
) -> ModelInfo:
    """Try several recipes, decide, and keep what won."""
    agreed = _check(bench.training(), bench)
    candidates = Candidates(bench, agreed, budget, used=used)
    try:
        found = candidates.outcome()
    except KeyboardInterrupt:
        if candidates.best is not None:
            info = keep(candidates.early())
            whole = f"the best whole candidate, {candidates.best.trained.recipe}"
            kept = whole if info.beats_head else f"the head, which {whole}, did not beat"
            bench.progress.say(f"Kept in {bench.task.folder}: {kept}.")
        raise
    written = keep(found)
    bench.clear()
    return written


def _one_recipe(bench: Bench, keep: Callable[[Outcome], ModelInfo]) -> ModelInfo:
    """Train one recipe and keep its best epoch."""
    task, options, progress = bench.task, bench.task.options, bench.progress
    tuner = bench.training(head=bench.start)
    agreed = _begin(tuner, bench)
    finite = True
    try:
        while finite and not tuner.ended:
            finite = _epoch(tuner, bench.state(), agreed, progress)
    except KeyboardInterrupt:
        keep(_best_epoch(bench, tuner, agreed, finished=False))
        progress.say(f"Kept epoch {tuner.best_epoch}, the best so far, in {task.folder}.")
        raise
    written = keep(_best_epoch(bench, tuner, agreed, finished=finite))
    bench.clear()
    if not finite:
        raise PipelineError(
            f"The loss was no longer finite in epoch {len(tuner.history)}, at a learning rate of "
            f"{tuner.settings.lr:g}. Kept is epoch {tuner.best_epoch}, the best until then, in "
            f"{task.folder}. Try --lr {options.gentler_rate:g}."
        )
    return written


def _best_epoch(
    bench: Bench, tuner: Training, agreed: Handover | None, *, finished: bool
) -> Outcome:
    """Return the best epoch of one recipe, scored on every split."""
    task = bench.task
    tuner.keep_best()
    options, scored = task.options, {}
    for split, rows in task.scored.items():
        model = tuner.logits(Part.of(task.table, rows))
        chose = split in (task.selects, task.head.selected_on)
        scored[split] = Scored(rows, model, head_logits(bench.head, task, rows), chose)
    return Outcome(
        tensors=tuner.best, start=tuner.start, head=bench.head, train=task.train, scored=scored,
        selects=task.selects, settings=tuner.settings,
        recipe="" if options.recipe == "auto" else options.recipe,
        history=tuner.history, epochs=len(tuner.history) - 1, best_epoch=tuner.best_epoch,
        decision=None, handover=agreed, finished=finished, uses=tuner.uses, notes=tuner.notes,
    )  # fmt: skip


def _begin(tuner: Training, bench: Bench) -> Handover | None:
    """Check the hand-over at step 0, or take up an unfinished run."""
    resume, saved, progress = bench.task.options.resume, bench.state(), bench.progress
    if resume is not False and (facts := take_up(tuner, saved, resume, progress)):
        progress.say(f"Going on after epoch {len(tuner.history) - 1}.")
        return None if facts["handover"] is None else Handover(**facts["handover"])
    agreed = _check(tuner, bench)
    keep_state(tuner, saved, agreed)
    return agreed


def _check(tuner: Training, bench: Bench) -> Handover | None:
    """Score the network before its first step, and compare it with its head."""
    task, start, progress = bench.task, bench.start, bench.progress
    features, logits = tuner.begin()
    first = tuner.history[0]
    line = f"epoch 0  selection {first.loss:.4f} ({first.accuracy:.3f})"
    if start is None:
        progress.say(f"{line}, from a random last layer")
        return None
    stored = np.asarray(task.table.features[task.select])
    agreed = check_handover(
        features,
        logits,
        table=stored,
        head=start,
        precisions=(str(task.table.provenance.precision), tuner.settings.precision),
    )
    scores = start.scores(stored) / np.float32(start.temperature)
    progress.say(
        f"{line}; the head {tuner.loss(scores):.4f} "
        f"({np.mean(scores.argmax(1) == tuner.select.labels):.3f}); logits differ by "
        f"{agreed.logits:.2g} of their length, {agreed.tolerance:g} is allowed"
    )
    return agreed


def _epoch(tuner: Training, saved: Path, agreed: Handover | None, progress: Progress) -> bool:
    """Train for one epoch, keep the state and report on it; return whether the loss is finite."""
    try:
        last = tuner.epoch()
    except Diverged:
        return False
    if not tuner.ended:
        keep_state(tuner, saved, agreed)
    mean = float(np.mean([epoch.seconds for epoch in tuner.history[1:]]))
    left = mean * (tuner.settings.epochs - last.number)
    mark = "  best" if tuner.best_epoch == last.number else ""
    progress.say(
        f"epoch {last.number}/{tuner.settings.epochs}  train {last.train_loss:.4f}  selection "
        f"{last.loss:.4f} ({last.accuracy:.3f})  lr {last.lr:.2e}, head {last.head_lr:.2e}  "
        f"{last.seconds:.1f} s, {left:.0f} s left{mark}"
    )
    return True
