"""What a head or model predicted for the images of a split, and where it fails."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline import plotting
from pipeline.heads import predictions
from pipeline.heads.metrics import measure, reliability, softmax
from pipeline.heads.uncertainty import draws
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.score_records import Metrics
from pipeline.store.table import FeatureTable

#: Pictures in each gallery.
GALLERY = 24
_TITLES = {
    "train-part": "the part of train that chose the epoch",
    "folds": "held-out folds of train, which decided",
    "val-half": "the half of val that decided",
    "train-part-half": "the half of a part of train that decided",
}


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions for n labelled images of a table. Two are equal when they are the same object.

    Attributes:
        split: `val`, `test`, or `train-part` for the images that chose a model's epoch.
        chose: whether these images chose something.
        rows: [n] int64, of the table.
        labels: [n] int64.
        stored: probabilities [n, K] float64 as they were written, not calibrated.
        probabilities: [n, K] float64, calibrated.
        before: figures of `stored`.
        after: figures of `probabilities`.
    """

    split: str
    chose: bool
    rows: np.ndarray
    labels: np.ndarray
    stored: np.ndarray
    probabilities: np.ndarray
    before: Metrics
    after: Metrics

    @property
    def title(self) -> str:
        """Return the split's name for people."""
        return _TITLES.get(self.split, self.split)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Return the predicted classes, [n] int64."""
        return np.asarray(self.stored.argmax(1))

    @cached_property
    def confidence(self) -> np.ndarray:
        """Return the calibrated probability of each prediction, [n]."""
        return np.asarray(self.probabilities[np.arange(len(self.rows)), self.predicted])

    @property
    def wrong(self) -> np.ndarray:
        """Return positions of the wrong predictions, the most confident first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]

    def mistakes(self, most: int = GALLERY) -> np.ndarray:
        """Return positions of the wrong predictions, the most confident first, at most `most`."""
        return self.wrong[:most]

    def least_certain(self, most: int = GALLERY) -> np.ndarray:
        """Return positions of the images with the smallest confidence, at most `most`."""
        return np.argsort(self.confidence, kind="stable")[:most]

    @cached_property
    def confusions(self) -> list[tuple[int, int, int]]:
        """Return (images, label, predicted) of each confusion, the commonest first."""
        wrong = np.array(self.after.confusion)
        np.fill_diagonal(wrong, 0)
        places = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
        labels, predicted = np.unravel_index(places, wrong.shape)
        counts = wrong[labels, predicted]
        return list(zip(counts.tolist(), labels.tolist(), predicted.tolist(), strict=True))

    @cached_property
    def mostly(self) -> dict[int, tuple[int, int]]:
        """Return label to (images, predicted) of its commonest confusion."""
        return {label: (count, guess) for count, label, guess in reversed(self.confusions)}

    def bins(self) -> dict[str, list[dict[str, float]]]:
        """Return the bins of the reliability diagram that hold images, before and after."""
        right = self.predicted == self.labels
        found = {}
        for when, probabilities in (("before", self.stored), ("after", self.probabilities)):
            sums = reliability(right, probabilities.max(1))
            found[when] = [
                {"images": int(n), "accuracy": hits / n, "confidence": sure / n}
                for n, hits, sure in sums.tolist()
                if n
            ]
        return found

    @property
    def diagram(self) -> str:
        """Return the reliability diagram, an SVG element."""
        before, after = (one.calibration_error for one in (self.before, self.after))
        title = (
            f"Reliability on {self.split}: calibration error {before:.3f} before calibration, "
            f"{after:.3f} after."
        )
        return plotting.reliability(self.bins(), name=f"reliability-{self.split}", title=title)


def read(folder: Path, info: HeadInfo | ModelInfo, table: FeatureTable) -> list[Answers]:
    """Return the answers of a head or model for each split that it was scored on.

    Args:
        folder: of the head or model.
        info: its `head.json` or `model.json`.
        table: that it was made on.

    Raises:
        DamagedError: its stored predictions are not what was written.
    """
    files = {split: folder / f"predictions-{split}.csv" for split in info.metrics}
    stored = {split: predictions.read(file, table) for split, file in files.items()}
    return [
        of(split, one.rows, one.probabilities, table=table, info=info)
        for split, one in stored.items()
    ]


def of(
    split: str,
    rows: np.ndarray,
    probabilities: np.ndarray,
    *,
    table: FeatureTable,
    info: HeadInfo | ModelInfo,
) -> Answers:
    """Return the answers of a head or model for a split.

    Args:
        split: its name.
        rows: [n] of the table.
        probabilities: [n, K] as they were stored, to six digits.
        table: that the head or model was made on.
        info: its `head.json` or `model.json`.
    """
    stored = probabilities / probabilities.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):  # a class of probability 0 keeps it
        calibrated = softmax(np.log(stored), info.calibration_temperature)
    labels, majority = table.labels[rows], table.classes.index(info.majority)
    groups = draws(table.groups_of(rows))
    before, after = (
        measure(labels, p, table.classes, majority, group_ids=groups) for p in (stored, calibrated)
    )
    chose = info.metrics[split].selected_on
    return Answers(split, chose, rows, labels, stored, calibrated, before, after)


def galleries(answers: list[Answers]) -> list[int]:
    """Return the rows whose pictures the section shows, of what was scored last first."""
    shown = [
        one.rows[at] for one in reversed(answers) for at in (one.mistakes(), one.least_certain())
    ]
    return [row for rows in shown for row in rows.tolist()]


def wrong(answers: list[Answers]) -> list[int]:
    """Return the rows of all wrong predictions, which the confusion matrix opens."""
    return [row for one in reversed(answers) for row in one.rows[one.wrong].tolist()]
