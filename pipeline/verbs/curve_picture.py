"""The learning curve and its forecast as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from pipeline.store.atomic import write_bytes
from pipeline.verbs.learning_curve import Curve


def draw(path: Path, curve: Curve) -> None:
    """Write a PNG: measured accuracies over training images, and what more would bring.

    Args:
        path: of the picture.
        curve: measured and extrapolated.

    Raises:
        PipelineError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    images = [point.images for point in curve.points]
    for point in curve.points:
        right = [100 * (1 - error) for error in point.errors]
        axes.plot([point.images] * len(right), right, ".", color="C0", alpha=0.4, markersize=5)
    means = [100 * (1 - point.error) for point in curve.points]
    axes.plot(images, means, "o-", color="C0", markersize=4, label="measured, mean of repeats")
    shown = [("forecast, 95%", "C1", curve.forecasts)]
    shown += [("forecast from half of them", "0.5", (curve.check,))] if curve.check else []
    for label, colour, found in shown:
        for number, one in enumerate(found):
            low, high = (100 * value for value in one.interval)
            middle = 100 * one.accuracy
            # the check stands at the last point itself: a little aside, to be seen
            at = one.images * (1.06 if one is curve.check else 1)
            axes.errorbar(
                at, middle, yerr=[[middle - low], [high - middle]], fmt="s", color=colour,
                markersize=4, capsize=4, label=label if not number else None,
            )  # fmt: skip
    axes.set_xscale("log")
    ticks = [*images, *(one.images for one in curve.forecasts)]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("training images")
    axes.set_ylabel(f"accuracy on {curve.measured_on}, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue(), what="the picture")
