"""`Runs`: trainings of recipes from one start or another, each gone on with where it was left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from torch import Tensor

from pipeline.finetuning.bench import Bench
from pipeline.finetuning.choosing.budget import draws_views
from pipeline.finetuning.choosing.journal import Journal
from pipeline.finetuning.choosing.recipes import RECIPES
from pipeline.finetuning.prepare import Handover, last_layer
from pipeline.finetuning.settings import Epoch, Part, Settings
from pipeline.finetuning.states import keep_state, take_up
from pipeline.finetuning.training import Training
from pipeline.heads.cross_validation.search import SearchResult

#: Seconds of training after which a run's state is written, and at its end.
KEEP_EVERY = 20.0
#: Share of the way from the head to the model that is tried beside the model itself (WiSE-FT;
#: Wortsman et al. 2022).
BETWEEN = 0.5


@dataclass(frozen=True, eq=False)
class Trained:
    """A recipe's network after so many epochs.

    Attributes:
        recipe: its name.
        settings: of the training.
        rows: of the table that it learned from.
        start: the learned tensors before the first step.
        tensors: at the end.
        seconds: of an epoch, in the mean.
    """

    recipe: str
    settings: Settings
    rows: np.ndarray
    start: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    seconds: float

    @property
    def epochs(self) -> int:
        """Return for how many epochs it was trained."""
        return self.settings.epochs

    @property
    def shares(self) -> tuple[float, ...]:
        """Return shares of the way to the end that are tried; from a random layer that alone."""
        return (1.0,) if RECIPES[self.recipe].start == "random" else (BETWEEN, 1.0)


@dataclass
class Runs:
    """What trains recipes, and notes all epochs.

    Attributes:
        bench: what they share.
        journal: of the search; written with each state.
        handover: how exactly the head was carried over.
        history: of every run.
        uses: activations that they asked for.
    """

    bench: Bench
    journal: Journal
    handover: Handover | None
    history: list[Epoch] = field(default_factory=list)
    uses: int = 0

    def __post_init__(self) -> None:
        self.start = self.bench.network.copy()
        self.scorer = self.bench.training()

    def train(
        self,
        recipe: str,
        epochs: int,
        told: str,
        *,
        train: np.ndarray,
        select: np.ndarray,
        head: SearchResult | None = None,
    ) -> Trained:
        """Train to the end, from where an unfinished run was.

        Args:
            recipe: its name.
            epochs: of its schedule.
            told: what the run is called.
            train: rows of the table to learn from.
            select: rows that are scored after each epoch.
            head: fitted on these, that it starts from; the bench's without.

        Raises:
            Diverged: the loss is no longer finite.
        """
        bench = self.bench
        tuner = self._training(recipe, epochs, train, select, head or bench.head)
        saved = bench.state(told)
        if bench.task.options.resume is False or not take_up(tuner, saved, None, bench.progress):
            tuner.begin()
        bench.progress.start(told, 0)
        kept = time.monotonic()
        while not tuner.ended:
            one = tuner.epoch()
            bench.progress.update(f"epoch {one.number}, train {one.train_loss:.4f}")
            if tuner.ended or time.monotonic() - kept > KEEP_EVERY:
                keep_state(tuner, saved, self.handover)
                self.journal.write()
                kept = time.monotonic()
        self.uses += tuner.uses
        self.history += [replace(one, candidate=told) for one in tuner.history]
        seconds = float(np.mean([one.seconds for one in tuner.history[1:]]))
        return Trained(recipe, tuner.settings, train, tuner.start, tuner.best, seconds)

    def time_a_step(self) -> tuple[float, float]:
        """Return the seconds that learning from an image and scoring one take; change nothing."""
        return self.scorer.time_a_step()

    def at(self, trained: Trained, share: float) -> dict[str, Tensor]:
        """Return the tensors at a share of the way from a recipe's start to its end."""
        if share == 1:
            return dict(trained.tensors)
        tuner = self.bench.training(trained.settings, trained.rows, trained.rows[:0])
        tuner.start = dict(trained.start)
        tensors = tuner.blended(trained.tensors, share)
        self.uses += tuner.uses
        return tensors

    def logits(self, tensors: Mapping[str, Tensor], rows: np.ndarray) -> np.ndarray:
        """Return the logits [n, K] of rows of the table with these tensors."""
        self.bench.network.put(tensors)
        self.uses += len(rows)
        return self.scorer.logits(Part.of(self.bench.task.table, rows))

    def start_from(self, head: SearchResult) -> dict[str, Tensor]:
        """Return the network's tensors before the first step, from another head."""
        assert head.linear is not None
        network = self.bench.network
        network.put(self.start)
        network.start_from(last_layer(network.head, head=head.linear))
        return network.copy()

    def settings_of(self, recipe: str, epochs: int) -> Settings:
        """Return the settings of a recipe; a short schedule draws views that were named."""
        own = asdict(RECIPES[recipe])
        del own["start"]
        if self.bench.task.options.augment == "auto" and not draws_views(epochs):
            own |= {"views": (0,), "fresh": ""}
        return replace(self.bench.settings, epochs=epochs, **own)

    def _training(
        self,
        recipe: str,
        epochs: int,
        train: np.ndarray,
        select: np.ndarray,
        head: SearchResult,
    ) -> Training:
        bench, settings = self.bench, self.settings_of(recipe, epochs)
        bench.network.put(self.start_from(head))
        if RECIPES[recipe].start == "head":
            return bench.training(settings, train, select, head.linear)
        bench.network.start_from(last_layer(bench.network.head, seed=settings.seed))
        return bench.training(settings, train, select)
