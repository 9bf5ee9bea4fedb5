"""`Outcome`: what training and choosing found, before it is written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from pipeline.finetuning.choosing.decision import Decision
from pipeline.finetuning.prepare import Handover
from pipeline.finetuning.settings import Epoch, Settings
from pipeline.finetuning.task import Task
from pipeline.heads.cross_validation.search import SearchResult


@dataclass(frozen=True)
class Scored:
    """Logits [n, K] of a model and of its head for rows [n] of the table.

    Attributes:
        rows: of the table.
        model: logits of the model.
        head: of the head, which learned from the same images as the model.
        chose: whether these images chose the model or decided.
    """

    rows: np.ndarray
    model: np.ndarray
    head: np.ndarray
    chose: bool


@dataclass(frozen=True)
class Outcome:
    """A trained network's tensors, and how they were found.

    Attributes:
        tensors: that are kept; the network holds them.
        start: those before the first step.
        head: that they started from.
        train: rows that were learned from.
        scored: split, or `folds`, to what model and head say of it.
        selects: the one of these that chose, or decided.
        settings: of the training.
        recipe: its name; empty where single options made it.
        history: of every candidate.
        epochs: that the kept candidate was trained.
        best_epoch: that was kept; 0 is the head.
        decision: between model and head; None where one candidate's best epoch is kept.
        handover: how exactly the head was carried over; None for a random start.
        uses: activations that training and choosing asked for.
        finished: whether training came to its end.
        notes: sentences for the person.
        unfreeze: what learns, as `--unfreeze` has it.
    """

    tensors: dict[str, Tensor]
    start: dict[str, Tensor]
    head: SearchResult
    train: np.ndarray
    scored: dict[str, Scored]
    selects: str
    settings: Settings
    recipe: str
    history: list[Epoch]
    epochs: int
    best_epoch: int
    decision: Decision | None
    handover: Handover | None
    finished: bool
    uses: int
    notes: list[str] = field(default_factory=list)
    unfreeze: str = ""


def head_logits(head: SearchResult, task: Task, rows: np.ndarray) -> np.ndarray:
    """Return a linear head's logits [n, K] for rows [n] of a task's table."""
    assert head.linear is not None
    features = np.asarray(task.table.features[rows])
    return np.asarray(head.linear.scores(features) / np.float32(head.linear.temperature))
