"""What a head or model said of the images of a split, read back from its stored predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.heads.metrics import measure, reliability, softmax
from pipeline.store.records import Metrics, ResultInfo
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


def of(
    split: str, rows: np.ndarray, chances: np.ndarray, *, table: FeatureTable, info: ResultInfo
) -> Answers:
    """Return the answers of a head or model for a split.

    Args:
        split: its name.
        rows: [n] of the table.
        chances: probabilities [n, K] as they were stored, to six digits.
        table: that the head or model was made on.
        info: its `head.json` or `model.json`.
    """
    stored = chances / chances.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):  # a class of probability 0 keeps it
        calibrated = softmax(np.log(stored), info.calibration_temperature)
    labels, majority = table.labels[rows], table.classes.index(info.majority)
    before, after = (measure(labels, p, table.classes, majority) for p in (stored, calibrated))
    return Answers(split, rows, labels, stored, calibrated, before, after)
