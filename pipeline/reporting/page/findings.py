"""What the audit found, as the page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.analysis.auditing.audit import KINDS, Finding
from pipeline.images.names import shown
from pipeline.store.table import FeatureTable

#: Findings of a kind that are shown; the list has all.
SHOWN = 40
#: Pictures of one finding.
PICTURES = 6
_TITLES = {
    "copy": ("Copies", "The same file in several places."),
    "near-duplicate": ("Near-duplicates", "Nearly the same picture in several places."),
    "suspect-label": (
        "Suspect labels",
        "Models that had not seen these images are surest that the label is another one.",
    ),
    "outlier": ("Outliers", "Images unlike all others, or unlike their own class."),
}


def seen_first(found: Sequence[Finding]) -> list[int]:
    """Return the rows whose pictures the section shows."""
    return [row for part in _by_kind(found).values() for one in part for row in one.rows[:PICTURES]]


def _by_kind(found: Sequence[Finding]) -> dict[str, list[Finding]]:
    return {kind: [one for one in found if one.kind == kind][:SHOWN] for kind in KINDS}


def section(
    found: Sequence[Finding], table: FeatureTable, place: dict[int, int]
) -> list[dict[str, Any]]:
    """Return the findings by kind.

    Args:
        found: the most suspicious of a kind first.
        table: that they are about.
        place: row to the image's number on the page, where it has one.
    """
    names = [shown(name) for name in table.classes]

    def image(row: int) -> dict[str, Any]:
        label = int(table.labels[row])
        return {
            "image": place.get(row),
            "path": shown(table.paths[row]),
            "split": table.splits[row],
            "label": names[label] if label >= 0 else "no label",
        }

    return [
        {
            "kind": kind,
            "title": _TITLES[kind][0],
            "what": _TITLES[kind][1],
            "total": sum(one.kind == kind for one in found),
            "findings": [
                {
                    "images": [image(row) for row in one.rows[:PICTURES]],
                    "more": max(0, len(one.rows) - PICTURES),
                    "suggested": None if one.suggested is None else names[one.suggested],
                    "reason": shown(one.reason),
                }
                for one in part
            ],
        }
        for kind, part in _by_kind(found).items()
    ]
