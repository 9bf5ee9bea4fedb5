"""`FinetuneOptions`: what `finetune` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.finetuning.recipe import SCHEDULES
from pipeline.options import Options, option, shared

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


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Options):
    """The options of `finetune`. Equal options on one head take the same steps.

    Args:
        unfreeze: What learns: stages, neck, native modules, the last N stages.
        epochs: At most.
        batch_size: Training images a step.
        lr: Largest learning rate of the trunk. [default: adamw 2e-4, sgd 0.01; from scratch
            1e-3, 0.05]
        head_lr_factor: The head learns so much faster. [default: 10; from scratch 1]
        schedule: Of the learning rate, after a warm-up over a tenth of the steps.
        views: Random crops kept of each training image. [default: 4; with --live new ones in
            every epoch]
        augment: Random crops and flips, or the evaluation view.
        live: Keep no activations: whole trunk, every epoch.
        train_bn: Unfrozen BatchNorms follow their batches.
        ema: Score and keep the moving average of the weights over E epochs; 0: the weights.
        blend: Score weights at this share of the way from the head to those too; 0: do not.
        patience: End after N epochs without a better.
        select_on: Whose log-loss chooses the epoch; auto: val where there is a test split too.
        start: What the last layer starts from.
        from_scratch: Everything from random weights, to compare.
        data: Where the images lie now.
        workers: Decoding threads. [default: all cores]
        seed: Of order, views and dropout.
        resume: Go on with an unfinished run of the same.
        standalone: Keep the frozen part in the model's file too.
    """

    unfreeze: str = option("layer4", metavar="NAME[,NAME…]|N|all|none")
    epochs: int = option(10, metavar="N", least=1)
    batch_size: int = option(32, metavar="N", least=1)
    lr: float | None = option(None, metavar="LR", within="(0, inf)")
    head_lr_factor: float | None = option(None, metavar="X", within="(0, inf)")
    optimizer: str = option("adamw", choices=OPTIMIZERS)
    weight_decay: float = option(0.01, metavar="W", least=0)
    schedule: str = option("cosine", choices=SCHEDULES)
    label_smoothing: float = option(0.1, metavar="S", within="[0, 1)")
    views: int | None = option(None, metavar="K", least=1)
    augment: str = option("standard", choices=("standard", "none"))
    live: bool = option(False)
    train_bn: bool = option(False)
    ema: float = option(EMA, metavar="E", least=0)
    blend: float = option(BLEND, metavar="S", within="[0, 1)")
    patience: int | None = option(None, metavar="N", least=1)
    select_on: str = option("auto", choices=("auto", "val", "train-part"))
    start: str = option("head", choices=("head", "random"))
    from_scratch: bool = option(False)
    data: str | None = shared("data")
    precision: str = shared("precision")
    device: str = shared("device")
    workers: int | None = shared("workers")
    seed: int = option(0, least=0)
    resume: bool | None = option(False, changes=False)
    standalone: bool = option(False)

    def conflicts(self) -> list[str]:
        """Return a sentence for each value that does not fit the others."""
        faults = []
        if self.views is not None and self.augment == "none":
            faults.append("--views are random crops, and --augment none wants none; drop one.")
        if self.from_scratch and self.unfreeze not in ("layer4", "all"):
            faults.append("--from-scratch trains everything; drop --unfreeze.")
        return faults

    @property
    def rate(self) -> float:
        """Return the trunk's largest learning rate."""
        return self._usual_rate if self.lr is None else self.lr

    @property
    def gentler_rate(self) -> float:
        """Return what to try where training diverged: a tenth, or the usual rate if far below."""
        return self.rate / 10 if self.rate <= 100 * self._usual_rate else self._usual_rate

    @property
    def _usual_rate(self) -> float:
        return (SCRATCH_LR if self.from_scratch else LR)[self.optimizer]

    @property
    def head_factor(self) -> float:
        """Return what the head's learning rate is multiplied by."""
        if self.head_lr_factor is not None:
            return self.head_lr_factor
        return 1.0 if self.from_scratch else HEAD_LR_FACTOR

    @property
    def drawn(self) -> int:
        """Return the views that epochs draw from, as `training.records.draw` takes it."""
        if self.augment == "none":
            return 0
        if self.views is None:
            return -1 if self.live else VIEWS
        return self.views
