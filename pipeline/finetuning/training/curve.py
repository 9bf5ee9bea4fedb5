"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.finetuning.training.records import Epoch
from pipeline.plotting import plain_figure, png


def draw(path: Path, history: Sequence[Epoch], *, best: int, selected_on: str) -> None:
    """Write a PNG: losses and accuracy over the epochs, step 0's level, the best epoch marked.

    Args:
        path: of the picture.
        history: from epoch 0 on.
        best: number of the epoch that was kept.
        selected_on: what the scores were measured on.
    """
    figure = plain_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in history]
    left.plot(numbers[1:], [e.train_loss for e in history[1:]], color="0.6", label="train")
    left.plot(numbers, [e.loss for e in history], color="C0", label=selected_on)
    right.plot(numbers, [100 * e.accuracy for e in history], color="C0", label=selected_on)
    levels = (history[0].loss, 100 * history[0].accuracy)
    for axes, level, name in zip((left, right), levels, ("log-loss", "accuracy, %"), strict=True):
        axes.axhline(level, color="0.3", linestyle=":", linewidth=1, label="before the first step")
        axes.axvline(best, color="C2", linestyle="--", linewidth=1, label=f"kept: epoch {best}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    path.write_bytes(png(figure))
