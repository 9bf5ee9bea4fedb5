"""What fine-tuning gained on a table, as far as it was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.store.records import ModelInfo

#: Standard errors beyond which a fall of the log-loss is more than chance.
SURE = 1.96
#: A fifth of train may be set aside to choose the epoch; what learned from less is an experiment.
WHOLE = 0.7


@dataclass(frozen=True)
class Gain:
    """A fine-tuned model beside the head that it started from, on images that chose nothing.

    Attributes:
        model: its id.
        unfreeze: what learned; `from scratch` where everything did, from random weights.
        split: that both are measured on.
        chose: whether that split chose the model's epoch, so that the gain is too good.
        images: of it.
        train_images: that were learned from.
        head: the head's accuracy.
        head_interval: 95%.
        accuracy: the model's.
        interval: 95%.
        log_loss_fell: by how much, the head's minus the model's.
        log_loss_error: its standard error over the images.
        head_alone: images that the head alone has right.
        model_alone: images that the model alone has right.
        kept_head: whether no epoch beat the head, so that the model is the head.
    """

    model: str
    unfreeze: str
    split: str
    chose: bool
    images: int
    train_images: int
    head: float
    head_interval: tuple[float, float]
    accuracy: float
    interval: tuple[float, float]
    log_loss_fell: float
    log_loss_error: float
    head_alone: int
    model_alone: int
    kept_head: bool

    @property
    def gained(self) -> float:
        """Return the difference of the accuracies."""
        return self.accuracy - self.head

    @property
    def verdict(self) -> str:
        """Return `gained`, `nothing` or `unclear`.

        A model gained where its accuracy is higher and its log-loss lower by more than chance, and
        nothing where one of them is no better. Log-loss decides since it counts how sure each
        image is, and so tells small gains from chance where the accuracy cannot.
        """
        if self.kept_head or self.gained <= 0 or self.log_loss_fell <= 0:
            return "nothing"
        sure = self.log_loss_fell > SURE * self.log_loss_error
        return "gained" if sure else "unclear"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "gained": self.gained, "verdict": self.verdict}


def find(models: Sequence[ModelInfo], table_id: str, *, images: int) -> tuple[Gain, ...]:
    """Return the gain of each way of fine-tuning that was tried on a table.

    Of the models that unfroze the same the one counts that has the lowest log-loss on the images
    that chose its epoch; so the reported split chooses nothing here either.

    Args:
        models: every `model.json` of the cache.
        table_id: of the table.
        images: that the table has to train on; what learned from less than `WHOLE` of them is
            passed over.
    """
    best: dict[str, tuple[float, ModelInfo]] = {}
    for info in models:
        if info.table_id != table_id or info.train_images < WHOLE * images:
            continue
        way = "from scratch" if info.from_scratch else info.unfreeze
        loss = info.chosen.model.log_loss
        if way not in best or loss < best[way][0]:
            best[way] = loss, info
    return tuple(_gain(way, info) for way, (_, info) in best.items())


def _gain(way: str, info: ModelInfo) -> Gain:
    scored = info.metrics
    reported = [name for name in scored if not scored[name].selected_on]
    split = "test" if "test" in reported else next(iter(reported), info.selected_on)
    of = scored[split]
    return Gain(
        model=info.id,
        unfreeze=way,
        split=split,
        chose=split not in reported,
        images=of.model.images,
        train_images=info.train_images,
        head=of.start.accuracy,
        head_interval=of.start.interval,
        accuracy=of.model.accuracy,
        interval=of.model.interval,
        log_loss_fell=of.start.log_loss - of.model.log_loss,
        log_loss_error=of.paired.log_loss_error,
        head_alone=of.paired.head_alone,
        model_alone=of.paired.model_alone,
        kept_head=not info.beats_head,
    )
