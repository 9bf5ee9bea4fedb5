"""What the audit found, as the page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.analysis.auditing.audit import KINDS, Finding

#: Findings of a kind that are shown; the list has all.
SHOWN = 24
#: Pictures of one finding.
PICTURES = 4
_TITLES = {
    "copy": ("Copies", "The same file in several places."),
    "near-duplicate": ("Near-duplicates", "Nearly the same picture in several places."),
    "suspect-label": (
        "Suspect labels",
        "Models that had not seen these images are surest that the label is another one.",
    ),
    "outlier": ("Outliers", "Images unlike all others, or unlike their own class."),
}


def section(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings by kind, the most suspicious first: all in number, and those shown.

    Args:
        found: the most suspicious of a kind first.
    """
    kinds = {kind: [one for one in found if one.kind == kind] for kind in KINDS}
    return [
        {
            "kind": kind,
            "title": _TITLES[kind][0],
            "what": _TITLES[kind][1],
            "total": len(part),
            "findings": part[:SHOWN],
        }
        for kind, part in kinds.items()
    ]


def seen_first(found: Sequence[Finding]) -> list[int]:
    """Return the rows whose pictures the section shows."""
    shown = (one for group in section(found) for one in group["findings"])
    return [row for one in shown for row in one.rows[:PICTURES]]
