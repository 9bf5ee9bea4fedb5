"""Stage three: partial fine-tuning that starts from a fitted head."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.task import find_task, fitted_on
from pipeline.heads.head import Head
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.result_records import ModelInfo

if TYPE_CHECKING:
    from pipeline.finetuning.model import Model

#: What Ctrl-C says where nothing is gone on with unasked.
STOPPED = "Stopped. What was committed stays in the cache; the same command with --resume goes on."


@dataclass(frozen=True)
class Tuning:
    """What `finetune` did.

    Attributes:
        info: `model.json`.
        folder: where the model is kept.
        reused: whether it was there already.
        notes: sentences for the person.
        seconds: of the whole run.
        start: which head it started from, and what that was fitted on.
    """

    info: ModelInfo
    folder: Path
    reused: bool
    notes: tuple[str, ...]
    seconds: float
    start: str

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            **self.info.to_json(),
            "path": str(self.folder),
            "reused": self.reused,
            "notes": list(self.notes),
            "run_seconds": round(self.seconds, 3),
        }


def finetune(
    head: Head | str | Path | None = None,
    unfreeze: str | int | Sequence[str] = "layer4",
    *,
    recipe: str = "auto",
    budget: float | None = None,
    epochs: int | None = None,
    batch_size: int = 32,
    lr: float | None = None,
    head_lr_factor: float | None = None,
    layer_decay: float | None = None,
    optimizer: str | None = None,
    weight_decay: float | None = None,
    schedule: str | None = None,
    label_smoothing: float | None = None,
    mixup: float | None = None,
    views: int | None = None,
    augment: str = "auto",
    live: bool = False,
    train_bn: bool = False,
    ema: float | None = None,
    blend: float | None = None,
    patience: int | None = None,
    select_on: str = "auto",
    start: str | None = None,
    from_scratch: bool = False,
    data: str | Path | None = None,
    precision: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    seed: int = 0,
    resume: bool | None = False,
    standalone: bool = False,
    cache: str | Path | None = None,
) -> Model:
    """Fine-tune the last stages of a trunk, starting from a fitted head, and keep the model.

    Args:
        head: a head, its id, folder or kind; the best of the current table that was fitted by
            log-loss without it.
        unfreeze: stages, native modules, a number of last stages, `all`, `none`, or `auto`: the
            last stage, half of them or all, as a short schedule of each says.
        recipe: how to train, one of `pipeline.finetuning.choosing.recipes.RECIPES`; `auto`
            tries several and keeps what wins. Any option of one recipe, from `epochs` to `start`,
            asks for one.
        budget: minutes that trying recipes may take; None for thirty times what extracting these
            images takes, five at least.
        epochs: at most; None for 10 of one recipe.
        batch_size: images a step.
        lr: largest learning rate of the trunk; None for the recipe's.
        head_lr_factor: what the head's is multiplied by; None for the recipe's, from scratch 1.
        layer_decay: what a stage's is multiplied by for each one behind it; None for the recipe's.
        optimizer: `adamw` or `sgd`; None for the recipe's.
        weight_decay: of weights, not of biases and norms; None for the recipe's.
        schedule: `cosine`, `step` or `constant`, after a warm-up; None for `cosine`.
        label_smoothing: in [0, 1); None for 0.1.
        mixup: α of the Beta distribution that says how much of another image is mixed in, at the
            boundary; 0 for none; None for the recipe's.
        views: views kept of each training image beside the evaluation view; None for 4, or, live,
            new ones in every epoch.
        augment: what views look like, one of `pipeline.images.views.POLICIES`; `auto`: the
            boldest that does not harm a head.
        live: run the whole trunk on every image in every epoch, and keep no activations.
        train_bn: let the BatchNorms of unfrozen places follow their batches.
        ema: epochs over which the weights that are scored and kept are averaged; 0 for none; None
            for 1 of one recipe.
        blend: share of the way from the start to these at which weights are scored too, in [0, 1);
            0 for none; None for 0.5. Without a fitted head to start from there is none.
        patience: epochs without a better one after which it ends; None for no end.
        select_on: what chooses: `val`, a part of train (`train-part`), or `auto`: val where there
            is a test split to report on.
        start: the last layer starts from the fitted `head`, or `random`; None for the recipe's.
        from_scratch: train everything from random weights.
        data: folder in which the images lie now; None for where they were extracted from.
        precision: of the training arithmetic: `auto`, `fp32`, `tf32`, `bf16` or `fp16`.
        device: where to train: `auto`, `cpu`, `cuda` or `mps`.
        workers: decoding threads; None for the cores that the process may use.
        seed: of order, views and dropout, from 0.
        resume: go on with an unfinished run of the same; None: where there is one.
        standalone: keep the frozen part in the model's file too.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        The model: `predict_proba` of N images, `classes_` [K], and `info`, what it scored beside
        its head.

    Raises:
        UsageError: an option that cannot be right; a `ValueError` too.
        PipelineError: there is no such head, it is not linear, its images are missing or have
            changed, or the loss was no longer finite.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> model = pipeline.finetune(head, unfreeze="layer4", epochs=1)  # doctest: +SKIP
    """
    from pipeline.finetuning.model import Model

    store = Cache.at(cache)
    done = finetune_head(head, FinetuneOptions.of(locals()), store)
    return Model.open(done.folder, cache=store)


def finetune_head(
    asked: Head | str | Path | None,
    options: FinetuneOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Tuning:
    """Do what `finetune` does and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    options.check()
    notes: list[str] = []
    task = find_task(cache, asked, options, notes)
    head = f"the head {task.head.id} ({task.head.clf}), {fitted_on(task.head, task.table)}"
    progress.say(f"{'Beside' if task.options.from_scratch else 'From'} {head}.")
    info = task.made()
    reused = info is not None
    if info is None:
        from pipeline.finetuning.training_run import make_model

        try:
            info = make_model(task, cache, notes, progress)
        except KeyboardInterrupt as stop:
            if options.resume is not None:
                stop.args = (STOPPED,)
            raise
    return Tuning(info, task.folder, reused, tuple(notes), time.monotonic() - began, head)
