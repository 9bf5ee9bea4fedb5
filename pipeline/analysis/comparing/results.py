"""What came of the contenders, and which are on the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.analysis.comparing.contenders import Contender
from pipeline.analysis.comparing.feature_cost import Cost
from pipeline.heads.metrics import wilson
from pipeline.store.records import HeadInfo
from pipeline.store.table import FeatureTable


@dataclass(frozen=True, eq=False)
class Result:
    """What came of one contender.

    Attributes:
        contender: trunk, weights, layer and pooling.
        table: of its features.
        head: `head.json` of the best of its heads.
        cost: of one image.
        front: whether no other is both as fast and as good, one of the two strictly.
    """

    contender: Contender
    table: FeatureTable
    head: HeadInfo
    cost: Cost
    front: bool = False

    @property
    def accuracy(self) -> float | None:
        """Return the cross-validated accuracy on the training images; None where untried."""
        return self.head.score

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95% Wilson interval of `accuracy`."""
        if self.accuracy is None:
            return None
        images = self.head.train_images
        return wilson(round(self.accuracy * images), images)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        facts, head = self.table.provenance, self.head
        return {
            "title": self.contender.title,
            **{name: getattr(facts, name) for name in ("trunk", "weights", "layer", "pool")},
            "dim": int(self.table.features.shape[1]),
            "precision": facts.precision,
            "table": str(self.table.path),
            "table_id": self.table.table_id,
            "head": head.id,
            "clf": head.clf,
            "parameters": head.parameters,
            "accuracy": self.accuracy,
            "interval": self.interval,
            "metrics": {
                split: {name: getattr(of, name) for name in ("images", "accuracy", "interval")}
                for split, of in head.metrics.items()
            },
            **vars(self.cost),
            "front": self.front,
        }


@dataclass(frozen=True, eq=False)
class Race:
    """What `compare` found.

    Attributes:
        results: the fastest first.
        failed: a contender's title to the reason why there is no result of it.
        notes: sentences for the person.
        extracted: images that went through a trunk in this run, counted for each pass.
        name: of the data.
        seconds: of the whole run.
    """

    results: tuple[Result, ...]
    failed: dict[str, str]
    notes: tuple[str, ...]
    extracted: int
    name: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "results": [result.to_json() for result in self.results],
            "failed": self.failed,
            "notes": list(self.notes),
            "extracted": self.extracted,
            "seconds": round(self.seconds, 3),
        }


def marked(results: Sequence[Result]) -> list[Result]:
    """Return the results with the Pareto front of milliseconds and accuracy marked."""

    def beats(other: Result, one: Result) -> bool:
        better = (other.accuracy or 0) - (one.accuracy or 0)
        faster = one.cost.milliseconds - other.cost.milliseconds
        return better >= 0 and faster >= 0 and (better, faster) != (0, 0)

    tried = [one for one in results if one.accuracy is not None]
    front = [one for one in tried if not any(beats(other, one) for other in tried)]
    return [replace(one, front=one in front) for one in results]
