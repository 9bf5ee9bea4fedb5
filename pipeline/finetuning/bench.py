"""`Bench`: what every training of a run shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.finetuning.activations import Source
from pipeline.finetuning.network import Network
from pipeline.finetuning.settings import Part, Settings
from pipeline.finetuning.task import Task, class_weights
from pipeline.finetuning.training import Training
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.linear import LinearHead
from pipeline.progress import Progress


@dataclass(frozen=True)
class Bench:
    """The network, its activations, what it starts from, and who is told.

    Attributes:
        task: less the images that have no activation.
        network: what learns; at its start until something is trained.
        fast: the same tensors in a form that runs faster.
        source: gives activations of every view of all images to learn from.
        head: fitted on the task's rows to learn from; the network starts from it.
        settings: how to train; of several recipes what they have in common.
        folder: of states of unfinished runs.
        progress: told of every epoch or candidate.
        notes: takes sentences for the person.
    """

    task: Task
    network: Network
    fast: Network
    source: Source
    head: SearchResult
    settings: Settings
    folder: Path
    progress: Progress
    notes: list[str]

    @property
    def start(self) -> LinearHead | None:
        """Return the head that the last layer starts from; None for a random one."""
        return None if self.task.options.chosen.start == "random" else self.head.linear

    def state(self, name: str = "", suffix: str = ".safetensors") -> Path:
        """Return the file in which an unfinished run, or a candidate of it, keeps its state."""
        named = f"-{name.replace(', ', '-').replace(' ', '-')}" if name else ""
        return self.folder / f"{self.task.folder.name}{named}{suffix}"

    def clear(self) -> None:
        """Remove the states of the run, which is finished."""
        for path in self.folder.glob(f"{self.task.folder.name}[.-]*"):
            path.unlink()

    def training(
        self,
        settings: Settings | None = None,
        train: np.ndarray | None = None,
        select: np.ndarray | None = None,
    ) -> Training:
        """Return a training that starts from what the network holds.

        Args:
            settings: those of the bench without.
            train: rows of the table to learn from; the task's without.
            select: rows that choose; the task's without.
        """
        task, table = self.task, self.task.table
        train = task.train if train is None else train
        select = task.select if select is None else select
        return Training(
            self.network, self.fast, self.source, Part.of(table, train), Part.of(table, select),
            settings or self.settings, class_weights(task, train), notes=self.notes,
        )  # fmt: skip
