"""The learning curve and its forecast as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from pipeline.analysis.advising.learning_curve import Curve
from pipeline.plotting import forecast_axes
from pipeline.store.atomic import write_bytes


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

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    forecast_axes(axes, curve.to_json(), colours=("C0", "C1", "0.5"))
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue(), what="the picture")
