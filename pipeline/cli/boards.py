"""Tables of heads for people."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pipeline.cli.options import shown


def lines(heads: list[dict[str, Any]]) -> list[str]:
    """Return a leaderboard as aligned lines, the best by selection marked with *."""
    rows = [_row(head) for head in heads]
    header = ["", "head", "choice", "selection", *_splits(heads), "seconds", "id"]
    return aligned([header, *rows], right={len(header) - 2})


def aligned(rows: list[list[str]], *, right: Collection[int] = ()) -> list[str]:
    """Return rows of cells as lines, columns aligned left, or right where they are named so."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        shown("  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip())
        for row in rows
    ]  # fmt: skip


def _splits(heads: list[dict[str, Any]]) -> list[str]:
    names = [name for name in ("val", "test") if any(name in h["metrics"] for h in heads)]
    return [f"{name} [95%]" for name in names]


def _row(head: dict[str, Any]) -> list[str]:
    choice = ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in head["parameters"].items()
    )
    if views := head["recipe"].get("views"):
        choice = f"{choice}, views={views}" if choice else f"views={views}"
    score = (
        "untried" if head["score"] is None else f"{abs(head['score']):.4f} ± {head['spread']:.4f}"
    )
    return [
        "*" if head.get("best") else "",
        head["clf"],
        choice or "-",
        score,
        *[accuracy(values) for values in head["metrics"].values()],
        f"{head['seconds']:.1f}",
        head["id"],
    ]


def accuracy(values: dict[str, Any]) -> str:
    """Return `0.954 [0.908, 0.978]`, and `chose` behind a split that chose."""
    low, high = values["interval"]
    mark = " chose" if values.get("selected_on") else ""
    return f"{values['accuracy']:.3f} [{low:.3f}, {high:.3f}]{mark}"


def figures(values: dict[str, Any]) -> str:
    """Return all figures of a split's metrics in a line."""
    parts = [
        f"accuracy {accuracy(values)}",
        f"balanced {values['balanced_accuracy']:.3f}",
        f"macro F1 {values['f1_macro']:.3f}",
        f"log-loss {values['log_loss']:.3f}",
        *([f"top-5 {values['top5']:.3f}"] if values["top5"] is not None else []),
        f"calibration error {values['calibration_error']:.3f}",
        f"majority class {values['baseline']:.3f}",
    ]
    return ", ".join(parts)
