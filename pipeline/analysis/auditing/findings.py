"""What an audit finds."""

from __future__ import annotations

from dataclasses import dataclass

#: Kinds of findings, in the order in which they are listed.
KINDS = ("copy", "near-duplicate", "suspect-label", "outlier")


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at.

    Attributes:
        kind: one of `KINDS`.
        rows: of the table: the image, or those that are one and the same picture.
        score: how suspicious it is; comparable within a kind.
        suggested: the label that a suspect image should perhaps have, index into the table's
            classes; None for the other kinds.
        reason: a sentence.
    """

    kind: str
    rows: tuple[int, ...]
    score: float
    suggested: int | None
    reason: str
