"""What a head or model said of the images of a split, read back from its stored predictions."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DamagedError
from pipeline.heads.metrics import Metrics, measure, reliability, softmax
from pipeline.store.table import FeatureTable


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions for n labelled images of a table. Two are equal when they are the same object.

    Attributes:
        split: `val`, `test`, or `train-part` for the images that chose a model's epoch.
        rows: [n] int64, of the table.
        labels: [n] int64.
        stored: probabilities [n, K] float64 as they were written, not calibrated.
        chances: probabilities [n, K] float64, calibrated.
        before: figures of `stored`.
        after: figures of `chances`.
    """

    split: str
    rows: np.ndarray
    labels: np.ndarray
    stored: np.ndarray
    chances: np.ndarray
    before: Metrics
    after: Metrics

    @property
    def predicted(self) -> np.ndarray:
        """Return the predicted classes, [n] int64."""
        return np.asarray(self.stored.argmax(1))

    @property
    def confidence(self) -> np.ndarray:
        """Return the calibrated probability of each prediction, [n]."""
        return np.asarray(self.chances[np.arange(len(self.rows)), self.predicted])

    def mistakes(self, most: int) -> np.ndarray:
        """Return positions of the wrong predictions, the most confident first, at most `most`."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:most]

    def least_certain(self, most: int) -> np.ndarray:
        """Return positions of the images with the smallest confidence, at most `most`."""
        return np.argsort(self.confidence, kind="stable")[:most]

    def bins(self) -> dict[str, list[dict[str, float]]]:
        """Return the bins of the reliability diagram that hold images, before and after."""
        right = self.predicted == self.labels
        found = {}
        for when, chances in (("before", self.stored), ("after", self.chances)):
            sums = reliability(right, chances.max(1))
            found[when] = [
                {"images": int(n), "accuracy": hits / n, "confidence": sure / n}
                for n, hits, sure in sums.tolist()
                if n
            ]
        return found


def read(folder: Path, info: dict[str, Any], table: FeatureTable) -> list[Answers]:
    """Return the answers of a head or model for each split that it was scored on.

    Args:
        folder: of the head or model, with `predictions-<split>.csv`.
        info: its `head.json` or `model.json`.
        table: that it was made on.

    Raises:
        DamagedError: a file of predictions is missing, or does not fit the table.
    """
    fitted = info["calibration"]
    temperature = 1.0 if fitted is None else float(fitted["temperature"])
    majority = table.classes.index(info["majority"])
    found = []
    for split in info["metrics"]:
        rows, stored = _read(folder / f"predictions-{split}.csv", table)
        labels = table.labels[rows]
        with np.errstate(divide="ignore"):  # a class of probability 0 keeps it
            chances = softmax(np.log(stored), temperature)
        before, after = (measure(labels, p, table.classes, majority) for p in (stored, chances))
        found.append(Answers(split, rows, labels, stored, chances, before, after))
    return found


def _read(path: Path, table: FeatureTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the table that a file of predictions is about, and the probabilities."""
    places: dict[str, list[int]] = defaultdict(list)  # a listing may name a file twice
    for row in range(len(table.paths) - 1, -1, -1):
        places[table.paths[row]].append(row)
    rows, stored = [], []
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.reader(file)
            if next(reader)[3:] != [f"p({name})" for name in table.classes]:
                raise ValueError("its classes are not those of the table")
            for line in reader:
                rows.append(places[line[0]].pop())
                stored.append([float(value) for value in line[3:]])
        chances = np.array(stored, np.float64).reshape(len(rows), len(table.classes))
        if not np.isfinite(chances).all() or not (chances.sum(1) > 0).all():
            raise ValueError("it holds what is no probability")
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing: make the head or model again.") from error
    except (ValueError, IndexError, StopIteration, csv.Error) as error:
        raise DamagedError(
            f"{path} is damaged or not of the table {table.path}: make the head or model again."
        ) from error
    return np.array(rows, np.int64), chances / chances.sum(1, keepdims=True)
