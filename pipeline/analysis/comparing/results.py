"""What came of the contenders, which are on the Pareto front, and both as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.analysis.comparing.feature_cost import Cost
from pipeline.analysis.options import Contender
from pipeline.heads.uncertainty import wilson
from pipeline.images.names import shown
from pipeline.plotting import PICTURE, plain_figure, png
from pipeline.store.outputs import DRAWN, write_output
from pipeline.store.result_records import HeadInfo
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
            "dim": self.table.dim,
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


#: An axis is logarithmic where its largest value is more than so many times its least.
WIDE = 4
_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9", "C7")


def draw_results(path: Path, results: Sequence[Result]) -> None:
    """Write a PNG; results have the numbers of their places, and a list beside says which is which.

    Args:
        path: of the picture.
        results: in the order in which they are numbered from 1.
    """
    height = max(4.2, 1.2 + 0.2 * len(results))
    figure = plain_figure(13, height)
    left, right, names = figure.subplots(1, 3, width_ratios=(5, 5, 4))
    trunks = list(dict.fromkeys(_trunk_of(one) for one in results))
    colours = {name: _COLOURS[n % len(_COLOURS)] for n, name in enumerate(trunks)}
    for axes, cost, label in (
        (left, "milliseconds", "ms an image, forward pass"),
        (right, "megabytes", "MB of weights that run, float32"),
    ):
        _panel(axes, results, colours, [getattr(one.cost, cost) for one in results])
        axes.set_xlabel(label)
    left.set_ylabel("accuracy on folds of train, %")
    right.sharey(left)
    front = [one for one in results if one.front]
    left.plot(
        [one.cost.milliseconds for one in front], [100 * (one.accuracy or 0.0) for one in front],
        color="0.4", linewidth=1, linestyle="--", zorder=1, label="Pareto front",
    )  # fmt: skip
    left.legend(frameon=False, fontsize=8, loc="lower right")
    names.axis("off")
    for number, one in enumerate(results, 1):
        weight = "bold" if one.front else "normal"
        names.text(
            0, 1 - (number - 0.5) / len(results), f"{number}  {shown(one.contender.title)}",
            color=colours[_trunk_of(one)], weight=weight, fontsize=8, va="center", parse_math=False,
        )  # fmt: skip
    write_output(path, png(figure), mark=DRAWN, what=PICTURE)


def _panel(
    axes: Any, results: Sequence[Result], colours: dict[str, str], costs: Sequence[float]
) -> None:
    """Draw each result as its number, with the interval of its accuracy."""
    from matplotlib.ticker import LogLocator, NullLocator

    for number, (x, one) in enumerate(zip(costs, results, strict=True), 1):
        if one.accuracy is None or one.interval is None:
            continue
        y, colour = 100 * one.accuracy, colours[_trunk_of(one)]
        low, high = (100 * end for end in one.interval)
        axes.plot([x, x], [low, high], color=colour, linewidth=1, alpha=0.5, zorder=2)
        axes.plot(
            [x], [y], "o", markersize=13, color=colour, markeredgecolor="black", zorder=3,
            markeredgewidth=1.5 if one.front else 0,
        )  # fmt: skip
        axes.annotate(
            str(number), (x, y), color="white", fontsize=7.5, weight="bold", ha="center",
            va="center", zorder=4,
        )  # fmt: skip
    if max(costs) > WIDE * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.6)


def _trunk_of(one: Result) -> str:
    return f"{one.contender.trunk}:{one.contender.weights}"
