"""What a training is told, what it learns from and is scored on, and what it notes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.store.table import FeatureTable


@dataclass(frozen=True)
class Settings:
    """How to train. Equal settings on equal data take the same steps.

    Attributes:
        epochs: at most.
        batch_size: images a step.
        lr: largest learning rate of the trunk.
        head_lr_factor: what the head's is multiplied by.
        optimizer: `sgd` (momentum 0.9) or `adamw`.
        weight_decay: of all parameters of two dimensions and more.
        schedule: `cosine`, `step` or `constant`.
        label_smoothing: in [0, 1).
        patience: epochs without a better one after which training ends; None for no end.
        ema: epochs over which the weights that are scored and kept are averaged; 0 for none.
        blend: share of the way from the start to these at which weights are scored too (Wortsman
            et al. 2022, "Robust fine-tuning of zero-shot models"); 0 for none.
        views: see `schedule.draw`.
        seed: of order, views and dropout.
        precision: `fp32`, `bf16` or `fp16` of the arithmetic.
    """

    epochs: int
    batch_size: int
    lr: float
    head_lr_factor: float
    optimizer: str
    weight_decay: float
    schedule: str
    label_smoothing: float
    patience: int | None
    ema: float
    blend: float
    views: int
    seed: int
    precision: str


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
        loss: log-loss of the selection part.
        accuracy: of the selection part.
        lr: of the trunk, at the epoch's last step.
        head_lr: of the head, there.
        seconds: training and scoring.
    """

    number: int
    train_loss: float
    share: float
    loss: float
    accuracy: float
    lr: float
    head_lr: float
    seconds: float
