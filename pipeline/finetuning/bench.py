"""`Setup`, from a task to the bench that trains it, and `Bench`, what every training shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.finetuning.activations import Source
from pipeline.finetuning.boundary import Prepared, make_source
from pipeline.finetuning.choosing.augmentation import Augmentation, choose_policy
from pipeline.finetuning.network import Network
from pipeline.finetuning.options import BLEND, EMA, EPOCHS, FinetuneOptions
from pipeline.finetuning.outcome import Outcome
from pipeline.finetuning.prepare import faster, last_layer, load_trunk, make_network, softened
from pipeline.finetuning.result import commit
from pipeline.finetuning.settings import Epoch, Part, Settings
from pipeline.finetuning.states import states_of
from pipeline.finetuning.task import Task, class_weights, refit
from pipeline.finetuning.training import Training
from pipeline.heads.cross_validation.search import SearchResult
from pipeline.heads.linear import LinearHead
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.result_records import ModelInfo
from pipeline.trunks.engines.devices import choose_device, choose_precision
from pipeline.trunks.registry import LoadedTrunk


@dataclass(frozen=True)
class Bench:
    """The network, its activations, what it starts from, and who is told.

    Attributes:
        task: less the images that have no activation.
        network: what learns; at its start until something is trained.
        fast: the same tensors in a form that runs faster.
        following: likewise, with BatchNorms that follow their batches.
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
    following: Network
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
        for path in states_of(self.folder, self.task.folder.name):
            path.unlink()

    def training(
        self,
        settings: Settings | None = None,
        train: np.ndarray | None = None,
        select: np.ndarray | None = None,
        head: LinearHead | None = None,
    ) -> Training:
        """Return a training that starts from what the network holds.

        Args:
            settings: those of the bench without.
            train: rows of the table to learn from; the task's without.
            select: rows that choose; the task's without.
            head: that the network holds, fitted on `train`; None for a random last layer.
        """
        task, table, soft = self.task, self.task.table, None
        train = task.train if train is None else train
        select = task.select if select is None else select
        settings = settings or self.settings
        run = self.following if settings.train_bn else self.fast
        if head is not None:
            soft = last_layer(self.network.head, head=softened(head, task, train))
        return Training(
            self.network, run, self.source, Part.of(table, train), Part.of(table, select),
            settings, class_weights(task, train), soft, notes=self.notes,
        )  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What all depths of a run share.

    Attributes:
        task: what to train.
        cache: where activations and unfinished runs are.
        trunk: loaded; every network uses its tensors in place.
        augmentation: which views are drawn.
        head: fitted on the rows to learn from.
        device: where to train.
        precision: of the arithmetic.
        notes: takes sentences for the person.
        progress: told of every epoch or candidate.
        prepared: what learns, as `--unfreeze` has it, to where its activations come from.
    """

    task: Task
    cache: Cache
    trunk: LoadedTrunk
    augmentation: Augmentation
    head: SearchResult
    device: str
    precision: str
    notes: list[str]
    progress: Progress
    prepared: dict[str, Prepared] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task, cache: Cache, notes: list[str], progress: Progress) -> Setup:
        """Load the trunk, choose the augmentation and fit the head.

        Raises:
            PipelineError: with a sentence that says what to do.
        """
        device = choose_device(task.options.device)
        precision = choose_precision(task.options.precision, device)
        trunk = load_trunk(task, cache)
        augmentation = choose_policy(task, cache, trunk, device=device, progress=progress)
        head = refit(task, task.train)
        return cls(task, cache, trunk, augmentation, head, device, precision, notes, progress)

    def bench(self, unfreeze: str) -> Bench:
        """Return a network at its start, with the activations in front of what learns.

        Args:
            unfreeze: what learns, as `--unfreeze` has it.

        Raises:
            PipelineError: images that must be read are not there, or are others now.
        """
        task, options = self.task, self.task.options
        start = None if options.chosen.start == "random" else self.head.linear
        network = make_network(self.trunk, task, start, unfreeze=unfreeze)
        prepared = make_source(
            task, self.cache, self.trunk, rows=task.train if options.single else task.learners,
            policy=self.augmentation.policy, after=network.cut.after, device=self.device,
            progress=self.progress,
        )  # fmt: skip
        self.prepared[unfreeze] = prepared
        task = task.without(prepared.lost, self.notes)
        if prepared.rows is None and not options.live:
            self.notes.append(
                "There was no room for activations: they were computed anew in every epoch."
            )
        network.to(torch.device(self.device)).to(memory_format=torch.channels_last)
        example = bytes.fromhex(task.table.digests[task.select[0]])
        fast, following = (
            faster(
                network, prepared.source, example, device=self.device, precision=self.precision,
                train_bn=follows,
            )
            for follows in (False, True)
        )  # fmt: skip
        settings = settings_of(options, prepared, precision=self.precision)
        return Bench(
            task, network, fast, following, prepared.source, self.head, settings,
            self.cache.root / "training", self.progress, self.notes,
        )  # fmt: skip

    def keep(
        self, bench: Bench, outcome: Outcome, *, unfreeze: str, history: list[Epoch]
    ) -> ModelInfo:
        """Write what is kept of a bench's training.

        Args:
            bench: from `bench`.
            outcome: of its training.
            unfreeze: what learned.
            history: of what was tried before.
        """
        outcome = replace(outcome, unfreeze=unfreeze, history=[*history, *outcome.history])
        drawn = outcome.settings.fresh or outcome.settings.views != (0,)
        augmentation = self.augmentation if drawn else replace(self.augmentation, policy="none")
        return commit(
            bench.task, bench.network, outcome, trunk=self.trunk, prepared=self.prepared[unfreeze],
            augmentation=augmentation,
        )  # fmt: skip

    def end(self) -> None:
        """Let go of the activations: the model names those that it needs."""
        for prepared in self.prepared.values():
            if prepared.rows is not None:
                self.cache.end_run(prepared.rows.key.fingerprint, prepared.keys)


def settings_of(options: FinetuneOptions, prepared: Prepared, *, precision: str) -> Settings:
    """Return how to train: the options with what was left open settled.

    Args:
        options: of `finetune`.
        prepared: which views there are.
        precision: of the arithmetic.
    """
    recipe = asdict(options.chosen)
    start = recipe.pop("start")
    blend = BLEND if options.blend is None else options.blend
    return Settings(
        **recipe,
        epochs=options.epochs or EPOCHS,
        batch_size=options.batch_size,
        schedule=options.schedule or "cosine",
        patience=options.patience,
        # recipes that are compared end at a small rate: there is nothing to average
        ema=0.0 if not options.single else EMA if options.ema is None else options.ema,
        blend=blend if options.single and start == "head" else 0.0,
        keep="best" if options.single else "last",
        views=prepared.views,
        fresh=prepared.fresh,
        seed=options.seed,
        precision=precision,
    )
