"""Where a head or model fails, as the page shows it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import plotting
from pipeline.images.names import shown
from pipeline.reporting.page.answers import Answers
from pipeline.store.table import FeatureTable

#: Pictures in each gallery.
GALLERY = 24
#: Classes up to which the confusion matrix is shown whole, and confusions that are listed beyond.
MATRIX, PAIRS = 30, 40
TITLES = {
    "val": "val",
    "test": "test",
    "train-part": "the part of train that chose the epoch",
}


def seen_first(answers: list[Answers]) -> list[int]:
    """Return the rows whose pictures the section shows: galleries, then every wrong prediction."""
    found: list[int] = []
    for said in answers:
        for positions in (said.mistakes(GALLERY), said.least_certain(GALLERY)):
            found += said.rows[positions].tolist()
    for said in answers:
        found += said.rows[said.predicted != said.labels].tolist()
    return found


def section(
    said: Answers, table: FeatureTable, place: dict[int, int], *, chose: bool
) -> dict[str, Any]:
    """Return what the page says of one split.

    Args:
        said: the answers.
        table: names the classes.
        place: row to the image's number on the page, where it has one.
        chose: whether these images chose something.
    """
    before, after, name = said.before, said.after, said.split
    names = [shown(name) for name in table.classes]
    counts = np.array(after.confusion, np.int64)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    return {
        "split": name,
        "title": TITLES.get(name, name),
        "chose": chose,
        "images": after.images,
        "right": int(counts.diagonal().sum()),
        "accuracy": after.accuracy,
        "interval": after.interval,
        "balanced_accuracy": after.balanced_accuracy,
        "f1_macro": after.f1_macro,
        "top5": after.top5,
        "baseline": after.baseline,
        "log_loss": {"before": before.log_loss, "after": after.log_loss},
        "calibration_error": {
            "before": before.calibration_error,
            "after": after.calibration_error,
        },
        "classes": [
            {**line, "class": names[label], "label": label, "confused": _most(wrong[label], names)}
            for label, line in enumerate(after.classes)
        ],
        "matrix": counts.tolist() if len(names) <= MATRIX else None,
        "pairs": _pairs(wrong, names),
        "reliability": _reliability(said),
        "bins": said.bins(),
        "mistakes": _tiles(said, said.mistakes(GALLERY), names, table, place),
        "uncertain": _tiles(said, said.least_certain(GALLERY), names, table, place),
    }


def _most(wrong: np.ndarray, names: list[str]) -> dict[str, Any] | None:
    """Return the class that a class is most often taken for."""
    at = int(wrong.argmax())
    return {"class": names[at], "images": int(wrong[at])} if wrong[at] else None


def _pairs(wrong: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """Return the commonest confusions."""
    flat = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    return [
        {
            "label": int(label),
            "predicted": int(guess),
            "images": int(wrong[label, guess]),
            "label_name": names[label],
            "predicted_name": names[guess],
        }
        for label, guess in zip(*np.unravel_index(flat, wrong.shape), strict=True)
        if wrong[label, guess]
    ]


def _reliability(said: Answers) -> str:
    error = [values.calibration_error for values in (said.before, said.after)]
    title = (
        f"Reliability on {said.split}: calibration error {error[0]:.3f} before calibration, "
        f"{error[1]:.3f} after."
    )
    return plotting.reliability(said.bins(), name=f"reliability-{said.split}", title=title)


def _tiles(
    said: Answers,
    positions: np.ndarray,
    names: list[str],
    table: FeatureTable,
    place: dict[int, int],
) -> list[dict[str, Any]]:
    confidence, predicted = said.confidence, said.predicted
    return [
        {
            "image": place.get(int(said.rows[at])),
            "path": shown(table.paths[said.rows[at]]),
            "label": names[said.labels[at]],
            "predicted": names[predicted[at]],
            "right": bool(predicted[at] == said.labels[at]),
            "confidence": float(confidence[at]),
            "of_label": float(said.chances[at, said.labels[at]]),
        }
        for at in positions.tolist()
    ]
