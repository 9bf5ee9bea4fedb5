"""What is in a table as the page shows it: classes by split, samples, files left out."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DamagedError
from pipeline.images.remarks import TAKEN, Remarks
from pipeline.store.table import FeatureTable

#: Sample pictures on the page, shared by the classes; and of one class at most.
SAMPLES, EACH = 96, 8
#: Classes of which an image is shown as the trunk sees it, evaluated and augmented.
STRIPS = 12
#: Augmented views that are shown of it, where the policy has so many.
VIEWS = 4
#: Files left out that are listed; the file beside the table lists all.
LISTED = 200


def classes(table: FeatureTable) -> list[dict[str, Any]]:
    """Return each class's name and number, and its images, in all and by split."""
    names = np.array(table.splits, dtype=object)
    found = []
    for label, name in enumerate(table.classes):
        own = names[table.labels == label]
        counts = [int((own == split).sum()) for split in table.split_counts]
        found.append({"class": name, "label": label, "images": len(own), "counts": counts})
    return found


def samples(table: FeatureTable) -> dict[int, list[int]]:
    """Return rows of some images of each class, those of train first.

    Which ones depends on what the files hold and not on names or order. Beyond `SAMPLES` classes
    the first ones alone have any.
    """
    each = max(1, min(EACH, SAMPLES // max(1, len(table.classes))))
    held = np.array(table.splits, dtype=object) != "train"
    found = {}
    for label in range(len(table.classes))[:SAMPLES]:
        rows = np.flatnonzero(table.labels == label).tolist()
        rows.sort(key=lambda row: (held[row], table.digests[row]))
        unique = {table.digests[row]: row for row in reversed(rows)}  # the first of equal files
        found[label] = list(reversed(unique.values()))[:each]
    return found


def left_out(table: FeatureTable) -> dict[str, Any]:
    """Return the files that are not in a table, from the list that `extract` wrote beside it.

    Returns:
        `total`, `reasons` (kind, reason, files; the commonest first), `files` (kind, reason,
        path; at most `LISTED`) and `remarks`: sentences on images that are in it, not as they were.

    Raises:
        DamagedError: the list is not what `extract` writes.
    """
    assert table.path is not None
    path = table.path.with_name(f"{table.path.stem}.left-out.csv")
    if not path.exists():
        return {"total": 0, "reasons": [], "files": [], "remarks": []}
    every = _listed(path)
    found = [line for line in every if line["kind"] != TAKEN]
    reasons = Counter((line["kind"], line["reason"]) for line in found)
    return {
        "total": len(found),
        "reasons": [
            {"kind": kind, "reason": reason, "files": count}
            for (kind, reason), count in reasons.most_common()
        ],
        "files": found[:LISTED],
        "remarks": Remarks(
            (line["path"], line["reason"]) for line in every if line["kind"] == TAKEN
        ).notes,
    }


def _listed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        columns, found = set(reader.fieldnames or ()), list(reader)
    if columns != {"path", "kind", "reason"} or any(
        None in line or None in line.values() for line in found
    ):
        raise DamagedError(f"{path} is damaged; `pipeline extract` writes it again.")
    return found
