"""`Settings`: what a training is told, its rates and views over the steps, and what it notes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.images.views import numbered

if TYPE_CHECKING:
    from pipeline.store.table import FeatureTable


@dataclass(frozen=True)
class Settings:
    """How to train. Equal settings on equal data take the same steps.

    Attributes:
        epochs: at most.
        batch_size: images a step.
        lr: largest learning rate of the last unfrozen stage.
        head_lr_factor: what the head's is multiplied by.
        layer_decay: what each stage's is multiplied by, once for every unfrozen stage behind it
            (Clark et al. 2020, "ELECTRA"; Bao et al. 2022, "BEiT").
        optimizer: `sgd` (momentum 0.9) or `adamw`.
        weight_decay: of all parameters of two dimensions and more.
        schedule: `cosine`, `step` or `constant`.
        label_smoothing: in [0, 1).
        mixup: α of the Beta distribution of the share of an image that is its own; 0: all of it.
        train_bn: BatchNorms that learn follow their batches.
        patience: epochs without a better one after which training ends; None for no end.
        ema: epochs over which the weights that are scored and kept are averaged; 0 for none.
        blend: share of the way from the start to these at which weights are scored too (Wortsman
            et al. 2022, "Robust fine-tuning of zero-shot models"); 0 for none.
        keep: `best`, the epoch of the lowest loss on the selection part; or `last`.
        views: numbers of the views that an epoch draws from.
        fresh: the policy of which every epoch draws a view of its own besides; empty for none.
        seed: of order, views and dropout.
        precision: `fp32`, `tf32`, `bf16` or `fp16` of the arithmetic.
    """

    epochs: int
    batch_size: int
    lr: float
    head_lr_factor: float
    layer_decay: float
    optimizer: str
    weight_decay: float
    schedule: str
    label_smoothing: float
    mixup: float
    train_bn: bool
    patience: int | None
    ema: float
    blend: float
    keep: str
    views: tuple[int, ...]
    fresh: str
    seed: int
    precision: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "views": list(self.views)}


@dataclass(frozen=True)
class Part:
    """Images with labels: digests [n] and labels [n] int64."""

    digests: tuple[bytes, ...]
    labels: np.ndarray

    @classmethod
    def of(cls, table: FeatureTable, rows: np.ndarray) -> Part:
        """Return some rows of a table."""
        return cls(tuple(bytes.fromhex(table.digests[row]) for row in rows), table.labels[rows])


@dataclass(frozen=True)
class Epoch:
    """What an epoch showed; number 0 is the network before the first step.

    Attributes:
        number: from 0.
        train_loss: mean over the epoch's images while it went; nan for epoch 0.
        share: of the way from the start to the average that is scored: 1, or `blend` where that
            has the lower loss.
        loss: log-loss of the selection part, its logits divided by the temperature that suits them
            best.
        accuracy: of the selection part.
        lr: of the trunk, at the epoch's last step.
        head_lr: of the head, there.
        seconds: training and scoring.
        candidate: whose epoch it is, where several were tried.
    """

    number: int
    train_loss: float
    share: float
    loss: float
    accuracy: float
    lr: float
    head_lr: float
    seconds: float
    candidate: str = ""


SCHEDULES = ("cosine", "step", "constant")
#: Share of the steps in which the learning rate rises from zero.
WARM_UP = 0.1


def factor(schedule: str, step: int, total: int) -> float:
    """Return what the learning rate is multiplied by.

    After a linear warm-up: half a cosine down to zero (Loshchilov and Hutter 2017), a tenth after
    each third of the steps, or one.

    Args:
        schedule: one of `SCHEDULES`.
        step: from 0.
        total: number of steps.
    """
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "step":
        return float(0.1 ** int(3 * done))
    return 1.0


#: Where every epoch has views of its own, how often the evaluation view is drawn.
PLAIN = 0.2


def draw(
    count: int, *, views: tuple[int, ...], fresh: str = "", epoch: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of an epoch's images [count] and the view of each place in it [count].

    Args:
        count: images.
        views: numbers of the views to draw from.
        fresh: the policy of which a view that no other epoch has is drawn, most of the time.
        epoch: from 1.
        seed: of both draws; the same for every run with it.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(count)
    drawn = rng.choice(np.array(views, np.int64), count)
    if fresh:
        own = rng.random(count) >= PLAIN
        drawn[own] = numbered(fresh, epoch)
    return order, drawn
