"""Plots as SVG inside the page: matplotlib draws, the page's style sheet gives the colours.

matplotlib was chosen over libraries that draw in the browser: a plot is 10 to 30 kB and not 1 to
5 MB of script, needs no script at all, its text is text, and it follows dark mode.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What a picture is called where a file that is none stands in its way.
PICTURE = "a picture that Headstart drew"
#: Colours that matplotlib is given, and what the style sheet calls them.
INK, QUIET, GRID = "#010101", "#010102", "#010103"
SERIES = ("#010111", "#010112", "#010113", "#010114", "#010115", "#010116")
_VARIABLES = {
    INK: "var(--ink)",
    QUIET: "var(--quiet)",
    GRID: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)},
}
_LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "savefig.edgecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def plain_figure(width: float, height: float) -> Figure:
    """Return an empty figure of width × height inches, for a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def png(drawn: Figure) -> bytes:
    """Return a figure as a PNG that says what drew it."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=120, metadata={"Software": "Headstart"})
    return buffer.getvalue()


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of width × height inches in the page's look."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_LOOK):
        yield Figure(figsize=(width, height), layout="constrained")


def svg(drawn: Figure, *, name: str, title: str) -> str:
    """Return a figure as an SVG element.

    Args:
        drawn: inside `figure`.
        name: unique on the page; the names inside the SVG begin with it.
        title: what a screen reader says.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(drawn)  # takes the place of the figure's canvas
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", metadata=dict.fromkeys(_METADATA))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    opening, rest = text.split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{_attribute(title)}" class="plot">{rest}'


_METADATA = ("Creator", "Date", "Format", "Type")


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def penalty(curve: dict[str, Any], *, name: str) -> str:
    """Return held-out scores over a head's penalty, with the spread over the folds.

    Args:
        curve: of `choice.penalty_curve`.
        name: unique on the page.
    """
    with figure(4.6, 3.0) as drawn:
        axes = drawn.subplots()
        for colour, line in zip(cycle(SERIES), curve["lines"], strict=False):
            low, high = zip(*((y - s, y + s) for y, s in zip(line["y"], line["spread"],
                                                            strict=True)), strict=True)  # fmt: skip
            axes.fill_between(line["x"], low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(line["x"], line["y"], color=colour, marker="o", markersize=3.5,
                      label=line["label"])  # fmt: skip
        x, y = curve["chosen"]
        axes.plot([x], [y], "o", markersize=9, markerfacecolor="none", markeredgecolor=INK,
                  label="chosen")  # fmt: skip
        if curve["log"]:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel(curve["parameter"])
        axes.set_ylabel(f"{curve['measure']}, {curve['on']}")
        axes.legend(loc="best")
        return svg(drawn, name=name, title=curve["sentence"])


def learning(
    history: Sequence[Any], head: Any, *, best: int, on: str, name: str, title: str
) -> str:
    """Return losses and accuracy over the epochs of fine-tuning, from step 0 on.

    Args:
        history: `EpochFigures` of each epoch.
        head: figures of the head that it started from.
        best: number of the epoch that was kept.
        on: what the scores were measured on.
        name: unique on the page.
        title: what a screen reader says.
    """
    names = list(dict.fromkeys(epoch["candidate"] for epoch in history))
    recipes = list(dict.fromkeys(name.partition(",")[0] for name in names))
    longest = max(epoch["number"] for epoch in history)
    with figure(8.4, 3.0) as drawn:
        left, right = drawn.subplots(1, 2)
        losses = [(e["number"], e["train_loss"]) for e in history if e["train_loss"] is not None]
        if losses and len(names) == 1:
            left.plot(*zip(*losses, strict=True), color=QUIET, label="train, while learning")
        scores = ((left, "loss", "log-loss", head.log_loss),
                  (right, "accuracy", "accuracy", head.accuracy))  # fmt: skip
        for axes, score, what, level in scores:
            for candidate in names:
                own = [e for e in history if e["candidate"] == candidate and e[score] is not None]
                if own:
                    recipe = recipes.index(candidate.partition(",")[0])
                    final = own[-1]["number"] == longest
                    axes.plot([e["number"] for e in own], [e[score] for e in own], marker="o",
                              color=SERIES[recipe % len(SERIES)], markersize=3.5,
                              linestyle="-" if final else ":", label=candidate or on)  # fmt: skip
            if len(names) > 1:  # scored on what chose, as the head was before its first step
                before = [e[score] for e in history if not e["number"] and e[score] is not None]
                level = (max if score == "accuracy" else min)(before, default=level)
                trained = [e[score] for e in history if e["number"] and e[score] is not None]
                _near(axes, trained, level)
            axes.axhline(level, color=QUIET, linestyle="--", linewidth=1.4, label="its head")
            if len(names) == 1:
                axes.axvline(best, color=INK, linestyle=":", linewidth=1.2,
                             label=f"kept: epoch {best}")  # fmt: skip
            axes.set_xlabel("epoch (0: before the first step)")
            axes.set_ylabel(what)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(loc="best")
        return svg(drawn, name=name, title=title)


def _near(axes: Axes, values: Sequence[float], level: float) -> None:
    """Let an axis reach from the scores of trained epochs to the head's, the wildest cut off.

    A random last layer starts at chance, and would press all others flat.
    """
    import numpy as np

    if not values:
        return
    low, high = np.quantile(values, [0.05, 0.95])
    low, high = min(low, level), max(high, level)
    margin = 0.1 * (high - low) or 0.05
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, low - margin), min(top, high + margin))


def forecast(curve: dict[str, Any], *, name: str) -> str:
    """Return the accuracy over training images, measured, and what more would bring.

    Args:
        curve: of `Curve.to_json`, with a `sentence`.
        name: unique on the page.
    """
    with figure(5.6, 3.4) as drawn:
        forecast_axes(drawn.subplots(), curve, colours=(SERIES[0], SERIES[1], QUIET))
        return svg(drawn, name=name, title=curve["sentence"])


def forecast_axes(axes: Axes, curve: dict[str, Any], *, colours: Sequence[str]) -> None:
    """Draw a learning curve and its forecast.

    Args:
        axes: to draw on.
        curve: of `Curve.to_json`.
        colours: of what was measured, of the forecast, and of the check.
    """
    points, check = curve["points"], curve["check"]
    for point in points:
        right = point["accuracies"]
        axes.plot([point["images"]] * len(right), right, ".", color=colours[0], alpha=0.4,
                  markersize=5)  # fmt: skip
    images = [point["images"] for point in points]
    axes.plot(images, [point["accuracy"] for point in points], "o-", color=colours[0],
              markersize=4, label="measured, mean of repeats")  # fmt: skip
    # the check stands at the last point itself: a little aside, to be seen
    for label, colour, found, aside in (
        ("forecast, 95%", colours[1], curve["forecasts"], 1),
        ("forecast from half of them", colours[2], [check] if check else [], 1.06),
    ):
        for number, one in enumerate(found):
            low, high = one["interval"]
            middle = min(max(one["accuracy"], low), high)
            axes.errorbar(
                aside * one["images"], middle, yerr=[[middle - low], [high - middle]], fmt="s",
                color=colour, markersize=4, capsize=4, label=label if not number else None,
            )  # fmt: skip
    axes.set_xscale("log")
    ticks: list[int] = []
    for size in sorted([*images, *(one["images"] for one in curve["forecasts"])]):
        if not ticks or size >= 1.5 * ticks[-1]:  # else the numbers stand in each other
            ticks.append(size)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel("training images")
    axes.set_ylabel(f"accuracy on {curve['measured_on']}")
    axes.legend(loc="lower right", frameon=False)


def reliability(bins: dict[str, list[dict[str, float]]], *, name: str, title: str) -> str:
    """Return accuracy over confidence, before and after calibration.

    Args:
        bins: of `Answers.bins`.
        name: unique on the page.
        title: what a screen reader says.
    """
    with figure(4.6, 4.6) as drawn:
        axes = drawn.subplots()
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1.2, label="ideal")
        most = max((b["images"] for found in bins.values() for b in found), default=1)
        styles = (("before", SERIES[1], "s", "--"), ("after", SERIES[0], "o", "-"))
        for when, colour, marker, line in styles:
            x = [b["confidence"] for b in bins[when]]
            y = [b["accuracy"] for b in bins[when]]
            sizes = [12 + 90 * b["images"] / most for b in bins[when]]
            axes.plot(x, y, color=colour, linestyle=line, linewidth=1.4)
            axes.scatter(x, y, sizes, color=colour, marker=marker, alpha=0.8, linewidths=0,
                         label=f"{when} calibration")  # fmt: skip
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_xlabel("confidence: probability of the prediction")
        axes.set_ylabel("accuracy: share of right predictions")
        axes.legend(loc="upper left", markerscale=0.7)
        return svg(drawn, name=name, title=title)
