"""`predictions-<split>.csv`: path, label, prediction, probabilities."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from pipeline.store.table import FeatureTable


def write(path: Path, table: FeatureTable, rows: np.ndarray, chances: np.ndarray) -> None:
    """Write the predictions of some of a table's images.

    Args:
        path: of the file.
        table: names paths, labels and classes.
        rows: [n] of the table, all labelled.
        chances: probabilities [n, K].
    """
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "prediction", *[f"p({c})" for c in table.classes]])
        for row, p in zip(rows.tolist(), chances, strict=True):
            label, guess = table.classes[table.labels[row]], table.classes[int(p.argmax())]
            writer.writerow([table.paths[row], label, guess, *[f"{value:.6g}" for value in p]])
