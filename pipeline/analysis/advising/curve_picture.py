"""The learning curve and its forecast as a picture."""

from __future__ import annotations

from pathlib import Path

from pipeline.analysis.advising.learning_curve import Curve
from pipeline.plotting import PICTURE, forecast_axes, plain_figure, png
from pipeline.store.outputs import DRAWN, write_output


def draw(path: Path, curve: Curve) -> None:
    """Write a PNG: measured accuracies over training images, and what more would bring.

    Args:
        path: of the picture.
        curve: measured and extrapolated.

    Raises:
        PipelineError: the file cannot be written.
    """
    figure = plain_figure(6.4, 4)
    axes = figure.subplots()
    forecast_axes(axes, curve.to_json(), colours=("C0", "C1", "0.5"))
    axes.spines[["top", "right"]].set_visible(False)
    write_output(path, png(figure), mark=DRAWN, what=PICTURE)
