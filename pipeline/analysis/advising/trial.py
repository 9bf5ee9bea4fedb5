"""Fine-tuning tried on a part of train, where that is cheap: what it gains beside a head there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from pipeline.analysis.advising.quadrant import Gain
from pipeline.analysis.options import AdviseOptions
from pipeline.errors import PipelineError
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.task import Task, find_task
from pipeline.heads import metrics
from pipeline.heads.task import make_folds, subsample
from pipeline.heads.uncertainty import draws, mcnemar, mean_error, wilson
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

#: What learns, how, and the seconds that a trial may take.
DEPTHS, RECIPE, SECONDS = ("layer4", "all"), "bold", 60.0
#: Folds of the part, of which one is held out.
FOLDS = 3


def try_out(
    cache: Cache,
    table: FeatureTable,
    head: str | None,
    options: AdviseOptions,
    progress: Progress,
    notes: list[str],
    known: Collection[str] = (),
) -> tuple[Gain, ...]:
    """Return what a short training of the last stage, and of all, gains on a part of train.

    Two thirds of the part are learned from, by network and head alike, and the rest is what both
    are measured on. What would take more than a minute is not tried.

    Args:
        cache: where head, activations and states are.
        table: that the advice is on.
        head: id of a head to start from; None: there is none.
        options: how many images, and where they lie.
        progress: told what is tried.
        notes: takes why something was not.
        known: what need not be tried, since a whole model of it is there.
    """
    if not options.trial:
        return ()
    if head is None:
        notes.append(
            "Fine-tuning was not tried: that takes a head (`pipeline fit-head --clf logreg`)."
        )
        return ()
    gains: list[Gain] = []
    for unfreeze in (one for one in DEPTHS if one not in known):
        progress.start(f"trying {unfreeze}", 0)
        asked = FinetuneOptions(
            unfreeze=unfreeze, recipe=RECIPE, augment="none", data=options.data,
            device=options.device, workers=options.workers, seed=options.seed,
        )  # fmt: skip
        try:
            task = _part(find_task(cache, head, asked, []), options.trial, options.seed)
            gain, seconds = _gain(task, cache)
        except PipelineError as error:
            notes.append(f"Fine-tuning of {unfreeze} was not tried: {error}")
            break
        if gain is None:
            notes.append(
                f"Fine-tuning of {unfreeze} was not tried: {len(task.train):,} images would take "
                f"about {seconds:.0f} s, and {SECONDS:.0f} are allowed."
            )
            break
        gains.append(gain)
    return tuple(gains)


def _part(task: Task, images: int, seed: int) -> Task:
    """Return the task on a stratified part of its training images, of which a third chooses.

    Raises:
        PipelineError: too few images to hold some out.
    """
    table, rows = task.table, task.learners
    groups = task.group_ids[rows]
    if len(rows) > images:
        fraction = images / len(rows)
        some = subsample(table.labels[rows], groups, shots=None, fraction=fraction, seed=seed)
        rows, groups = rows[some], groups[some]
    folds = make_folds(rows, table.labels[rows], groups, count=FOLDS, seed=seed)
    if not folds:
        raise PipelineError("too few training images to hold some out.")
    fitted, held = folds[0]
    folder = task.folder.with_name(f"{task.folder.name}-trial")
    return replace(
        task, train=fitted, select=held, selects="train-part", reported={}, folder=folder
    )


def _gain(task: Task, cache: Cache) -> tuple[Gain | None, float]:
    """Return what a short training gains on the held-out part; None where it takes too long.

    Beside it the seconds that it takes.
    """
    from pipeline.finetuning.bench import Setup
    from pipeline.finetuning.choosing.budget import short_schedule
    from pipeline.finetuning.choosing.journal import Journal
    from pipeline.finetuning.choosing.runs import Runs
    from pipeline.finetuning.outcome import head_logits
    from pipeline.finetuning.training import Diverged
    from pipeline.trunks.engines.products import products

    setup = Setup.of(task, cache, [], Silent())
    with products(setup.precision):
        bench = setup.bench(task.options.unfreeze)
        task = bench.task
        epochs = short_schedule(len(task.train), bench.settings.batch_size)
        bench = replace(bench, settings=replace(bench.settings, ema=0.0, blend=0.0, keep="last"))
        runs = Runs(bench, Journal(bench.state(suffix=".json"), SECONDS), None)
        seconds = epochs * len(task.train) * runs.time_a_step()[0]
        try:
            if seconds > SECONDS:
                return None, seconds
            trained = runs.train(
                RECIPE, epochs, RECIPE, train=task.train, select=task.select[:0]
            )  # fmt: skip
            after = runs.logits(trained.tensors, task.select)
        except Diverged:
            after = head_logits(bench.head, task, task.select)
        finally:
            bench.clear()
            setup.end()
    before = head_logits(bench.head, task, task.select)
    return _measured(task, before, after), seconds


def _measured(task: Task, before: np.ndarray, after: np.ndarray) -> Gain:
    rows = task.select
    labels, groups = task.table.labels[rows], draws(task.table.groups_of(rows))
    right = [logits.argmax(1) == labels for logits in (before, after)]
    head, model = (
        metrics.losses(labels, metrics.softmax(metrics.tempered(logits, labels)))
        for logits in (before, after)
    )
    test = mcnemar(right[0], right[1], groups)
    return Gain(
        model="",
        unfreeze=task.options.unfreeze,
        split="a held-out part of train",
        chose=False,
        images=len(rows),
        train_images=len(task.train),
        head=float(right[0].mean()),
        head_interval=wilson(int(right[0].sum()), len(rows)),
        accuracy=float(right[1].mean()),
        interval=wilson(int(right[1].sum()), len(rows)),
        log_loss_fell=float((head - model).mean()),
        log_loss_error=mean_error(head - model, groups),
        head_alone=test.first_alone,
        model_alone=test.second_alone,
        kept_head=False,
    )
