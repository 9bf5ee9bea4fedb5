"""`TuneRecipe`: what `finetune` is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.finetuning.training.schedule import SCHEDULES
from pipeline.options import faults

OPTIMIZERS = ("adamw", "sgd")
#: Kept random views of each training image.
VIEWS = 4
HEAD_LR_FACTOR = 10.0
#: Epochs over which weights are averaged.
EMA = 1.0
#: Share of the way from the head to these at which weights are scored too.
BLEND = 0.5
#: Largest learning rate of the trunk by optimizer; from scratch all of it is new.
LR = {"adamw": 2e-4, "sgd": 1e-2}
SCRATCH_LR = {"adamw": 1e-3, "sgd": 5e-2}
_LEAST = {"epochs": 1, "batch_size": 1, "views": 1, "patience": 1, "workers": 1, "seed": 0}
_ALLOWED = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": ("standard", "none"),
    "start": ("head", "random"),
    "select_on": ("auto", "val", "train-part"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "device": ("auto", "cpu", "cuda", "mps"),
}


@dataclass(frozen=True)
class TuneRecipe:
    """The options of `finetune`. Equal recipes on one head take the same steps.

    Args:
        unfreeze: stages, native modules, a number of last stages, `all` or `none`.
        epochs: at most.
        batch_size: images a step.
        lr: largest learning rate of the trunk; None for the optimizer's own.
        head_lr_factor: what the head's is multiplied by; None for 10, from scratch 1.
        optimizer: `adamw` or `sgd`.
        weight_decay: of weights, not of biases and norms.
        schedule: `cosine`, `step` or `constant`, after a warm-up.
        label_smoothing: in [0, 1).
        views: kept random views of each training image; None for 4, or, live, a new one in
            every epoch.
        augment: `standard` (random crops and flips) or `none`.
        live: run the whole trunk on every image in every epoch, and keep no activations.
        train_bn: let the BatchNorms of unfrozen places follow their batches.
        ema: epochs over which the weights that are scored and kept are averaged; 0 for none.
        blend: share of the way from the start to these at which weights are scored too, in [0, 1);
            0 for none. Without a fitted head to start from there is none.
        patience: epochs without a better one after which it ends; None for no end.
        select_on: what chooses the epoch: `val`, a part of train, or `auto`: val where there is
            a test split to report on.
        start: the last layer starts from the fitted `head`, or `random`.
        from_scratch: train everything from random weights.
        data: folder in which the images lie now; None for where they were extracted from.
        precision: of the training arithmetic.
        device: where to train.
        workers: decoding threads; None for the cores that the process may use.
        seed: of order, views and dropout.
        resume: go on with an unfinished run of the same; None: where there is one.
        standalone: keep the frozen part in the model's file too.
    """

    unfreeze: str = "layer4"
    epochs: int = 10
    batch_size: int = 32
    lr: float | None = None
    head_lr_factor: float | None = None
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "cosine"
    label_smoothing: float = 0.1
    views: int | None = None
    augment: str = "standard"
    live: bool = False
    train_bn: bool = False
    ema: float = EMA
    blend: float = BLEND
    patience: int | None = None
    select_on: str = "auto"
    start: str = "head"
    from_scratch: bool = False
    data: str | None = None
    precision: str = "auto"
    device: str = "auto"
    workers: int | None = None
    seed: int = 0
    resume: bool | None = False
    standalone: bool = False

    def check(self) -> None:
        """Refuse values that cannot be right, all in one message.

        Raises:
            UsageError: what was given, what is allowed, the nearest name.
        """
        found = faults(self, least=_LEAST, allowed=_ALLOWED)
        for name in ("lr", "head_lr_factor"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                found.append(f"--{name.replace('_', '-')} {value:g} is not above 0.")
        for name in ("weight_decay", "ema"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                found.append(f"--{name.replace('_', '-')} {value:g} is not 0 or above.")
        for name in ("label_smoothing", "blend"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                found.append(f"--{name.replace('_', '-')} {value:g} is not in [0, 1).")
        if self.views is not None and self.augment == "none":
            found.append("--views are random crops, and --augment none wants none; drop one.")
        if self.from_scratch and self.unfreeze not in ("layer4", "all"):
            found.append("--from-scratch trains everything; drop --unfreeze.")
        if found:
            raise UsageError(" ".join(found))

    @property
    def rate(self) -> float:
        """Return the trunk's largest learning rate."""
        rates = SCRATCH_LR if self.from_scratch else LR
        return rates[self.optimizer] if self.lr is None else self.lr

    @property
    def head_factor(self) -> float:
        """Return what the head's learning rate is multiplied by."""
        if self.head_lr_factor is not None:
            return self.head_lr_factor
        return 1.0 if self.from_scratch else HEAD_LR_FACTOR

    @property
    def drawn(self) -> int:
        """Return the views that epochs draw from, as `tuning.schedule.draw` takes it."""
        if self.augment == "none":
            return 0
        if self.views is None:
            return -1 if self.live else VIEWS
        return self.views
